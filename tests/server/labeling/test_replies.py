from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from server.labeling.replies import (
    MAX_KEYWORDS,
    MAX_LABEL_CHARS,
    MAX_REPLY_CHARS,
    MAX_SUMMARY_CHARS,
    Fault,
    Reply,
    Wanted,
    is_clean,
    parse_reply,
)

LABEL_ONLY = Wanted(summary=False, keywords=False)


def test_the_last_object_with_a_label_counts() -> None:
    thinking = '<think>{"label": "Draft"}</think> {"label": "Final"} I am {sure}.'

    assert parse_reply(thinking, LABEL_ONLY) == Reply("Final")


def test_texts_are_put_on_one_line_and_keywords_tidied() -> None:
    sent = {
        "label": " Fresh\n fruit ",
        "summary": "word " * 300,
        "keywords": [" a ", "a", "", "k" * 61, *(f"k{i}" for i in range(20))],
    }

    found = parse_reply(json.dumps(sent), Wanted())

    assert isinstance(found, Reply)
    assert found.label == "Fresh fruit"
    assert found.summary is not None
    assert len(found.summary) <= MAX_SUMMARY_CHARS
    assert found.summary.endswith("word…")
    assert found.keywords[:2] == ("a", "k0")
    assert len(found.keywords) == MAX_KEYWORDS


def test_what_was_not_wanted_is_dropped() -> None:
    sent = {"label": "Fruit", "summary": 7, "keywords": None}

    assert parse_reply(json.dumps(sent), LABEL_ONLY) == Reply("Fruit")


def test_languages_are_clean_and_hidden_characters_are_not() -> None:
    assert is_clean("Größe 日本語 می‌خواهم 👩‍💻")
    assert not is_clean("a\u202eb")
    assert not is_clean("a\x07b")
    assert not is_clean("a\ufeffb")


@given(st.text(alphabet='{}[]":,\\ labe\u202e\x00', max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    found = parse_reply('{"label": "' + text, LABEL_ONLY)

    assert isinstance(found, Reply | Fault)
    if isinstance(found, Reply):
        assert 0 < len(found.label) <= MAX_LABEL_CHARS
        assert is_clean(found.label)


def test_a_huge_nested_text_is_a_fault() -> None:
    assert isinstance(parse_reply('{"a":' * MAX_REPLY_CHARS, LABEL_ONLY), Fault)
