"""The words that set each group of texts apart: class-based TF-IDF, on the CPU.

Arrow cuts the texts into pieces that no word reaches beyond, a slice of the texts in each thread;
of the pieces only the different ones are looked at in Python. What stands where is counted by
sparse matrices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from gpu.parallel import n_cores
from gpu.params import NOISE

MAX_WORD_CHARS = 40
MIN_TEXTS = 2
"""Texts of a group that a word must stand in, where the group has at least `FEW_TEXTS`."""
FEW_TEXTS = 5

MAX_TEXT_CHARS = 20_000
"""Of a longer text only the start is read."""

# A letter, then letters and digits of any script, with single hyphens or apostrophes inside.
_WORD = re.compile(r"[^\W\d_]\w+(?:[-'\u2019]\w+)*")
# The same in the words of RE2, whose short classes know ASCII only: what is in no word, and
# addresses up to the next space of any kind.
_BETWEEN = r"[^\p{L}\p{N}_'\x{2019}-]+"
_ADDRESS = r"(?:https?://|www\.)[^\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}]+"

_SLICE_TEXTS = 16_384

Counts: TypeAlias = Any
"""A sparse matrix."""


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
    weights = np.ones(len(labels), dtype=np.int64) if n_alike is None else n_alike
    words, counts = _count(texts, labels, n_groups, weights)
    sizes = np.zeros(n_groups, dtype=np.int64)
    np.add.at(sizes, labels[labels != NOISE], weights[labels != NOISE])
    overall = np.asarray(counts.sum(axis=0)).ravel()
    n_filled = int((sizes > 0).sum())
    rarity = np.log1p(overall.sum() / max(n_filled, 1) / np.maximum(overall, 1))
    found = []
    for group in range(n_groups):
        own = slice(counts.indptr[group], counts.indptr[group + 1])
        word, n_has = counts.indices[own], counts.data[own].astype(np.int64)
        is_telling = n_has >= (MIN_TEXTS if sizes[group] >= FEW_TEXTS else 1)
        if n_filled > 1:
            is_telling &= n_has * sizes.sum() > overall[word] * sizes[group]
        word, n_has = word[is_telling], n_has[is_telling]
        best = _best(words, word, n_has * rarity[word], 2 * top)
        found.append(_without_plurals(best)[:top])
    return found


def _best(
    words: Sequence[str],
    numbers: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float64],
    most: int,
) -> list[str]:
    """Give the words with the highest scores, equal ones in the order of the alphabet."""
    if len(scores) > most:
        is_high = scores >= np.partition(scores, -most)[-most]
        numbers, scores = numbers[is_high], scores[is_high]
    found = zip((-scores).tolist(), (words[number] for number in numbers.tolist()), strict=True)
    return [word for _, word in sorted(found)[:most]]


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
    weights: npt.NDArray[np.integer],
) -> tuple[list[str], Counts]:
    """Count in how many texts of each group each word stands.

    Returns
    -------
    words : list of str
    counts : sparse matrix of shape (n_groups, n_words), int64
    """
    from scipy import sparse

    rows = np.flatnonzero(labels != NOISE)
    parts = [rows[at : at + _SLICE_TEXTS] for at in range(0, len(rows), _SLICE_TEXTS)]
    number_of: dict[str, int] = {}
    total = sparse.csr_matrix((n_groups, 0), dtype=np.int64)
    with ThreadPoolExecutor(n_cores()) as pool:
        cut = pool.map(lambda part: _pieces([texts[row] for row in part.tolist()]), parts)
        for part, pieces in zip(parts, cut, strict=True):
            has = _words_in(pieces, number_of)
            place = (labels[part], np.arange(len(part)))
            group_of = sparse.csr_matrix((weights[part], place), (n_groups, len(part)))
            total.resize(n_groups, len(number_of))
            total = total + group_of @ has
    return list(number_of), total


class _Pieces(NamedTuple):
    """The pieces of some texts: all different ones, which they are, and where each text's begin."""

    different: list[str]
    number: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32]


def _pieces(texts: Sequence[str]) -> _Pieces:
    import pyarrow as pa
    import pyarrow.compute as pc

    # Half of a surrogate pair, which JSON can hold, is no text elsewhere.
    read = [text[:MAX_TEXT_CHARS].encode(errors="replace") for text in texts]
    column = pa.array(read, pa.binary()).cast(pa.string())
    cut = pc.split_pattern_regex(pc.replace_substring_regex(column, _ADDRESS, " "), _BETWEEN)
    encoded = cut.flatten().dictionary_encode()
    return _Pieces(
        encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), cut.offsets.to_numpy()
    )


def _words_in(pieces: _Pieces, number_of: dict[str, int]) -> Counts:
    """Tell which words stand in which text; new words get the next numbers.

    Returns
    -------
    sparse matrix of shape (n_texts, n_words), int32
        1 for each word of a text.
    """
    from scipy import sparse

    found = [
        [number_of.setdefault(word, len(number_of)) for word in _words_of(piece)]
        for piece in pieces.different
    ]
    stops = np.cumsum([0, *map(len, found)])
    words = np.array([number for of_piece in found for number in of_piece], dtype=np.int32)
    word_of = sparse.csr_matrix((_ones(len(words)), words, stops), (len(found), len(number_of)))
    n_texts = len(pieces.offsets) - 1
    piece_of = sparse.csr_matrix(
        (_ones(len(pieces.number)), pieces.number, pieces.offsets), (n_texts, len(found))
    )
    has = piece_of @ word_of  # Which adds up what a text has several times.
    has.data[:] = 1
    return has


def _words_of(piece: str) -> Iterator[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    for word in _WORD.findall(piece.lower()):
        if len(word) <= MAX_WORD_CHARS and word not in ENGLISH_STOP_WORDS:
            yield word


def _ones(n: int) -> npt.NDArray[np.int32]:
    return np.ones(n, dtype=np.int32)
