"""The label stage of a run: from its groups and its export to a name for each group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from server.labeling.cache import LabelCache
from server.labeling.checks import strategy_of
from server.labeling.documents import Rows, payloads_at, texts_at
from server.labeling.label import LabelingReport, LabelingUsage, Progress, label_groups
from server.labeling.naming import plain_names
from server.labeling.representatives import choose
from server.labeling.samples import Payload, payload_mappings, plain_text, sample_texts
from server.labeling.settings import LabelingSettings

if TYPE_CHECKING:
    from server.labeling.request import LLMLabeling

MAX_WORD_DOCUMENTS: Final = 200_000
MIN_WORD_DOCUMENTS: Final = 20
"""Documents that keywords are made from: of all groups together, yet so many of each group."""

MAX_WORD_CHARS: Final = 2_000
"""Of each document, for keywords."""

DistinctiveWords = Callable[
    [Sequence[str], NDArray[np.int64], int, NDArray[np.int64]], list[list[str]]
]


def name_groups(
    files: Sequence[str],
    members: Sequence[Rows],
    config: LLMLabeling,
    settings: LabelingSettings,
    *,
    distinctive_words: DistinctiveWords,
    vectors: NDArray[np.floating] | None = None,
    group_ids: Sequence[str] | None = None,
    exclude: Collection[str] = (),
    cache: LabelCache | None = None,
    progress: Progress | None = None,
    seed: int = 42,
) -> LabelingReport:
    """Name all groups of a run: by a model when labeling is enabled, else by position.

    Keywords come from the model, else from the documents' own distinctive words.

    Parameters
    ----------
    files : sequence of str
        Parts of the export, whose column `payload` holds what `payload_fields` names.
    members : sequence of int64 arrays
        Rows of the export in each group, nearest to its centroid first; groups may share
        rows, as those of several features or of a hierarchy do.
    config : LLMLabeling
        The job's labeling, enabled or not.
    distinctive_words : callable
        ``gpu.keywords.distinctive_words``: this package does not compute.
    vectors : array of shape (n_rows, n_dims), float, or None
        Where the rows lie; only the strategy ``representative`` looks.
    group_ids, cache, progress
        As in `label_groups`.
    exclude : collection of str
        Top-level payload fields that are not the documents' own, such as those that
        enrichment writes. Fields that a mapping names are read all the same.
    seed : int
        Of the draw of documents in large groups.
    """

    def words() -> list[list[str]]:
        return _words(files, members, config, distinctive_words, exclude, seed)

    if not config.enabled:
        unasked = LabelingUsage(
            prompt_tokens=0, completion_tokens=0, requests=0, cached=0, cost_usd=0.0
        )
        return LabelingReport(plain_names(len(members), words()), [], [], unasked)
    # Words are looked for while the model thinks.
    with ThreadPoolExecutor(1, thread_name_prefix="words") as pool:
        found = pool.submit(words)
        chosen = choose(
            members,
            per_group=config.max_samples_per_cluster,
            strategy=strategy_of(config),
            vectors=vectors,
            seed=seed,
        )
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *chosen]))
        mappings = payload_mappings(config)
        read = dict(payloads_at(files, rows))
        texts = sample_texts(
            read.values(), mappings, config.sample_text_max_length, exclude=exclude
        )
        sample_of = dict(zip(read, texts.samples, strict=True))
        report = label_groups(
            [[sample_of[row] for row in of_group.tolist()] for of_group in chosen],
            config,
            settings,
            words=found.result,
            group_ids=group_ids,
            cache=cache,
            progress=progress,
        )
    return replace(report, warnings=[*texts.warnings, *report.warnings])


def _words(
    files: Sequence[str],
    members: Sequence[Rows],
    config: LLMLabeling,
    distinctive_words: DistinctiveWords,
    exclude: Collection[str],
    seed: int,
) -> list[list[str]]:
    """Find each group's distinctive words, on a draw of the documents of large groups."""
    generator = np.random.default_rng(seed)
    most = max(MAX_WORD_DOCUMENTS // max(len(members), 1), MIN_WORD_DOCUMENTS)
    drawn = [
        rows if len(rows) <= most else generator.choice(rows, most, replace=False)
        for rows in members
    ]
    flat = np.concatenate([np.empty(0, np.int64), *drawn])
    labels = np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
    read: Callable[[Payload], str] = plain_text(payload_mappings(config), exclude=exclude)
    rows = np.unique(flat)
    texts, numbers = texts_at(files, rows, lambda payload: read(payload)[:MAX_WORD_CHARS])
    # Texts that are alike in a group are looked at once.
    pairs, n_alike = np.unique(
        labels * max(len(texts), 1) + numbers[np.searchsorted(rows, flat)], return_counts=True
    )
    of_group, at = np.divmod(pairs, max(len(texts), 1))
    return distinctive_words([texts[number] for number in at], of_group, len(members), n_alike)
