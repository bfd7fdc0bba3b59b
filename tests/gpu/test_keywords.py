from __future__ import annotations

import math
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpu.keywords import MAX_WORD_CHARS, distinctive_words

DATA = Path(os.environ.get("SHOAL_TEST_DATA", "../shared/data")) / "debian_packages.parquet"


def words(texts: list[str], labels: list[int], n_groups: int, top: int = 10) -> list[list[str]]:
    return distinctive_words(texts, np.array(labels, dtype=np.int64), n_groups, top=top)


def test_each_group_gets_the_words_that_set_it_apart() -> None:
    texts = ["the red apple", "a ripe apple", "the fast boat", "a red boat"]

    found = words(texts, [0, 0, 1, 1], 2)

    assert found[0] == ["apple", "ripe"]  # "red" is as frequent in both.
    assert found[1] == ["boat", "fast"]


def test_scores_are_those_of_the_paper() -> None:
    # Counts: group 0 has x 3, y 1; group 1 has x 1, z 2: A = (4 + 3) / 2.
    texts = ["xx yy", "xx", "xx", "xx zz", "zz"]
    average = 7 / 2
    of_xx, of_yy = 3 * math.log(1 + average / 4), 1 * math.log(1 + average / 1)

    found = words(texts, [0, 0, 0, 1, 1], 2)

    assert found[0] == [word for _, word in sorted([(-of_xx, "xx"), (-of_yy, "yy")])]
    assert found[1] == ["zz"]


def test_a_text_can_stand_for_several() -> None:
    texts, labels, n_alike = (
        ["red apple", "a boat", "red boat", "apple"],
        [0, 1, 1, -1],
        [3, 2, 1, 9],
    )

    found = distinctive_words(texts, np.array(labels), 2, np.array(n_alike))

    repeated = [np.repeat(part, n_alike).tolist() for part in (texts, labels)]
    assert found == words(*repeated, 2) == [["apple", "red"], ["boat"]]


def test_noise_is_ignored_and_empty_groups_have_no_words() -> None:
    texts = ["apple apple", "pear", "plum"]

    assert words(texts, [0, -1, 2], 3) == [["apple"], [], ["plum"]]


def test_one_text_that_repeats_a_word_does_not_make_it_a_keyword() -> None:
    texts = ["fruit apple"] * 4 + ["fruit " + "buy " * 500, "boat", "boat"]

    assert words(texts, [0, 0, 0, 0, 0, 1, 1], 2)[0] == ["fruit", "apple"]


def test_words_of_all_scripts_without_addresses_and_stop_words() -> None:
    texts = ["The Größe of жизнь at https://example.org/page x86_64 don't 2024 naïve-word"]

    assert set(words(texts, [0], 1)[0]) == {"größe", "жизнь", "x86_64", "don't", "naïve-word"}


def test_what_is_no_word_does_not_count() -> None:
    texts = ["", "   ", "12 34 !?", "a b c", "h" * (MAX_WORD_CHARS + 1)]

    assert words(texts, [0] * 5, 1) == [[]]


def test_a_plural_is_not_told_beside_its_singular() -> None:
    texts = ["fonts", "fonts font", "fonts type", "font", "boat"]

    assert words(texts, [0, 0, 0, 0, 1], 2)[0] == ["fonts", "type"]


def test_at_most_top_words_best_first_ties_by_alphabet() -> None:
    assert words(["delta beta alpha gamma", "boat"], [0, 1], 2, top=3)[0] == [
        "alpha",
        "beta",
        "delta",
    ]


def test_no_texts_and_no_groups() -> None:
    assert words([], [], 0) == []
    assert words([], [], 2) == [[], []]
    assert words(["apple"], [-1], 1) == [[]]


def test_texts_and_labels_must_match() -> None:
    with pytest.raises(ValueError, match="2 texts beside 1 labels"):
        words(["a", "b"], [0], 1)


def by_the_book(texts: list[str], labels: list[int], n_groups: int) -> list[dict[str, float]]:
    """Score every word of every group as the documentation says, one text after the other."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    has: list[Counter[str]] = [Counter() for _ in range(n_groups)]
    for text, label in zip(texts, labels, strict=True):
        plain = re.sub(r"(?:https?://|www\.)\S+", " ", text).lower()
        has[label].update(set(re.findall(r"[^\W\d_]\w+(?:[-'\u2019]\w+)*", plain)))
    for of_group in has:
        for word in [w for w in of_group if len(w) > MAX_WORD_CHARS or w in ENGLISH_STOP_WORDS]:
            del of_group[word]
    overall = sum(has, Counter())
    average = overall.total() / n_groups
    return [
        {
            word: n * math.log(1 + average / overall[word])
            for word, n in of_group.items()
            if n >= 2 and n * len(texts) > overall[word] * labels.count(group)
        }
        for group, of_group in enumerate(has)
    ]


def test_words_of_any_text_are_found_as_one_by_one() -> None:
    rng = random.Random(3)
    letters = "aabB2_-'\u2019 .,:/\n\t\x85\u2003\u2028\x1fßİé漢字१³½\u0301"
    texts = [
        "".join(rng.choices(letters, k=rng.randrange(40)))
        + rng.choice(["", " ", " http://a.b/cDe\u2003fg", "x-www.aa b", "\ud800aa"])
        for _ in range(20_000)  # Of several slices.
    ]
    labels = [rng.randrange(3) for _ in texts]

    found = words(texts, labels, 3, top=10_000)

    for group, expected in enumerate(by_the_book(texts, labels, 3)):
        assert len(expected) > 100
        ordered = sorted(expected, key=lambda word: (-round(expected[word], 9), word))
        assert found[group] == ordered


@pytest.mark.skipif(not DATA.is_file(), reason=f"no real data at {DATA}")
def test_real_sections_are_recognizable_by_their_words() -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(DATA, columns=["description", "section"])
    sections = table["section"].to_pylist()
    names = sorted(set(sections))
    found = words(
        table["description"].to_pylist(), [names.index(name) for name in sections], len(names)
    )
    of = dict(zip(names, found, strict=True))

    assert "game" in of["games"]
    assert "font" in of["fonts"]
    assert {"amateur", "radio"} <= set(of["hamradio"])
    assert "documentation" in of["doc"]
    assert words(table["description"].to_pylist(), [0] * len(sections), 1)[0]
