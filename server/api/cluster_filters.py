"""The filter of ListClusters: any field of Cluster, by every operator.

Where a filter only narrows `FILTER_FIELDS` the store answers it. Any other is checked on the
clusters themselves, as callers see them; then all of a namespace are read for a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast, get_args

from clusters.v1.cluster_pb2 import Cluster
from google.protobuf import json_format

from server.api.convert.clusters import cluster_to_pb
from server.errors import Violation
from server.export.conditions import Condition
from server.export.evaluate import compile_filter
from server.export.filters import Filter
from server.export.paths import split_path
from server.jobs.definition import ClusterType
from server.jobs.model import ClusterRecord, ClusterStatus

ALLOWED_VALUES: dict[str, tuple[str, ...]] = {
    "status": get_args(ClusterStatus),
    "cluster_type": get_args(ClusterType),
}
"""The closed vocabularies a list can be filtered by."""

FILTER_FIELDS = (*ALLOWED_VALUES, "input_collections")
"""What the store itself narrows by."""

Passes = Callable[[ClusterRecord], bool]


def conditions(tree: Filter) -> Iterator[Condition]:
    """Give all conditions of a filter, at every depth."""
    for item in (*tree.all_of, *tree.any_of, *tree.none_of):
        if isinstance(item, Condition):
            yield item
        else:
            yield from conditions(item)


def is_plain(tree: Filter) -> bool:
    """Whether the store can answer a filter: conditions joined by AND, eq or in, few fields."""
    if tree.any_of or tree.none_of:
        return False
    return all(
        item.field in FILTER_FIELDS and item.operator in ("eq", "in")
        if isinstance(item, Condition)
        else is_plain(item)
        for item in tree.all_of
    )


def faults_of_fields(tree: Filter) -> Iterator[Violation]:
    """Refuse fields that no cluster has, and words that no field of theirs can be."""
    known = list(Cluster.DESCRIPTOR.fields_by_name)
    for condition in conditions(tree):
        path = f"filters.{condition.field}"
        if split_path(condition.field)[0] not in known:
            yield Violation(path, f"Cluster has no such field; it has {', '.join(known)}")
        yield from _faults_of_words(path, condition)


def _faults_of_words(path: str, condition: Condition) -> Iterator[Violation]:
    allowed = ALLOWED_VALUES.get(condition.field)
    if allowed is None or condition.operator not in ("eq", "in", "ne", "nin"):
        return
    for text in values_of(condition):
        if text not in allowed:
            yield Violation(path, f"sent {text!r}; allowed: {', '.join(allowed)}")


def values_of(condition: Condition) -> list[str]:
    """Give the values that a condition names, as text."""
    values = condition.value if isinstance(condition.value, list | tuple) else [condition.value]
    return [str(value) for value in cast("list[Any]", values)]


def names_archived(tree: Filter) -> bool:
    """Whether a filter speaks of archived clusters, which lists leave out otherwise."""
    return any(
        condition.field == "status" and "ARCHIVED" in values_of(condition)
        for condition in conditions(tree)
    )


def passes(tree: Filter) -> Passes:
    """Make the filter a test of a cluster as callers see it."""
    test = compile_filter(tree)
    return lambda record: test(
        json_format.MessageToDict(cluster_to_pb(record), preserving_proto_field_name=True)
    )
