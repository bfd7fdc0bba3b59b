"""What a model is asked to answer, and what of its answer is believed.

A reply is text from outside: it is parsed leniently (fences and talk around the JSON are
ignored) and then checked strictly. Labels are never repaired by cutting: a label that is too
long or holds control characters is a fault, and the model is asked once more.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from server.labeling import prompts

MAX_LABEL_CHARS: Final = 80
MAX_SUMMARY_CHARS: Final = 600
MAX_KEYWORD_CHARS: Final = 60
MAX_KEYWORDS: Final = 10
MAX_REPLY_CHARS: Final = 20_000

# Joiners are part of how Persian, Hindi and emoji are written; other format characters can
# hide or reorder text.
_JOINERS: Final = "\u200c\u200d"
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


@dataclass(frozen=True)
class Wanted:
    """Which fields a reply must have besides the label."""

    summary: bool = True
    keywords: bool = True


@dataclass(frozen=True)
class Reply:
    """A checked reply. `summary` is None and `keywords` empty where they were not wanted."""

    label: str
    summary: str | None = None
    keywords: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give the form that `parse_reply` reads."""
        return {"label": self.label, "summary": self.summary, "keywords": list(self.keywords)}


@dataclass(frozen=True)
class Fault:
    """Why a reply cannot be used, in words that the model can act on."""

    why: str


def fields_text(wanted: Wanted) -> str:
    """Describe the wanted fields for the prompt, one line each."""
    lines = [("label", prompts.FIELD_LABEL.format(max_label=MAX_LABEL_CHARS))]
    if wanted.summary:
        lines.append(("summary", prompts.FIELD_SUMMARY.format(max_summary=MAX_SUMMARY_CHARS)))
    if wanted.keywords:
        lines.append(("keywords", prompts.FIELD_KEYWORDS.format(max_keywords=MAX_KEYWORDS)))
    return "\n".join(f'- "{name}": {text}' for name, text in lines)


def response_format(wanted: Wanted) -> dict[str, Any]:
    """Give the ``response_format`` that makes a provider keep to the schema.

    Lengths are not in it: strict mode refuses schemas with keywords it does not enforce.
    """
    properties: dict[str, Any] = {"label": {"type": "string"}}
    if wanted.summary:
        properties["summary"] = {"type": "string"}
    if wanted.keywords:
        properties["keywords"] = {"type": "array", "items": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "group_name", "strict": True, "schema": schema},
    }


def parse_reply(content: str | None, wanted: Wanted) -> Reply | Fault:
    """Read and check a model's answer."""
    if not content or not content.strip():
        return Fault("it is empty")
    found = _last_object(content[-MAX_REPLY_CHARS:])
    if found is None:
        return Fault("it holds no JSON object")
    label = _line(found.get("label"))
    if not label:
        return Fault('"label" is missing, empty or not a string')
    if len(label) > MAX_LABEL_CHARS:
        return Fault(f'"label" has {len(label)} characters, at most {MAX_LABEL_CHARS} are allowed')
    summary = _line(found.get("summary")) if wanted.summary else None
    if wanted.summary and not summary:
        return Fault('"summary" is missing, empty or not a string')
    keywords = _keywords(found.get("keywords")) if wanted.keywords else ()
    if keywords is None:
        return Fault('"keywords" is not an array of strings')
    if not is_clean(" ".join((label, summary or "", *keywords))):
        return Fault("it holds control characters")
    return Reply(label, _shortened(summary) if summary else None, keywords)


def is_clean(text: str) -> bool:
    """Tell whether a text has no control, formatting, surrogate or unassigned characters."""
    return not any(
        unicodedata.category(character) in _UNFIT_CATEGORIES and character not in _JOINERS
        for character in text
    )


def _last_object(text: str) -> dict[str, Any] | None:
    """Find the last JSON object with a label, else the last object.

    The last: a model that thinks aloud drafts before it answers.
    """
    objects = list(_objects(text))
    labeled = [found for found in objects if "label" in found]
    found = labeled or objects
    return found[-1] if found else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield found
        at = text.find("{", end)


def _line(value: Any) -> str:
    """Put a text on one line; "" for what is no text."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _keywords(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    lines = (_line(item) for item in value)
    kept = dict.fromkeys(line for line in lines if 0 < len(line) <= MAX_KEYWORD_CHARS)
    return tuple(kept)[:MAX_KEYWORDS]


def _shortened(summary: str) -> str:
    if len(summary) <= MAX_SUMMARY_CHARS:
        return summary
    return summary[: MAX_SUMMARY_CHARS - 1].rsplit(" ", 1)[0] + "…"
