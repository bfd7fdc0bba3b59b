"""Groups by payload fields: no vectors, one membership for each value of a document."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from gpu import attributes
from gpu.attribute_values import json_column
from gpu.backend import Backend, choose_backend, with_spare
from server.export.paths import elements, found, split_path
from server.jobs.definition import AttributeConfig
from server.jobs.stages.grouping import Found
from server.jobs.stages.loading import Documents
from server.jobs.stages.work import Partition, Work
from server.labeling.documents import payloads_at
from server.results.groups import Group

ALGORITHM = "attribute_based"
MAX_OTHER_FIELDS = 32
"""Other payload fields that a group's document gets a value for: those most documents have."""


def group_by_attributes(work: Work, documents: Documents, config: AttributeConfig) -> Found:
    """Group the documents by the values of their fields.

    Raises
    ------
    InvalidParametersError
        If no document has one of the attributes; names it.
    """
    with work.clock.stage("preprocess") as stage:
        columns, others = _columns(documents, config)
        stage.message = f"{len(others)} other fields"
    with work.clock.stage("cluster", f"by {', '.join(config.attributes)}") as stage:

        def group(backend: Backend) -> attributes.AttributeGroups:
            return attributes.group_by_attributes(
                pa.table(columns),
                config.attributes,
                backend=backend,
                hierarchical=config.hierarchical_grouping,
                aggregation=config.aggregation_method,
                other_fields=others,
            )

        device = work.spec.device
        grouped, backend = with_spare(group, choose_backend(device), device)
        groups = _groups(grouped)
        stage.message = f"{len(groups)} groups"
        stage.device, stage.device_reason = backend.device, backend.reason
    with work.clock.stage("summarize"):
        sizes = [group.member_count for group in groups]
    partition = Partition(
        feature=None,
        rows=grouped.member_rows,
        labels=grouped.member_groups.astype(np.int32),
        groups=groups,
        distances=None,
        confidence=None,
        algorithm=ALGORITHM,
        device=backend.device,
        device_reason=backend.reason,
        effective_params={},
        quality={"n_clusters": len(groups), "sizes": {"min": min(sizes), "max": max(sizes)}},
        n_dims=None,
        distance="",
    )
    return Found([partition], relationships=_relationships(groups))


def _columns(documents: Documents, config: AttributeConfig) -> tuple[dict[str, Any], list[str]]:
    """Read the attributes and the most common other fields, a JSON column each."""
    rows = np.arange(len(documents)) if documents.rows is None else documents.rows
    payloads = [payload for _, payload in payloads_at(documents.files, rows)]
    paths = {name: split_path(name) for name in config.attributes}
    columns = {
        name: json_column(_value(found(payload, keys)) for payload in payloads)
        for name, keys in paths.items()
    }
    counts = Counter(name for payload in payloads for name in payload)
    roots = {keys[0] for keys in paths.values()}
    others = [name for name, _ in counts.most_common() if name not in roots][:MAX_OTHER_FIELDS]
    columns |= {name: json_column(payload.get(name) for payload in payloads) for name in others}
    return columns, others


def _value(values: list[Any]) -> Any:
    """Give a document's one value, or all of them where its path leads to several."""
    if len(values) == 1 and not isinstance(values[0], list):
        return values[0]
    opened = elements(values)
    return opened or None


def _groups(grouped: attributes.AttributeGroups) -> list[Group]:
    fields = grouped.fields.to_pylist() if grouped.fields.num_columns else []
    return [
        Group(
            cluster_id=row["group_id"],
            label=row["label"],
            member_count=row["member_count"],
            parent_cluster_id=row["parent_id"],
            fields=_fields(row["values"], fields[position] if fields else {}),
        )
        for position, row in enumerate(grouped.groups.to_pylist())
    ]


def _fields(values: str, others: dict[str, Any]) -> dict[str, Any]:
    """Give a group's own attribute values, and its members' other fields."""
    read = {
        name: json.loads(value) if isinstance(value, str) else value
        for name, value in others.items()
        if value is not None
    }
    return {**read, **json.loads(values)}


def _relationships(groups: list[Group]) -> list[dict[str, Any]]:
    return [
        {
            "parent_cluster_id": group.parent_cluster_id,
            "child_cluster_id": group.cluster_id,
            "overlap": 1.0,
            "method": "attributes",
        }
        for group in groups
        if group.parent_cluster_id is not None
    ]
