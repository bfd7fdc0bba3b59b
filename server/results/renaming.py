"""Names that come after the documents: members are written while their groups are being named.

A generation that nobody reads yet is filled under the names that groups have from the start.
Once the final ones are known, later documents are made with them, and earlier ones are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from qdrant_client import QdrantClient
from qdrant_client import grpc as pb

from server.results.documents import document_id
from server.results.groups import Group, with_labels
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
_KEYS = ("source_collection_id", "source_document_id", "cluster_id")


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
    output_name : str
        What the ids of the members' documents are made with.
    """

    members: pa.Table
    names: Names
    output_name: str
    _n_early: int = 0
    _named: pa.Table | None = field(default=None, repr=False)
    _selectors: dict[int, bytes] = field(default_factory=dict, repr=False)

    def table_for(self, rows: slice) -> pa.Table:
        """Give the table to make documents of some rows from; ask in the order of the rows."""
        if self._named is None:
            groups = self.names()
            if groups is None:
                self._n_early = rows.stop
                return self.members
            self._named = with_names(self.members, groups)
        return self._named

    def prepare(self) -> None:
        """Make the ids of documents that may have to be told a name, until those are known."""
        for piece in _of_one_group(self._early):
            if self.names() is not None:
                return
            self._selectors[piece.start] = self._selector(piece)

    def requests(self, collection: str, groups: Sequence[Group]) -> Iterator[pb.SetPayloadPoints]:
        """Tell the final names to the documents that were made under others."""
        final = with_names(self._early, groups)[LABEL]
        for piece in _of_one_group(self._early):
            label = final[piece.start].as_py()
            if label == self.members[LABEL][piece.start].as_py():
                continue
            selector = self._selectors.get(piece.start) or self._selector(piece)
            yield pb.SetPayloadPoints(
                collection_name=collection,
                wait=True,
                payload={LABEL: pb.Value(string_value=label)},
                points_selector=pb.PointsSelector.FromString(selector),
            )

    @property
    def _early(self) -> pa.Table:
        return self.members.slice(0, self._n_early)

    def _selector(self, rows: slice) -> bytes:
        """Choose the documents of some rows; as bytes, since millions of ids may wait."""
        part = self.members.slice(rows.start, rows.stop - rows.start)
        keys = zip(*(part[name].to_pylist() for name in _KEYS), strict=True)
        ids = [pb.PointId(uuid=document_id(self.output_name, "member", *key)) for key in keys]
        return pb.PointsSelector(points=pb.PointsIdsList(ids=ids)).SerializeToString()


def rename_members(
    client: QdrantClient,
    collection: str,
    staged: LateNames,
    groups: Sequence[Group],
    *,
    policy: RetryPolicy,
    should_stop: ShouldStop,
    n_in_flight: int = N_IN_FLIGHT,
) -> None:
    """Write the final names into documents that were made before they were known."""

    def write(request: pb.SetPayloadPoints) -> None:
        repeat_passing(
            lambda: client.grpc_points.SetPayload(request, timeout=WRITE_TIMEOUT_S),
            collection=collection,
            policy=policy,
            should_stop=should_stop,
        )

    requests = staged.requests(collection, groups)
    for _ in write_all(requests, write, n_in_flight=n_in_flight, should_stop=should_stop):
        pass


def with_names(members: pa.Table, groups: Sequence[Group]) -> pa.Table:
    """Give the members table with the present labels of groups; noise keeps its own."""
    return with_labels(members, {group.cluster_id: group.label for group in groups})


def _of_one_group(members: pa.Table) -> Iterator[slice]:
    """Cut rows, which lie group by group, into pieces of one group that fit a request."""
    groups = members["cluster_id"].combine_chunks().dictionary_encode()
    codes = groups.indices.to_numpy(zero_copy_only=False)
    edges = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
    for start, stop in pairwise(edges):
        for first in range(start, stop, MAX_BATCH_ROWS):
            yield slice(first, min(first + MAX_BATCH_ROWS, stop))
