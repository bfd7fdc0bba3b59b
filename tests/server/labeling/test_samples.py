from __future__ import annotations

from typing import Any

from server.labeling.request import LLMLabeling
from server.labeling.samples import (
    notes,
    parse_payload,
    payload_fields,
    payload_mappings,
    plain_text,
    sample_texts,
)


def config(*mappings: dict[str, str]) -> LLMLabeling:
    return LLMLabeling.model_validate({"labeling_inputs": {"input_mappings": list(mappings)}})


TITLE = {"input_key": "title", "path": "title"}
AUTHORS = {"input_key": "by", "path": "meta.authors.name"}
HINT = {"input_key": "hint", "path": "These are books.", "source_type": "literal"}


def samples(payloads: list[dict[str, Any]], *mappings: dict[str, str], **options: Any) -> Any:
    return sample_texts(payloads, payload_mappings(config(*mappings)), 20, **options)


def test_the_export_keeps_what_the_mappings_read() -> None:
    assert payload_fields(config(TITLE, AUTHORS, HINT, TITLE)) == ("title", "meta.authors.name")
    assert payload_fields(config()) == ("*",)
    assert payload_fields(config(HINT)) == ("*",)  # Something must be read of the documents.
    assert notes(config(TITLE, HINT)) == {"hint": "These are books."}


def test_samples_have_the_names_and_the_order_of_the_mappings() -> None:
    book = {"title": "Emma", "meta": {"authors": [{"name": "Jane"}, {"name": "Ann"}]}}

    found = samples([book], AUTHORS, TITLE)

    assert list(found.samples[0].items()) == [("by", "Jane, Ann"), ("title", "Emma")]


def test_values_that_are_no_text_are_written_as_json() -> None:
    odd = [{"title": 7}, {"title": {"a": None}}, {"title": [1, True]}, {"title": 0}]

    assert [s["title"] for s in samples(odd, TITLE).samples] == ["7", '{"a": null}', "1, true", "0"]


def test_long_texts_are_cut_to_the_length_asked_for() -> None:
    text = samples([{"title": "x" * 21}], TITLE).samples[0]["title"]

    assert text == "x" * 19 + "…"
    assert samples([{"title": "x" * 20}], TITLE).samples[0]["title"] == "x" * 20


def test_a_path_that_no_document_has_is_named() -> None:
    found = samples([{"title": "Emma"}, {"title": None}, {"title": " "}], TITLE, AUTHORS)

    assert found.samples == [{"title": "Emma"}, {}, {}]
    assert found.missing == {"title": 2, "meta.authors.name": 3}
    assert found.warnings == [
        "llm_labeling: path 'meta.authors.name' is in none of the 3 documents that were read "
        "for labels; labels are made without it"
    ]
    assert samples([], TITLE).warnings == []


def test_without_mappings_the_payload_is_read_as_json_less_our_own_fields() -> None:
    payload = {"a": 1, "cluster_run_id": "run_1", "source_bucket_id": "b", "cluster_label": "Old"}

    found = samples([payload, {"cluster_label": "Old"}], exclude={"cluster_label"})

    assert found.samples == [{"document": '{"a": 1}'}, {}]


def test_plain_text_holds_the_strings_only() -> None:
    payload = {"title": "Emma", "n": 7, "meta": {"authors": [{"name": "Jane"}]}, "old": "Old"}

    assert plain_text([], exclude={"old"})(payload) == "Emma\nJane"
    assert plain_text(payload_mappings(config(AUTHORS)))(payload) == "Jane"
    assert plain_text(payload_mappings(config(AUTHORS)))({}) == ""


def test_a_payload_that_was_not_kept_is_empty() -> None:
    assert parse_payload(None) == {}
    assert parse_payload('{"a": 1}') == {"a": 1}
