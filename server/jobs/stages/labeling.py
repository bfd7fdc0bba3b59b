"""Names for the groups: by a language model where that is asked for, and by their own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu import keywords
from gpu.vectors import on_host
from server.jobs.stages.grouping import Found
from server.jobs.stages.loading import Documents
from server.jobs.stages.work import Partition, Work
from server.labeling.cache import LabelCache
from server.labeling.naming import GroupName
from server.labeling.request import LLMLabeling
from server.labeling.stage import name_groups
from server.qdrant.names import COLLECTION_FIELD
from server.results.enrich import RUN_FIELD
from server.results.groups import Group


@dataclass(frozen=True)
class Labeled:
    """A run's groups with their names, what went wrong, and what the model was asked.

    `usage` has tokens, requests and cost; empty where no model was asked.
    """

    found: Found
    errors: list[str]
    usage: dict[str, Any]


def label_groups(work: Work, documents: Documents, found: Found) -> Labeled:
    """Name every group of every partition, labels unique in the run. Never fails a run."""
    definition = work.spec.definition
    config = definition.llm_labeling or LLMLabeling()
    groups = [group for partition in found.partitions for group in partition.groups]
    members = [
        _export_rows(documents, rows)
        for partition in found.partitions
        for rows in partition.members()
    ]
    ours = {mapping.target_field for mapping in definition.enrichment}
    ours |= {RUN_FIELD, COLLECTION_FIELD}
    with work.clock.stage("label") as stage:
        report = name_groups(
            documents.files,
            members,
            config,
            work.spec.labeling,
            distinctive_words=keywords.distinctive_words,
            vectors=_vectors(documents, config),
            group_ids=[group.cluster_id for group in groups],
            exclude=ours,
            cache=LabelCache(work.spec.label_cache),
            progress=stage.count,
        )
    work.warnings += report.warnings
    names = iter(report.names)
    partitions = [_named(partition, names, config) for partition in found.partitions]
    return Labeled(
        replace(found, partitions=partitions),
        report.errors,
        dict(report.usage) if config.enabled else {},
    )


def _export_rows(documents: Documents, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows if documents.rows is None else documents.rows[rows]


def _vectors(documents: Documents, config: LLMLabeling) -> Any:
    """Give the first feature's vectors, where samples are spread by them; NumPy."""
    wanted = config.enabled and config.sample_selection_strategy == "representative"
    if not wanted or not documents.blocks or documents.rows is not None:
        return None
    return on_host(documents.blocks[0])


def _named(partition: Partition, names: Iterator[GroupName], config: LLMLabeling) -> Partition:
    def named(group: Group) -> Group:
        name = next(names)
        # By attributes a group has a label of its own, which only a model's is better than.
        label = name.label if config.enabled or partition.distances is not None else group.label
        return replace(group, label=label, summary=name.summary, keywords=name.keywords)

    return replace(partition, groups=[named(group) for group in partition.groups])
