"""Write a run's membership into the source documents, forward only.

Qdrant has no transactions, so this cannot be staged. Each document gets its fields and
`cluster_run_id` in one operation; interrupted, it is repeated until it is through, and a
reader can tell by `cluster_run_id` which run a document's fields are from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from qdrant_client import grpc as pb
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from server.jobs.definition import FieldMapping
from server.qdrant.encoding import field
from server.qdrant.errors import QdrantRefusedError
from server.qdrant.shared import SharingClient
from server.results.fields import KEYS, Fields, one_row_each
from server.results.groups import Group
from server.results.operations import Encoder, Writes
from server.results.writes import (
    N_IN_FLIGHT,
    WRITE_TIMEOUT_S,
    Progress,
    RetryPolicy,
    ShouldStop,
    never,
    repeat_passing,
    slices_by_bytes,
    write_all,
)

RUN_FIELD = "cluster_run_id"
MAX_BATCH_DOCUMENTS = 1_000
_BYTES_OF_A_FIELD = 48
_BYTES_OF_AN_OPERATION = 128
_MAX_RECHECKS = 5


@dataclass(frozen=True)
class EnrichReport:
    """What enrichment did.

    Attributes
    ----------
    processed : int
        Documents that the run has.
    enriched : int
        Documents that carry the run's fields now.
    failed : int
        Documents that were deleted in the meantime.
    batches : int
        Requests that wrote fields.
    cleared : int
        Documents that left the run and lost the fields.
    """

    processed: int = 0
    enriched: int = 0
    failed: int = 0
    batches: int = 0
    cleared: int = 0

    def plus(self, *, processed: int, enriched: int) -> EnrichReport:
        """Add one written batch."""
        return EnrichReport(
            self.processed + processed,
            self.enriched + enriched,
            self.failed + processed - enriched,
            self.batches + 1,
            self.cleared,
        )


@dataclass(frozen=True)
class _Target:
    """Where and how to write: one source collection under its Qdrant name."""

    client: SharingClient
    collection: str
    policy: RetryPolicy
    should_stop: ShouldStop

    def call(self, call: Callable[[], Any]) -> Any:
        return repeat_passing(
            call, collection=self.collection, policy=self.policy, should_stop=self.should_stop
        )


def enrich_sources(
    client: SharingClient,
    sources: Sequence[tuple[str, str]],
    members: pa.Table,
    groups: Sequence[Group],
    mappings: Sequence[FieldMapping],
    run_id: str,
    previous_members: pa.Table | None = None,
    previous_run_ids: Collection[str] = (),
    *,
    previous_mappings: Sequence[FieldMapping] = (),
    progress: Progress | None = None,
    should_stop: ShouldStop = never,
    batch_documents: int = MAX_BATCH_DOCUMENTS,
    n_in_flight: int = N_IN_FLIGHT,
    policy: RetryPolicy | None = None,
) -> EnrichReport:
    """Give every document of a run its fields, and take them from those that left it.

    Parameters
    ----------
    sources : sequence of (collection_id, qdrant_name)
        The run's input collections. Those that only the previous run had belong here too:
        their documents lose the fields.
    members : pa.Table
        The run's members table. The fields of a document that it has in several rows: `Fields`.
    mappings : sequence of FieldMapping
        Which value goes to which payload field.
    run_id : str
        Written beside the fields as ``cluster_run_id``.
    previous_members : pa.Table or None
        Members of the cluster's last successful run.
    previous_run_ids : collection of str
        Runs of this cluster. Only documents whose ``cluster_run_id`` is one of them lose
        fields: those that another job wrote to since are its own.
    previous_mappings : sequence of FieldMapping
        What the last run wrote; target fields that are no longer mapped go, too.
    progress : callable, optional
        Called with documents done and documents in all, from the calling thread.
    batch_documents : int
        Most documents of one write; long fields make for fewer.

    Raises
    ------
    ValueError
        If `members` has documents of a collection that is not in `sources`.
    QdrantUnavailableError, QdrantRefusedError, CollectionNotFoundError
        When Qdrant stays away or refuses. What was written stays; repeat the call.
    WriteStoppedError
        If `should_stop` says so between two batches.
    """
    policy = policy or RetryPolicy()
    targets = {
        collection_id: _Target(client, name, policy, should_stop) for collection_id, name in sources
    }
    _check_sources(members, targets)
    old_fields = {mapping.target_field for mapping in previous_mappings}
    new_fields = {mapping.target_field for mapping in mappings}
    stale_fields = sorted(old_fields - new_fields)
    writer = _Writer(groups, mappings, run_id, stale_fields, sorted(previous_run_ids))
    members = one_row_each(members)

    report = EnrichReport()
    for n_rows, n_written in write_all(
        _batches(members, targets, writer.row_bytes, batch_documents),
        lambda batch: writer.write(*batch),
        n_in_flight=n_in_flight,
        should_stop=should_stop,
    ):
        report = report.plus(processed=n_rows, enriched=n_written)
        if progress is not None:
            progress(report.processed, len(members))

    cleared = 0
    if previous_members is not None and previous_run_ids:
        fields = sorted(old_fields | new_fields | {RUN_FIELD})
        left = previous_members.select(KEYS).join(members.select(KEYS), KEYS, join_type="left anti")
        left = one_row_each(left)
        kept_targets = _of_sources(left, targets)
        for n_cleared in write_all(
            _batches(kept_targets, targets, _BYTES_OF_A_FIELD, batch_documents),
            lambda batch: _clear(batch[0], point_ids(batch[1]), fields, sorted(previous_run_ids)),
            n_in_flight=n_in_flight,
            should_stop=should_stop,
        ):
            cleared += n_cleared
    return EnrichReport(report.processed, report.enriched, report.failed, report.batches, cleared)


class _Writer:
    """Turns rows of `one_row_each` into operations and writes them."""

    def __init__(
        self,
        groups: Sequence[Group],
        mappings: Sequence[FieldMapping],
        run_id: str,
        stale_fields: Sequence[str],
        previous_run_ids: Sequence[str],
    ) -> None:
        self._encoder = Encoder(Fields(groups, mappings), {RUN_FIELD: run_id})
        self._stale_fields = stale_fields
        self._previous_run_ids = previous_run_ids
        self.row_bytes = _BYTES_OF_AN_OPERATION + _BYTES_OF_A_FIELD * (len(mappings) + 1)

    def write(self, target: _Target, rows: pa.Table) -> tuple[int, int]:
        """Write one batch; give how many documents it has and how many still exist."""
        writes = self._encoder.encode(rows)
        for _ in range(_MAX_RECHECKS):
            present = _present(target, writes.points)
            requests = self._requests(writes.only(present))
            if all(self._sent(target, request) for request in requests):
                return len(rows), int(present.sum())
        raise QdrantRefusedError(
            f"documents of {target.collection} vanish faster than they can be written; try again"
        )

    def _requests(self, writes: Writes) -> Iterator[pb.UpdateBatchPoints]:
        """Cut operations into requests by their bytes, in their order."""
        is_stale = self._stale_fields and self._previous_run_ids
        before = self._taking_stale(writes) if is_stale else b""
        operations = writes.operations()
        sizes = pc.binary_length(operations).to_numpy().astype(np.int64)
        for part in slices_by_bytes(sizes, max_rows=len(operations)):
            request = b"".join([before, *operations[part].to_pylist()])
            yield pb.UpdateBatchPoints.FromString(request)
            before = b""

    def _taking_stale(self, writes: Writes) -> bytes:
        """Take fields that are no longer written from documents that an earlier run gave them."""
        points = [pb.PointId.FromString(point) for point in writes.points.to_pylist()]
        chosen = written_by([_plain_id(point) for point in points], self._previous_run_ids)
        deletion = pb.PointsUpdateOperation.DeletePayload(
            keys=self._stale_fields,
            points_selector=pb.PointsSelector(filter=RestToGrpc.convert_filter(chosen)),
        )
        operation = pb.PointsUpdateOperation(delete_payload=deletion)
        return pb.UpdateBatchPoints(operations=[operation]).SerializeToString()

    def _sent(self, target: _Target, request: pb.UpdateBatchPoints) -> bool:
        """Send one request; False if a document was deleted since it was looked for."""
        try:
            target.call(
                lambda: target.client.update_batch(target.collection, request, WRITE_TIMEOUT_S)
            )
        except QdrantRefusedError as error:
            if "No point with id" in str(error):
                return False
            raise
        return True


def _batches(
    rows: pa.Table, targets: dict[str, _Target], row_bytes: int, max_rows: int
) -> Iterator[tuple[_Target, pa.Table]]:
    for collection_id, target in targets.items():
        own = rows.filter(pc.equal(rows["source_collection_id"], collection_id))
        sizes = np.full(len(own), row_bytes, dtype=np.int64)
        for part in slices_by_bytes(sizes, max_rows=max_rows):
            yield target, own.slice(part.start, part.stop - part.start)


def _clear(target: _Target, ids: list[int | str], fields: list[str], run_ids: Sequence[str]) -> int:
    """Take fields from those of the documents that one of these runs wrote."""
    chosen = written_by(ids, run_ids)
    found = target.call(
        lambda: target.client.count(target.collection, count_filter=chosen, exact=True)
    )
    if found.count:
        target.call(
            lambda: target.client.delete_payload(target.collection, fields, chosen, wait=True)
        )
    return int(found.count)


def _present(target: _Target, points: pa.BinaryArray) -> NDArray[np.bool_]:
    """Tell which of some points there are; they are messages `PointId`, all different."""
    listed = b"".join(field(pb.PointsIdsList.IDS_FIELD_NUMBER, points).to_pylist())
    asked = pb.PointsIdsList.FromString(listed).ids
    found = target.call(lambda: target.client.present(target.collection, asked, WRITE_TIMEOUT_S))
    if len(found) == len(points):
        return np.ones(len(points), dtype=np.bool_)
    known = pa.array([point.id.SerializeToString() for point in found], pa.binary())
    is_there: NDArray[np.bool_] = pc.is_in(points, value_set=known).to_numpy(zero_copy_only=False)
    return is_there


def written_by(ids: list[int | str], run_ids: Sequence[str]) -> models.Filter:
    """Choose those of some documents that carry the fields of one of some runs."""
    return models.Filter(
        must=[
            models.HasIdCondition(has_id=list(ids)),
            models.FieldCondition(key=RUN_FIELD, match=models.MatchAny(any=list(run_ids))),
        ]
    )


def point_ids(rows: pa.Table) -> list[int | str]:
    """Give the Qdrant ids of the rows of a members table."""
    texts = rows["source_document_id"].to_pylist()
    return [int(text) if text.isdecimal() else text for text in texts]


def _plain_id(point: pb.PointId) -> int | str:
    return point.uuid or point.num


def _of_sources(rows: pa.Table, targets: dict[str, _Target]) -> pa.Table:
    """Leave out documents of collections that the job no longer reads."""
    known = pa.array(list(targets), type=pa.string())
    return rows.filter(pc.is_in(rows["source_collection_id"], value_set=known))


def _check_sources(members: pa.Table, targets: dict[str, _Target]) -> None:
    unknown = set(pc.unique(members["source_collection_id"]).to_pylist()) - set(targets)
    if unknown:
        raise ValueError(f"members of {sorted(unknown)}, but the sources are {sorted(targets)}")
