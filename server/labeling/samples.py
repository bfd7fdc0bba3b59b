"""What of the documents is read: for the model, and for keywords without one.

A labeling job maps dot paths of the payload to the names that the model sees; without such
mappings the whole payload is read, less the fields that clustering itself wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from server.export.paths import elements, found, split_path
from server.export.rows import SOURCE_BUCKET_FIELD, WHOLE_PAYLOAD

if TYPE_CHECKING:
    from server.labeling.request import LabelingInput, LLMLabeling

Sample: TypeAlias = dict[str, str]
"""One document as the model sees it: texts by the names of the mappings, in their order."""

Payload: TypeAlias = Mapping[str, Any]

WHOLE_KEY: Final = "document"
# Written by the service, so they would tell the last run's answer, or the storage.
OWN_FIELDS: Final = frozenset({"cluster_run_id", SOURCE_BUCKET_FIELD})


def payload_fields(config: LLMLabeling) -> tuple[str, ...]:
    """Give the dot paths that the export must keep; ``*`` for the whole payload."""
    paths = [mapping.path for mapping in payload_mappings(config)]
    return tuple(dict.fromkeys(paths)) or (WHOLE_PAYLOAD,)


def payload_mappings(config: LLMLabeling) -> list[LabelingInput]:
    """Give the mappings that read documents."""
    mappings = config.labeling_inputs.input_mappings
    return [mapping for mapping in mappings if mapping.source_type == "payload"]


def notes(config: LLMLabeling) -> Sample:
    """Give the literal texts of a job; they are told once, not with each document."""
    mappings = config.labeling_inputs.input_mappings
    return {m.input_key: m.path for m in mappings if m.source_type == "literal"}


def parse_payload(column_value: str | None) -> Payload:
    """Read a value of the export's column `payload`."""
    parsed = json.loads(column_value) if column_value else {}
    return parsed if isinstance(parsed, dict) else {}


@dataclass(frozen=True)
class SampleTexts:
    """Documents as samples, and what was missing in them.

    Attributes
    ----------
    samples : list of Sample
        One for each document; empty where it had none of the texts.
    missing : dict of str to int
        For each mapped path, in how many of the documents it was not found or empty.
    """

    samples: list[Sample] = field(default_factory=list)
    missing: Mapping[str, int] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Name each path that none of the documents has."""
        return [
            f"llm_labeling: path {path!r} is in none of the {n_missing:,} documents that were "
            "read for labels; labels are made without it"
            for path, n_missing in self.missing.items()
            if self.samples and n_missing == len(self.samples)
        ]


def sample_texts(
    payloads: Iterable[Payload],
    mappings: Sequence[LabelingInput],
    max_length: int,
    *,
    exclude: Collection[str] = (),
) -> SampleTexts:
    """Make the samples of some documents.

    Parameters
    ----------
    payloads : iterable of mappings
        The documents' payloads.
    mappings : sequence of LabelingInput
        As `payload_mappings` gives them; none: the payload as JSON, under ``document``.
    max_length : int
        Characters kept of each text.
    exclude : collection of str
        Top-level fields left out of whole payloads besides `OWN_FIELDS`, such as those that
        an enriching job writes.
    """
    missing = {mapping.path: 0 for mapping in mappings}
    paths = [(mapping.input_key, mapping.path, split_path(mapping.path)) for mapping in mappings]
    samples = []
    for payload in payloads:
        sample: Sample = {}
        for key, path, keys in paths:
            text = _cut(_shown(found(payload, keys)), max_length)
            if text:
                sample[key] = text
            else:
                missing[path] += 1
        if not mappings:
            own = {k: v for k, v in payload.items() if k not in OWN_FIELDS and k not in exclude}
            if own:
                sample[WHOLE_KEY] = _cut(json.dumps(own, ensure_ascii=False), max_length)
        samples.append(sample)
    return SampleTexts(samples, missing)


def plain_text(
    mappings: Sequence[LabelingInput], *, exclude: Collection[str] = ()
) -> Callable[[Payload], str]:
    """Make the function that reads a document's words, for keywords: its strings, one a line.

    Numbers, dates as such and the names of fields are no words of the document.
    """
    paths = [split_path(mapping.path) for mapping in mappings]

    def read(payload: Payload) -> str:
        if paths:
            return "\n".join(text for keys in paths for text in _strings(found(payload, keys)))
        own = (v for k, v in payload.items() if k not in OWN_FIELDS and k not in exclude)
        return "\n".join(_strings(own))

    return read


def _strings(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _strings(value.values())
        elif isinstance(value, list):
            yield from _strings(value)


def _shown(values: Iterable[Any]) -> str:
    """Write what a path leads to as one text: strings as they are, the rest as JSON."""
    parts = [value for value in elements(values) if value is not None and value != ""]
    return ", ".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in parts
    ).strip()


def _cut(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
