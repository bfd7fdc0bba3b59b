"""Short names of features, which the ids of their groups begin with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.jobs.sources import feature_words


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["shape", "tone"], ["shape", "tone"]),
        (["mixpeek://text@v1/embedding", "tone"], ["embedding", "tone"]),
        (
            ["mixpeek://text@v1/embedding", "mixpeek://image@v1/embedding", "tone"],
            ["text_v1_embedding", "image_v1_embedding", "tone"],
        ),
        (["a.b", "a"], ["a_b", "a"]),
    ],
)
def test_a_feature_is_called_by_what_tells_it_from_the_others(
    names: list[str], words: list[str]
) -> None:
    assert feature_words(names) == words


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=6))
def test_no_two_are_called_alike_and_each_can_stand_in_a_url(names: list[str]) -> None:
    words = feature_words(names)

    assert len(set(words)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", word) for word in words)
