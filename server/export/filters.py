"""The filter language of a request: from its JSON to a checked, immutable tree.

A group is ``{AND: [...], OR: [...], NOT: [...], case_sensitive}``; the lists that are there
must all hold. An item is a condition ``{field, operator, value, case_sensitive}``, another
group, or shorthand ``{"status": "active", ...}``: each key a field, each value what it
equals. Shorthand may also stand beside the lists of a group and is then one more AND.

Decisions where the contract is silent:

- An object with the key ``field`` is a condition, so a payload field of that name needs
  the long form. ``AND``, ``OR``, ``NOT`` and ``case_sensitive`` are never fields.
- A list or an object as a shorthand value is refused: it could mean `in`, or equality.
- An empty AND or NOT holds; an empty OR would hold for no document and is refused.
- `case_sensitive` of a group is inherited by everything inside it that says nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.errors import InvalidRequestError, Violation
from server.export.conditions import OPERATORS, Condition, ValueFault, sent
from server.export.paths import path_fault, split_path

MAX_DEPTH: Final = 8
MAX_CONDITIONS: Final = 1000
_MAX_VIOLATIONS: Final = 50
_GROUP_KEYS: Final = ("AND", "OR", "NOT")
_CONDITION_KEYS: Final = ("field", "operator", "value", "case_sensitive")


@dataclass(frozen=True)
class Filter:
    """A group: all of `all_of`, one of `any_of` (if any), and none of `none_of` hold."""

    all_of: tuple[Filter | Condition, ...] = ()
    any_of: tuple[Filter | Condition, ...] = ()
    none_of: tuple[Filter | Condition, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when every document passes, because nothing is claimed."""
        return not (self.all_of or self.any_of or self.none_of)

    def fields(self) -> frozenset[str]:
        """The payload dot paths that are read, without ``[]`` marks."""
        return frozenset(".".join(split_path(c.field)) for c in self.conditions())

    def conditions(self) -> list[Condition]:
        """Every condition in the tree."""
        found: list[Condition] = []
        for item in (*self.all_of, *self.any_of, *self.none_of):
            found.extend([item] if isinstance(item, Condition) else item.conditions())
        return found


def parse_filter(raw: Mapping[str, Any] | None, *, path: str = "filters") -> Filter:
    """Check a filter and build its tree.

    Parameters
    ----------
    raw : mapping or None
        The JSON object as sent; None and ``{}`` are the empty filter.
    path : str
        Where it stands in the request, for the violations.

    Raises
    ------
    InvalidRequestError
        With every fault of the filter, up to fifty.
    """
    parser = _Parser(path)
    tree = Filter() if raw is None else parser.item(raw, path, 0, False)
    if parser.violations:
        raise InvalidRequestError(parser.violations[:_MAX_VIOLATIONS])
    if isinstance(tree, Condition):
        return Filter(all_of=(tree,))
    return tree or Filter()


class _Parser:
    """Walks a filter once and gathers its faults. An item at fault becomes None."""

    def __init__(self, root: str) -> None:
        self.violations: list[Violation] = []
        self._root = root
        self._n_conditions = 0

    def fault(self, path: str, description: str) -> None:
        self.violations.append(Violation(path, description))

    def item(self, raw: Any, path: str, depth: int, case: bool) -> Filter | Condition | None:
        """A group, a condition or shorthand. `depth` counts the groups around it."""
        if not isinstance(raw, Mapping):
            self.fault(path, f"needs an object (a condition or a group), got {sent(raw)}")
            return None
        if raw.keys() <= {"case_sensitive"} and path != self._root:
            self.fault(path, "is empty; leave it out or write a condition")
            return None
        is_group = any(key in raw for key in _GROUP_KEYS)
        if is_group and depth >= MAX_DEPTH:
            self.fault(path, f"groups are nested deeper than {MAX_DEPTH}; flatten the filter")
            return None
        case = self._case(raw, path, case)
        if is_group:
            return self._group(raw, path, depth + 1, case)
        if "field" in raw or {"operator", "value"} <= raw.keys():
            return self._condition(raw, path, case)
        equals = self._shorthand(raw, path, case)
        return equals[0] if len(equals) == 1 else Filter(all_of=tuple(equals))

    def _case(self, raw: Mapping[str, Any], path: str, inherited: bool) -> bool:
        sensitive = raw.get("case_sensitive")
        if sensitive is None:
            return inherited
        if not isinstance(sensitive, bool):
            self.fault(f"{path}.case_sensitive", f"needs true or false, got {sent(sensitive)}")
            return inherited
        return sensitive

    def _group(self, raw: Mapping[str, Any], path: str, depth: int, case: bool) -> Filter:
        lists: dict[str, list[Filter | Condition]] = {key: [] for key in _GROUP_KEYS}
        for key in _GROUP_KEYS:
            items = raw.get(key)
            if items is None:
                continue
            if not isinstance(items, list | tuple):
                self.fault(f"{path}.{key}", f"needs a list of conditions, got {sent(items)}")
                continue
            if key == "OR" and not items:
                self.fault(f"{path}.OR", "is empty, so no document could pass; leave it out")
            for position, item in enumerate(items):
                parsed = self.item(item, f"{path}.{key}[{position}]", depth, case)
                if parsed is not None:
                    lists[key].append(parsed)
        if "field" in raw or {"operator", "value"} <= raw.keys():
            self.fault(path, "mixes a group and a condition; put the condition into its AND list")
        else:
            rest = {key: value for key, value in raw.items() if key not in _GROUP_KEYS}
            lists["AND"].extend(self._shorthand(rest, path, case))
        return Filter(tuple(lists["AND"]), tuple(lists["OR"]), tuple(lists["NOT"]))

    def _condition(self, raw: Mapping[str, Any], path: str, case: bool) -> Condition | None:
        for key in raw:
            if key not in _CONDITION_KEYS:
                self.fault(
                    f"{path}.{key}",
                    f"is not part of a condition{_did_you_mean(key, _CONDITION_KEYS)}; "
                    f"allowed: {', '.join(_CONDITION_KEYS)}",
                )
        operator = raw.get("operator")
        operator = "eq" if operator is None else operator
        if not isinstance(operator, str) or operator not in OPERATORS:
            self.fault(
                f"{path}.operator",
                f"{sent(operator)} is not an operator{_did_you_mean(operator, OPERATORS)}; "
                f"allowed: {', '.join(OPERATORS)}",
            )
            operator = None
        return self._checked(raw.get("field"), operator, raw.get("value"), path, case)

    def _shorthand(self, raw: Mapping[str, Any], path: str, case: bool) -> list[Condition]:
        equals = []
        for key, value in raw.items():
            if key == "case_sensitive":
                continue
            where = f"{path}.{key}"
            if key.upper() in _GROUP_KEYS and isinstance(value, list | tuple):
                self.fault(where, f"is not a group; did you mean {key.upper()}?")
            elif isinstance(value, list | tuple | Mapping):
                kind = "an object" if isinstance(value, Mapping) else "a list"
                self.fault(
                    where,
                    f"shorthand is equality with one value, got {kind}; write "
                    f'{{"field": {key!r}, "operator": "in", "value": [...]}}',
                )
            else:
                condition = self._checked(key, "eq", value, path, case, value_path=where)
                if condition is not None:
                    equals.append(condition)
        return equals

    def _checked(
        self,
        field: Any,
        operator: str | None,
        value: Any,
        path: str,
        case: bool,
        *,
        value_path: str | None = None,
    ) -> Condition | None:
        self._n_conditions += 1
        if self._n_conditions > MAX_CONDITIONS:
            if self._n_conditions == MAX_CONDITIONS + 1:
                self.fault(path, f"a filter has at most {MAX_CONDITIONS} conditions")
            return None
        fault = path_fault(field)
        if fault is not None:
            self.fault(value_path or f"{path}.field", fault)
        if operator is None:
            return None
        try:
            checked = OPERATORS[operator](value)
        except ValueFault as error:
            self.fault(f"{value_path or f'{path}.value'}{error.at}", f"{operator}: {error}")
            return None
        return None if fault is not None else Condition(field, operator, checked, case)


def _did_you_mean(word: object, known: Any) -> str:
    close = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
