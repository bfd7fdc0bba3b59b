"""Payloads of a page as columns and as JSON, decoded only when they are looked at."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.export.paths import tree_of
from server.export.payload_json import objects, value_texts
from server.export.payload_values import NESTED, NULL, Entries, entries_of, scalars
from server.export.protobytes import Spans


class Column(NamedTuple):
    """One payload field of a page.

    Attributes
    ----------
    values : pa.Array
        Strings, int64, double or bool where all the values are of that kind; else their JSON.
        Null where the point lacks the field or has null there.
    is_json : bool
        Whether it is JSON.
    """

    values: pa.Array
    is_json: bool


class Payloads:
    """The payloads of a page.

    Parameters
    ----------
    data : bytes
        The page.
    entries : Spans
        Every field of every point's payload; the owners are rows.
    n_rows : int
        Points of the page.
    """

    def __init__(self, data: bytes, entries: Spans, n_rows: int) -> None:
        self._data = data
        self._spans = entries
        self._n_rows = n_rows

    def __len__(self) -> int:
        """Count the points."""
        return self._n_rows

    def column(self, key: str) -> Column:
        """Give one field of all points.

        Raises
        ------
        MalformedResponseError
            If the bytes are not what Qdrant's protocol says.
        """
        if not len(self._spans.start):
            return Column(pa.nulls(self._n_rows), False)
        names, entries = self._decoded
        own = entries.at(entries.key == (names.index(key) if key in names else -1))
        own = own.at(np.append(own.row[1:] != own.row[:-1], True)[: len(own.row)])
        kinds = set(np.unique(own.kind).tolist()) - {NULL}
        is_json = len(kinds) > 1 or NESTED in kinds
        place = np.full(self._n_rows, -1)
        place[own.row] = np.arange(len(own.row))
        if is_json:
            values = value_texts(self._data, names, own, None)
            place[own.row[own.kind == NULL]] = -1
        else:
            own = own.at(own.kind != NULL)
            place[:] = -1
            place[own.row] = np.arange(len(own.row))
            values = scalars(self._data, next(iter(kinds), NULL), own.value)
        return Column(values.take(pa.array(place, mask=place < 0)), is_json)

    def json(
        self,
        paths: Collection[Sequence[str]] | None,
        rows: NDArray[np.bool_] | None = None,
    ) -> pa.StringArray:
        """Give payloads as JSON objects, keys sorted; null where there is nothing to keep.

        Parameters
        ----------
        paths : collection of split paths, or None
            What to keep; None for everything.
        rows : array of shape (n_rows,), bool, or None
            The points that are wanted; None for all.
        """
        n_wanted = self._n_rows if rows is None else int(rows.sum())
        if not len(self._spans.start) or (paths is not None and not paths):
            return pa.nulls(n_wanted, pa.string())
        names, entries = self._decoded
        if rows is not None:
            entries = entries.at(rows[entries.row])
        tree = None if paths is None else tree_of(paths)
        texts = objects(self._data, names, entries, self._n_rows, tree)
        return texts if rows is None else texts.filter(pa.array(rows))

    def dicts(self) -> list[dict[str, Any]]:
        """Give payloads as the objects that they stand for."""
        return [json.loads(text) if text else {} for text in self.json(None).to_pylist()]

    @cached_property
    def _decoded(self) -> tuple[list[str], Entries]:
        """Find the keys there are, and every field."""
        return entries_of(self._data, self._spans)
