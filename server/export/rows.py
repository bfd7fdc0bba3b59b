"""From scrolled points to the rows of the export: who is left out, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from server.export.errors import VectorSizeError
from server.export.paths import elements, split_path
from server.export.payloads import Payloads
from server.export.wire import Records

SOURCE_BUCKET_FIELD: Final = "source_bucket_id"
WHOLE_PAYLOAD: Final = "*"
NO_VECTOR: Final = "no vector"
NOT_FINITE: Final = "not finite"
ALL_ZERO: Final = "all zero"
_NAMED: Final = 10
# Only here does the zero vector have no direction; Euclid and Manhattan can place it.
_DIRECTIONAL: Final = ("Cosine", "Dot")


@dataclass(frozen=True)
class LeftOutDocument:
    """A document that passed the filter and cannot be clustered."""

    collection_id: str
    document_id: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """Documents that passed the filter but have no usable vector.

    Attributes
    ----------
    count : int
        All of them.
    by_reason : dict of str to int
        ``no vector``, ``not finite``, ``all zero``; a document counts under the first.
    first : tuple of LeftOutDocument
        The first ten.
    """

    count: int = 0
    by_reason: Mapping[str, int] = field(default_factory=dict)
    first: tuple[LeftOutDocument, ...] = ()

    def describe(self) -> str:
        """One sentence for the run's warnings; empty when none was left out."""
        if not self.count:
            return ""
        reasons = ", ".join(f"{reason}: {n}" for reason, n in self.by_reason.items())
        named = ", ".join(f"{d.collection_id}/{d.document_id}" for d in self.first)
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.count} documents were left out ({reasons}): {named}{more}"


def vector_columns(n_vectors: int) -> tuple[str, ...]:
    """``vector`` for one, ``vector_0``, ``vector_1``, … for several, none for none."""
    if n_vectors == 1:
        return ("vector",)
    return tuple(f"vector_{i}" for i in range(n_vectors))


class RowBuilder:
    """Turns pages into record batches and keeps the counts of the whole export.

    Parameters
    ----------
    n_vectors : int
        Vector columns of the export.
    payload_fields : sequence of str
        Dot paths kept in the column `payload`; ``*`` keeps everything.
    distance : str
        Qdrant's word for the distance; decides whether all-zero vectors are usable.
    """

    def __init__(self, n_vectors: int, payload_fields: Sequence[str], distance: str) -> None:
        self.columns = vector_columns(n_vectors)
        self.n_dims: dict[str, int] = {}
        self.n_matched = 0
        self.n_exported = 0
        self.buckets: set[str] = set()
        is_whole = WHOLE_PAYLOAD in payload_fields
        self._kept = None if is_whole else [split_path(path) for path in payload_fields]
        self._is_directional = distance in _DIRECTIONAL
        self._reasons = {NO_VECTOR: 0, NOT_FINITE: 0, ALL_ZERO: 0}
        self._first: list[LeftOutDocument] = []
        self._dims_from: dict[str, str] = {}

    @property
    def left_out(self) -> LeftOut:
        """Who was left out so far."""
        reasons = {reason: n for reason, n in self._reasons.items() if n}
        return LeftOut(sum(reasons.values()), reasons, tuple(self._first))

    def batch(
        self,
        collection_id: str,
        vector_names: Sequence[str],
        page: Records,
        passes: Callable[[Mapping[str, Any]], bool] | None,
    ) -> pa.RecordBatch | None:
        """The rows of a page that pass the residual filter and have usable vectors.

        Raises
        ------
        VectorSizeError
            If the vectors have another size than those of an earlier page.
        """
        matched = np.ones(len(page), dtype=np.bool_)
        if passes is not None:
            matched[:] = [passes(payload) for payload in page.payloads.dicts()]
        self.n_matched += int(matched.sum())
        usable = self._usable(collection_id, vector_names, page, matched)
        chosen = np.flatnonzero(usable)
        if not len(chosen):
            return None
        self.n_exported += len(chosen)
        self._note_buckets(page.payloads, usable)
        arrays: dict[str, pa.Array] = {
            "source_collection_id": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(len(chosen), dtype=np.int32)), pa.array([collection_id])
            ),
            "source_document_id": page.ids
            if len(chosen) == len(page)
            else page.ids.take(pa.array(chosen)),
        }
        for column, name in zip(self.columns, vector_names, strict=True):
            matrix = page.vectors[name]
            self._check_dims(collection_id, column, matrix.shape[1])
            arrays[column] = _fixed_size(matrix if len(chosen) == len(matrix) else matrix[chosen])
        arrays["payload"] = page.payloads.json(self._kept, usable)
        # Saying that nothing is null spares Parquet the marks that would tell what is.
        schema = [pa.field(name, a.type, nullable=name == "payload") for name, a in arrays.items()]
        return pa.RecordBatch.from_pydict(arrays, pa.schema(schema))

    def absorb(self, later: RowBuilder) -> None:
        """Add the counts of the rows that come behind these.

        Raises
        ------
        VectorSizeError
            If their vectors have another size.
        """
        for column, n_dims in later.n_dims.items():
            self._check_dims(later._dims_from[column], column, n_dims)
        self.n_matched += later.n_matched
        self.n_exported += later.n_exported
        self.buckets |= later.buckets
        for reason, n in later._reasons.items():
            self._reasons[reason] += n
        self._first += later._first[: _NAMED - len(self._first)]

    def _usable(
        self,
        collection_id: str,
        vector_names: Sequence[str],
        page: Records,
        matched: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        usable = matched.copy()
        for reason, test in (
            (NO_VECTOR, self._has_none),
            (NOT_FINITE, self._is_not_finite),
            (ALL_ZERO, self._is_zero),
        ):
            for name in vector_names:
                bad = usable & test(page, name)
                if not bad.any():
                    continue
                usable &= ~bad
                self._reasons[reason] += int(bad.sum())
                for row in np.flatnonzero(bad)[: _NAMED - len(self._first)]:
                    document_id = page.ids[row].as_py()
                    self._first.append(LeftOutDocument(collection_id, document_id, reason))
        return usable

    @staticmethod
    def _has_none(page: Records, name: str) -> NDArray[np.bool_]:
        return np.logical_not(page.has_vector[name])

    @staticmethod
    def _is_not_finite(page: Records, name: str) -> NDArray[np.bool_]:
        return np.logical_not(np.isfinite(page.vectors[name]).all(axis=1))

    def _is_zero(self, page: Records, name: str) -> NDArray[np.bool_]:
        if not self._is_directional:
            return np.zeros(len(page), dtype=np.bool_)
        return np.logical_not(page.vectors[name].any(axis=1))

    def _check_dims(self, collection_id: str, column: str, n_dims: int) -> None:
        known = self.n_dims.setdefault(column, n_dims)
        first = self._dims_from.setdefault(column, collection_id)
        if known != n_dims:
            raise VectorSizeError(
                f"vectors of collection {collection_id!r} have {n_dims} dimensions, those of "
                f"{first!r} have {known}; cluster them apart or choose vectors of one size",
                collection=collection_id,
            )

    def _note_buckets(self, payloads: Payloads, rows: NDArray[np.bool_]) -> None:
        column = payloads.column(SOURCE_BUCKET_FIELD)
        values = pc.unique(column.values.filter(pa.array(rows))).to_pylist()
        if column.is_json:
            values = [json.loads(text) for text in values if text is not None]
        for value in elements(values):
            if isinstance(value, str | int) and not isinstance(value, bool):
                self.buckets.add(str(value))


def _fixed_size(matrix: NDArray[np.float32]) -> pa.FixedSizeListArray:
    flat = np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1)
    item = pa.field("element", pa.float32(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=pa.list_(item, matrix.shape[1]))
