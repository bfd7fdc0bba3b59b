"""What groups are called: fallbacks where nothing better is known, and no name twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from server.labeling.replies import MAX_KEYWORDS, MAX_LABEL_CHARS, is_clean

FALLBACK_WORDS: Final = 3
RESERVED_LABELS: Final = frozenset({"noise"})
"""Labels, casefolded, that no group may have: documents of no group are called so."""


@dataclass(frozen=True)
class GroupName:
    """What one group is called; `summary` only where a model gave one."""

    label: str
    summary: str | None = None
    keywords: tuple[str, ...] = ()


def fallback_label(position: int) -> str:
    """Name a group by its position: ``Cluster 0`` is the largest."""
    return f"Cluster {position}"


def plain_names(n_groups: int, words: Sequence[Sequence[str]] = ()) -> list[GroupName]:
    """Name groups where no model is asked: by position, with their distinctive words."""
    return [
        GroupName(fallback_label(position), None, _keywords(words, position))
        for position in range(n_groups)
    ]


def fallback_name(position: int, words: Sequence[Sequence[str]], with_keywords: bool) -> GroupName:
    """Name a group that the model failed for: by its distinctive words, else by position."""
    keywords = _keywords(words, position)
    label = ", ".join(keywords[:FALLBACK_WORDS])
    return GroupName(
        label if 0 < len(label) <= MAX_LABEL_CHARS else fallback_label(position),
        None,
        keywords if with_keywords else (),
    )


def unique_names(names: Sequence[GroupName], words: Sequence[Sequence[str]]) -> list[GroupName]:
    """Make labels unique, ignoring case: by a telling keyword, else by a number.

    Groups that share a label each get the first of their keywords (their documents' own
    `words` first) that none of the others has: ``Databases (mysql)``, ``Databases (cache)``.
    Where there is none, the first keeps the label and the next are numbered from 2. The same
    names in the same order always give the same labels.
    """
    sharing: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        sharing[name.label.casefold()].append(position)
    taken = {*RESERVED_LABELS, *sharing}
    unique = list(names)
    for shared, positions in sharing.items():
        if len(positions) == 1 and shared not in RESERVED_LABELS:
            continue
        known = {p: [*_keywords(words, p), *names[p].keywords] for p in positions}
        is_kept = shared in RESERVED_LABELS
        for position in positions:
            others = {w.casefold() for p in positions if p != position for w in known[p]}
            label = _with_keyword(names[position].label, known[position], others, taken)
            if label is None and not is_kept:
                label, is_kept = names[position].label, True
            elif label is None:
                label = _with_number(names[position].label, taken)
            taken.add(label.casefold())
            unique[position] = replace(names[position], label=label)
    return unique


def _keywords(words: Sequence[Sequence[str]], position: int) -> tuple[str, ...]:
    of_group = words[position] if position < len(words) else ()
    return tuple(word for word in of_group if is_clean(word))[:MAX_KEYWORDS]


def _with_keyword(
    label: str, keywords: Sequence[str], others: set[str], taken: set[str]
) -> str | None:
    for word in keywords:
        told = f"{label} ({word})"
        if (
            word.casefold() not in others
            and word.casefold() not in label.casefold()
            and len(told) <= MAX_LABEL_CHARS
            and told.casefold() not in taken
        ):
            return told
    return None


def _with_number(label: str, taken: set[str]) -> str:
    number = 2
    while True:
        suffix = f" {number}"
        numbered = label[: MAX_LABEL_CHARS - len(suffix)].rstrip() + suffix
        if numbered.casefold() not in taken:
            return numbered
        number += 1
