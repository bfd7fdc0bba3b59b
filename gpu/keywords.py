"""The words that set each group of texts apart: class-based TF-IDF, on the CPU.

Counting is one pass of a compiled pattern over each text; 200 000 short texts take a few
seconds, and no matrix of texts by words is made.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu.params import NOISE

MAX_WORD_CHARS = 40
MIN_TEXTS = 2
"""Texts of a group that a word must stand in, where the group has at least `FEW_TEXTS`."""
FEW_TEXTS = 5

MAX_TEXT_CHARS = 20_000
"""Of a longer text only the start is read."""

# A letter, then letters and digits of any script, with single hyphens or apostrophes inside.
_WORD = re.compile(r"[^\W\d_]\w+(?:[-'\u2019]\w+)*")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+")


def distinctive_words(
    texts: Sequence[str],
    labels: npt.NDArray[np.integer],
    n_groups: int,
    n_alike: npt.NDArray[np.integer] | None = None,
    *,
    top: int = 10,
) -> list[list[str]]:
    """Find each group's most distinctive words.

    A word scores ``tf * log(1 + A / f)``: `tf` is the number of texts of the group that have
    it, `f` that of all groups, `A` the average of the groups' total counts.

    Parameters
    ----------
    texts : sequence of str, length n_points
        Web addresses, words of one character, English stop words and words of more than
        `MAX_WORD_CHARS` characters do not count.
    labels : array of shape (n_points,), int
        Group of each text; noise (-1) is left out.
    n_groups : int
        Groups are 0 to n_groups - 1.
    n_alike : array of shape (n_points,), int, or None
        As how many texts of its group each counts; None: as one.
    top : int
        Most words given for a group.

    Returns
    -------
    list of n_groups lists of str
        Lower case, best first, ties in the order of the alphabet. Only words that are more
        frequent in the group than over all groups, and of a word and its plural the better one;
        a group that nothing sets apart has none.

    Raises
    ------
    ValueError
        If texts and labels differ in number.

    Notes
    -----
    Unlike the paper's, counts are of texts, not of occurrences, so one text that repeats a
    word cannot make it a keyword. Scripts without spaces between words (Chinese, Japanese,
    Thai) come out as whole phrases.

    References
    ----------
    Grootendorst (2022), *BERTopic: Neural topic modeling with a class-based TF-IDF
    procedure*, arXiv:2203.05794.
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts beside {len(labels)} labels")
    alike = np.ones(len(labels), dtype=np.int64) if n_alike is None else n_alike
    counts, sizes = _count(texts, labels, n_groups, alike)
    overall: Counter[str] = Counter()
    for of_group in counts:
        overall.update(of_group)
    n_texts = sum(sizes)
    average = sum(overall.values()) / max(sum(size > 0 for size in sizes), 1)
    is_alone = sum(size > 0 for size in sizes) < 2
    found = []
    for of_group, size in zip(counts, sizes, strict=True):
        least = MIN_TEXTS if size >= FEW_TEXTS else 1
        scores = (
            (-n_has * math.log1p(average / overall[word]), word)
            for word, n_has in of_group.items()
            if n_has >= least and (is_alone or n_has * n_texts > overall[word] * size)
        )
        best = heapq.nsmallest(2 * top, scores)
        found.append(_without_plurals([word for _, word in best])[:top])
    return found


def _without_plurals(words: Sequence[str]) -> list[str]:
    """Keep the better of a word and its English plural."""
    kept: dict[str, str] = {}
    for word in words:
        kept.setdefault(word.removesuffix("s"), word)
    return list(kept.values())


def _count(
    texts: Sequence[str],
    labels: npt.NDArray[np.integer],
    n_groups: int,
    n_alike: npt.NDArray[np.integer],
) -> tuple[list[Counter[str]], list[int]]:
    """Count, for each group, in how many of its texts each word stands."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts: list[Counter[str]] = [Counter() for _ in range(n_groups)]
    sizes = [0] * n_groups
    for text, label, n in zip(texts, labels.tolist(), n_alike.tolist(), strict=True):
        if label == NOISE:
            continue
        words = set(_WORD.findall(_ADDRESS.sub(" ", text[:MAX_TEXT_CHARS]).lower()))
        counts[label].update(words if n == 1 else dict.fromkeys(words, n))
        sizes[label] += n
    for of_group in counts:
        for word in [w for w in of_group if w in ENGLISH_STOP_WORDS or len(w) > MAX_WORD_CHARS]:
            del of_group[word]
    return counts, sizes
