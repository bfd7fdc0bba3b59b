"""Enrichment's operations as the bytes that Qdrant reads, written by column.

A document in one group gets what all of its group get, and numbers of its own: both are columns
here. Where documents have several memberships, payloads are made one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from qdrant_client import grpc as pb

from server.qdrant.encoding import doubles, field, gathered, joined, point_ids
from server.qdrant.payloads import to_payload
from server.results.fields import Fields

_SetPayload = pb.PointsUpdateOperation.SetPayload

_IDS, _SELECTED = _SetPayload.POINTS_SELECTOR_FIELD_NUMBER, pb.PointsSelector.POINTS_FIELD_NUMBER
_SET_PAYLOAD: Final = pb.PointsUpdateOperation.SET_PAYLOAD_FIELD_NUMBER
_OPERATIONS: Final = pb.UpdateBatchPoints.OPERATIONS_FIELD_NUMBER
_DOUBLE_BYTES: Final = 8


@dataclass(frozen=True)
class Writes:
    """Payloads, and the points that get each.

    Attributes
    ----------
    points : pa.BinaryArray
        Messages `PointId`, those of one payload behind each other.
    counts : array of shape (n_payloads,), int64
        How many of them get each payload.
    payloads : pa.BinaryArray
        Each as the field `payload` of `SetPayload`.
    """

    points: pa.BinaryArray
    counts: NDArray[np.int64]
    payloads: pa.BinaryArray

    def only(self, chosen: NDArray[np.bool_]) -> Writes:
        """Leave out some points, and payloads that none is left for."""
        if chosen.all():
            return self
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        left = np.bincount(owner[chosen], minlength=len(self.counts))
        kept = pa.array(left > 0)
        return Writes(
            self.points.filter(pa.array(chosen)), left[left > 0], self.payloads.filter(kept)
        )

    def operations(self) -> pa.BinaryArray:
        """Give one operation for each payload, as the field `operations` of a batch."""
        listed = gathered(field(pb.PointsIdsList.IDS_FIELD_NUMBER, self.points), self.counts)
        selected = field(_IDS, field(_SELECTED, listed))
        return field(_OPERATIONS, field(_SET_PAYLOAD, joined(self.payloads, selected)))


class Encoder:
    """Makes `Writes` of rows that `server.results.fields.one_row_each` gave.

    Parameters
    ----------
    always : mapping
        Fields that every document gets besides those of `fields`.
    """

    def __init__(self, fields: Fields, always: Mapping[str, Any]) -> None:
        self._fields = fields
        self._always = always
        self._of_group: dict[str, bytes] = {}

    def encode(self, rows: pa.Table) -> Writes:
        """Say which documents get which payload: neighbours with equal values share one."""
        points = point_ids(rows["source_document_id"].combine_chunks())
        groups = rows["cluster_id"].combine_chunks()
        if not pa.types.is_string(groups.type):
            return self._one_by_one(rows, points)
        encoded = groups.dictionary_encode()
        group = encoded.indices.to_numpy()
        numbers: dict[str, pa.FloatArray] = {
            name: rows[name].combine_chunks() for name in self._fields.columns
        }
        begins = np.ones(len(rows), dtype=np.bool_)
        begins[1:] = group[1:] != group[:-1]
        for column in numbers.values():
            bits = pc.fill_null(column, np.nan).to_numpy().view(np.int32)
            begins[1:] |= bits[1:] != bits[:-1]
        first = np.flatnonzero(begins)
        parts = [
            pa.array([self._shared(name) for name in encoded.dictionary.to_pylist()], pa.binary())
            .take(pa.array(group[first])),
            *(
                _numbers(target, numbers[source].take(pa.array(first)))
                for source, target in self._fields.numeric
            ),
        ]  # fmt: skip
        return Writes(points, np.diff(first, append=len(rows)), joined(*parts))

    def _shared(self, cluster_id: str) -> bytes:
        """Give what all documents of a group get."""
        if cluster_id not in self._of_group:
            payload = {**self._fields.shared(cluster_id), **self._always}
            self._of_group[cluster_id] = _encoded(payload)
        return self._of_group[cluster_id]

    def _one_by_one(self, rows: pa.Table, points: pa.BinaryArray) -> Writes:
        grouped = self._fields.grouped(rows, range(len(rows)))
        order = pa.array([row for of_payload, _ in grouped for row in of_payload], pa.int64())
        payloads = [_encoded({**payload, **self._always}) for _, payload in grouped]
        counts = np.array([len(of_payload) for of_payload, _ in grouped], dtype=np.int64)
        return Writes(points.take(order), counts, pa.array(payloads, pa.binary()))


def _encoded(payload: Mapping[str, Any]) -> bytes:
    return bytes(_SetPayload(payload=to_payload(payload)).SerializeToString())


def _numbers(name: str, values: pa.FloatArray) -> pa.BinaryArray:
    """Encode a field of numbers; null, which lets Qdrant remove the field, where there is none."""
    before = _encoded({name: 0.0})[:-_DOUBLE_BYTES]  # The number itself comes last.
    filled = joined(before, doubles(pc.fill_null(values, 0).to_numpy()))
    if not values.null_count:
        return filled
    return pc.if_else(values.is_valid(), filled, pa.scalar(_encoded({name: None}), pa.binary()))
