"""Texts as vectors, from nothing but the texts themselves: latent semantic analysis.

No model and no download. Good enough to group documentation by subject; a sentence embedding
model groups by meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MIN_TEXTS_OF_A_WORD = 2
MAX_SHARE_OF_A_WORD = 0.1
"""A word counts when it stands in at least so many texts, and in at most this share of them."""
NEVER_COMMON = 10
"""Texts that a word may stand in however few there are: shares of a handful say nothing."""

_SVD_ITERATIONS = 4


def embed_texts(texts: Sequence[str], n_dims: int = 128, seed: int = 42) -> npt.NDArray[np.float32]:
    """Embed texts by TF-IDF and a truncated singular value decomposition.

    Parameters
    ----------
    texts : sequence of str, length n_texts
        In English: common English words are left out.
    n_dims : int
        Dimensions of the vectors, at least 1.
    seed : int
        Of the randomized decomposition.

    Returns
    -------
    array of shape (n_texts, n_dims), float32
        Rows of length 1, so their dot product is their cosine. A text without any word that
        counts has a row of zeros. Where there are fewer texts or words than `n_dims`, the
        last columns are zero.

    Raises
    ------
    ValueError
        If `n_dims` is below 1.

    References
    ----------
    Deerwester et al. (1990), doi:10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9.
    Halko, Martinsson and Tropp (2011), doi:10.1137/090771806.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    if n_dims < 1:
        raise ValueError(f"n_dims must be at least 1, got {n_dims}")
    vectors = np.zeros((len(texts), n_dims), dtype=np.float32)
    vectorizer = TfidfVectorizer(
        stop_words="english",
        token_pattern=r"[A-Za-z][A-Za-z]+",
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's word for: no text has a word.
        return vectors
    n_texts_of = np.asarray((weights > 0).sum(axis=0)).ravel()
    most = max(NEVER_COMMON, MAX_SHARE_OF_A_WORD * len(texts))
    weights = weights[:, (n_texts_of >= MIN_TEXTS_OF_A_WORD) & (n_texts_of <= most)]
    n_components = min(n_dims, *weights.shape)
    if n_components == 0:
        return vectors
    left, strengths, _ = randomized_svd(
        weights, n_components, n_iter=_SVD_ITERATIONS, random_state=seed
    )
    vectors[:, :n_components] = left * strengths
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(
        vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0
    )
    return unit
