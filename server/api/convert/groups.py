"""Groups and their members out, and new names of groups in."""

from __future__ import annotations

from clusters.v1 import group_pb2

from server.api.convert.values import struct_of
from server.api.errors import shown_info, shown_message
from server.jobs.findings import Member
from server.jobs.model import GroupNames
from server.results.groups import AXES, Group


def group_to_pb(group: Group, *, with_vector: bool = False) -> group_pb2.Group:
    """Give one group; its centroid's vector only where it was asked for."""
    return group_pb2.Group(
        cluster_id=group.cluster_id,
        label=group.label,
        summary=group.summary,
        keywords=group.keywords,
        member_count=group.member_count,
        parent_cluster_id=group.parent_cluster_id,
        feature_uri=group.feature_uri,
        **dict(zip(AXES, () if group.place is None else group.place.tolist(), strict=False)),
        cohesion=group.cohesion,
        vector=group.centroid.tolist() if with_vector and group.centroid is not None else [],
    )


def member_to_pb(member: Member) -> group_pb2.Member:
    """Give one document of a group."""
    row = member.row
    return group_pb2.Member(
        rank=member.rank,
        cluster_id=row["cluster_id"],
        cluster_label=row["cluster_label"],
        source_collection_id=row["source_collection_id"],
        source_document_id=row["source_document_id"],
        distance_to_centroid=row["distance_to_centroid"],
        confidence=row["confidence"],
        x=row["x"],
        y=row["y"],
        z=row["z"],
        payload=None if member.payload is None else struct_of(member.payload),
    )


def broken_off(error: Exception) -> group_pb2.Member:
    """Give the entry that says why a stream of members ends before the group does."""
    return group_pb2.Member(
        error=shown_message(error, "internal error; ask again"), error_info=shown_info(error)
    )


def names_of(request: group_pb2.PatchExecutionLabelsRequest) -> list[GroupNames]:
    """Give the names that a request sends, each with what it leaves as it is absent."""
    return [
        GroupNames(
            cluster_id=label.cluster_id,
            label=label.label if label.HasField("label") else None,
            summary=label.summary if label.HasField("summary") else None,
            keywords=list(label.keywords),
        )
        for label in request.labels
    ]
