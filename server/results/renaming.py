"""Names that come after the documents: members are written while their groups are being named.

A generation that nobody reads yet is filled under the names that groups have from the start.
Once the final ones are known, later documents are made with them, and earlier ones are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from qdrant_client import QdrantClient
from qdrant_client import grpc as pb

from server.results.documents import document_id
from server.results.groups import Group
from server.results.writes import (
    MAX_BATCH_ROWS,
    N_IN_FLIGHT,
    WRITE_TIMEOUT_S,
    RetryPolicy,
    ShouldStop,
    repeat_passing,
    write_all,
)

LABEL = "cluster_label"


Names = Callable[[], Sequence[Group] | None]
"""Gives the groups under their final names, or None while those are not known."""


@dataclass
class LateNames:
    """The members of an output, under the names that are known by now.

    Parameters
    ----------
    members : pa.Table
        Of `members_table`, under the names from the start.
    names : callable
    """

    members: pa.Table
    names: Names
    _n_early: int = 0
    _named: pa.Table | None = field(default=None, repr=False)

    def table_for(self, rows: slice) -> pa.Table:
        """Give the table to make documents of some rows from; ask in the order of the rows."""
        if self._named is None:
            groups = self.names()
            if groups is None:
                self._n_early = rows.stop
                return self.members
            self._named = with_names(self.members, groups)
        return self._named

    def changed(self, groups: Sequence[Group]) -> pa.Table:
        """Give the rows whose documents were made under another name, with the final one."""
        early = self.members.slice(0, self._n_early)
        named = with_names(early, groups)
        return named.filter(pc.not_equal(early[LABEL], named[LABEL]))


def rename_members(
    client: QdrantClient,
    collection: str,
    output_name: str,
    members: pa.Table,
    *,
    policy: RetryPolicy,
    should_stop: ShouldStop,
    n_in_flight: int = N_IN_FLIGHT,
) -> None:
    """Write the labels of some members into their documents."""

    def write(part: pa.Table) -> None:
        request = _request(collection, output_name, part)
        repeat_passing(
            lambda: client.grpc_points.SetPayload(request, timeout=WRITE_TIMEOUT_S),
            collection=collection,
            policy=policy,
            should_stop=should_stop,
        )

    for _ in write_all(
        _of_one_name(members), write, n_in_flight=n_in_flight, should_stop=should_stop
    ):
        pass


def with_names(members: pa.Table, groups: Sequence[Group]) -> pa.Table:
    """Give the members table with the present labels of groups; noise keeps its own."""
    ids = pa.array([group.cluster_id for group in groups], pa.string())
    labels = pa.array([group.label for group in groups], pa.string())
    found = labels.take(pc.index_in(members["cluster_id"], value_set=ids).combine_chunks())
    position = members.column_names.index(LABEL)
    return members.set_column(
        position, members.schema.field(LABEL), pc.coalesce(found, members[LABEL])
    )


def _of_one_name(members: pa.Table) -> Iterator[pa.Table]:
    """Cut rows, which lie group by group, into pieces of one label that fit a request."""
    encoded = members[LABEL].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_pylist()
    start = 0
    for row in range(1, len(codes) + 1):
        is_full = row - start == MAX_BATCH_ROWS
        if row == len(codes) or codes[row] != codes[start] or is_full:
            yield members.slice(start, row - start)
            start = row


def _request(collection: str, output_name: str, part: pa.Table) -> pb.SetPayloadPoints:
    keys = zip(
        part["source_collection_id"].to_pylist(),
        part["source_document_id"].to_pylist(),
        part["cluster_id"].to_pylist(),
        strict=True,
    )
    ids = [pb.PointId(uuid=document_id(output_name, "member", *key)) for key in keys]
    return pb.SetPayloadPoints(
        collection_name=collection,
        wait=True,
        payload={LABEL: pb.Value(string_value=part[LABEL][0].as_py())},
        points_selector=pb.PointsSelector(points=pb.PointsIdsList(ids=ids)),
    )
