"""New names for the groups of a finished run: laid over its artifacts, and sent after its outputs.

The artifacts of a run never change, so readers lay the names over what they read. What the
run wrote into Qdrant is changed there, and only where it is still this run's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from qdrant_client import QdrantClient, models

from server.jobs.definition import FieldMapping
from server.jobs.model import GroupNames, OutputCollection
from server.qdrant.errors import CollectionNotFoundError
from server.results.enrich import MAX_BATCH_DOCUMENTS, point_ids, written_by
from server.results.fields import KEYS, Fields, one_row_each
from server.results.groups import Group, with_labels
from server.results.writes import RetryPolicy, repeat_passing

PATIENCE = RetryPolicy(attempts=5)
"""A caller waits for these writes: some three seconds of repeats, not half a minute."""

_NAMES = ("cluster_label", "keywords")


def renamed_groups(groups: Sequence[Group], names: Sequence[GroupNames]) -> list[Group]:
    """Give groups under their new names, in their order."""
    by_id = {name.cluster_id: name for name in names}
    return [_renamed(group, by_id.get(group.cluster_id)) for group in groups]


def _renamed(group: Group, name: GroupNames | None) -> Group:
    if name is None:
        return group
    return replace(
        group,
        label=group.label if name.label is None else name.label,
        summary=group.summary if name.summary is None else name.summary or None,
        keywords=tuple(name.keywords) or group.keywords,
    )


def renamed_members(members: pa.Table, names: Sequence[GroupNames]) -> pa.Table:
    """Give a members table with its groups' new labels."""
    labels = {name.cluster_id: name.label for name in names if name.label is not None}
    return with_labels(members, labels)


def rename_in_output(
    client: QdrantClient, output: OutputCollection, groups: Sequence[Group]
) -> bool:
    """Rename groups in the generation that a run filled; False where that is gone.

    Repeating it is harmless.

    Parameters
    ----------
    groups : sequence of Group
        Those that were renamed, as they now are.
    """
    try:
        for group in groups:
            _rename_documents(client, output.generation, group)
    except CollectionNotFoundError:
        return False  # A newer run has taken its place, with names of its own.
    return True


def _rename_documents(client: QdrantClient, collection: str, group: Group) -> None:
    centroid = _documents(group, is_centroid=True)
    members = _documents(group, is_centroid=False)
    _ask(collection, lambda: client.set_payload(collection, _centroid_names(group), centroid))
    if group.summary is None:
        _ask(collection, lambda: client.delete_payload(collection, ["summary"], centroid))
    labels = {"cluster_label": group.label}
    _ask(collection, lambda: client.set_payload(collection, labels, members))


def _ask(collection: str, call: Callable[[], Any]) -> None:
    repeat_passing(call, collection=collection, policy=PATIENCE)


def _centroid_names(group: Group) -> dict[str, Any]:
    names: dict[str, Any] = {"label": group.label, "keywords": list(group.keywords)}
    return names if group.summary is None else {**names, "summary": group.summary}


def _documents(group: Group, *, is_centroid: bool) -> models.Filter:
    return models.Filter(
        must=[
            models.FieldCondition(
                key="cluster_id", match=models.MatchValue(value=group.cluster_id)
            ),
            models.FieldCondition(key="is_centroid", match=models.MatchValue(value=is_centroid)),
        ]
    )


def rename_in_sources(
    client: QdrantClient,
    sources: Collection[tuple[str, str]],
    members: pa.Table,
    groups: Sequence[Group],
    changed: Collection[str],
    mappings: Sequence[FieldMapping],
    run_id: str,
) -> None:
    """Rename groups in the documents that a run wrote them into, where they still stand.

    Parameters
    ----------
    sources : collection of (collection_id, qdrant_name)
    members : pa.Table
        All of the run: a document that is in several groups gets the names of all of them.
    groups : sequence of Group
        All of the run, as they now are.
    changed : collection of str
        The groups to rename; documents that lie in none of them directly are left alone.
    mappings : sequence of FieldMapping
        As the run wrote them; those of other values than names are left out.
    """
    mappings = [mapping for mapping in mappings if mapping.source_field in _NAMES]
    if not mappings:
        return
    fields = Fields(groups, mappings)
    named = members.filter(pc.is_in(members["cluster_id"], value_set=pa.array(list(changed))))
    members = one_row_each(members.join(named.select(KEYS), KEYS, join_type="left semi"))
    for collection_id, name in sources:
        own = members.filter(pc.equal(members["source_collection_id"], collection_id))
        for ids, payload in fields.grouped(own, point_ids(own)):
            for start in range(0, len(ids), MAX_BATCH_DOCUMENTS):
                chosen = written_by(ids[start : start + MAX_BATCH_DOCUMENTS], [run_id])
                _set_payload(client, name, payload, chosen)


def _set_payload(
    client: QdrantClient, collection: str, payload: dict[str, Any], chosen: models.Filter
) -> None:
    # A collection that is gone has no document left that is called by the old name.
    with suppress(CollectionNotFoundError):
        _ask(collection, lambda: client.set_payload(collection, payload, chosen))
