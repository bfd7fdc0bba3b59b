"""What a picture of a run's map shows: its points and groups, and the documents in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.errors import InvalidRequestError, Violation
from server.jobs.findings import Findings
from server.jobs.maps import Maps, RunMap
from server.results.artifacts import RunFolder
from server.results.groups import Group
from server.results.maps import KEYS, group_centres, nearest_rows, places_of, read_map, thin
from server.tenancy import Caller
from server.views.documents import Columns, Document, choose_columns, document_of, value_at
from server.views.map import NO_GROUP, MapData, MapGroup

N_NEAREST = 10
"""Members listed for a group."""

DOCUMENTS_AT_ONCE = 1000
N_SAMPLED = 200
"""Documents whose whole payload is read, to see which fields there are."""

Key = tuple[str, str]


@dataclass(frozen=True)
class PictureOrder:
    """What a picture is to show.

    Attributes
    ----------
    max_points : int
        Above it the map is thinned, each group by its share.
    title_field, hover_fields
        Dot paths of payload fields; None and empty: chosen by what the documents have.
    with_documents : bool
        Whether documents are shown in words at all.
    """

    max_points: int
    title_field: str | None = None
    hover_fields: tuple[str, ...] = ()
    with_documents: bool = True


@dataclass(frozen=True)
class _Laid:
    """A map as it is stored: the points to show, and each group's nearest members."""

    points: pa.Table
    centres: dict[str, NDArray[np.float32]]
    nearest: dict[str, list[Key]]
    n_documents: int


class Pictures:
    """Gathers what pictures show; `server.views` draws them."""

    def __init__(self, findings: Findings, maps: Maps) -> None:
        self._findings = findings
        self._maps = maps

    async def data(
        self,
        caller: Caller,
        id_or_name: str,
        run_id: str | None,
        order: PictureOrder,
        within_s: float | None,
    ) -> tuple[RunMap, MapData]:
        """Gather a picture of a run's map; of the newest successful run by default.

        Raises
        ------
        NoResultsError, NoMapError, MapPendingError
            As `Maps.show`.
        InvalidRequestError
            If no document has a field that is asked for.
        """
        cluster, run, groups = await self._findings.groups(caller, id_or_name, run_id)
        folder = await self._maps.have(cluster, run, 2, within_s)
        laid = await asyncio.to_thread(_laid, folder, groups, order.max_points)
        keys = _keys(laid.points)
        columns, in_words = Columns(), dict[Key, Document]()
        if order.with_documents:
            wanted = list(
                dict.fromkeys([*keys, *(k for near in laid.nearest.values() for k in near)])
            )
            columns, in_words = await self._in_words(caller, wanted, order)
        shown = RunMap(cluster, run, groups, laid.points, laid.centres, laid.n_documents, 2)
        data = MapData(
            cluster_name=cluster.cluster_name,
            run_id=run.run_id,
            groups=_groups(groups, laid, in_words),
            places=places_of(laid.points),
            group_of=_group_of(laid.points, groups),
            documents=[in_words[key] for key in keys] if in_words else [],
            n_documents=laid.n_documents,
            columns=columns,
        )
        return shown, data

    async def _in_words(
        self, caller: Caller, keys: Sequence[Key], order: PictureOrder
    ) -> tuple[Columns, dict[Key, Document]]:
        """Read the documents' payloads, of which only what is shown is kept."""
        step = max(1, len(keys) // N_SAMPLED)
        sample = await self._payloads(caller, keys[::step][:N_SAMPLED])
        columns = choose_columns(list(sample.values()), order.title_field, order.hover_fields)
        in_words: dict[Key, Document] = {}
        unseen = {path for path in (order.title_field, *order.hover_fields) if path}
        for start in range(0, len(keys), DOCUMENTS_AT_ONCE):
            part = keys[start : start + DOCUMENTS_AT_ONCE]
            payloads = await self._payloads(caller, part, columns.paths) if columns.paths else {}
            for key in part:
                payload = payloads.get(key)
                in_words[key] = document_of(key[1], payload, columns)
                if unseen and payload is not None:
                    unseen -= {path for path in unseen if value_at(payload, path)}
        if unseen:
            raise InvalidRequestError(list(_missing(order, unseen, sample)))
        return columns, in_words

    async def _payloads(
        self, caller: Caller, keys: Sequence[Key], fields: list[str] | None = None
    ) -> dict[Key, dict[str, Any]]:
        rows = [dict(zip(KEYS[:2], key, strict=True)) for key in keys]
        return await self._findings.payloads(caller, rows, fields)


def _missing(
    order: PictureOrder, unseen: set[str], sample: dict[Key, dict[str, Any]]
) -> list[Violation]:
    """Say which fields no document has, and which there are."""
    known = sorted({name for payload in sample.values() for name in payload})
    there_are = ", ".join(known[:30]) or "none at all"
    paths = {f"hover_fields[{i}]": path for i, path in enumerate(order.hover_fields)}
    paths["title_field"] = order.title_field or ""
    return [
        Violation(place, f"sent {path!r}; no document of the run has it. There are: {there_are}")
        for place, path in paths.items()
        if path in unseen
    ]


def _laid(folder: RunFolder, groups: Sequence[Group], max_points: int) -> _Laid:
    table = read_map(folder, 2)
    rows = nearest_rows(table, N_NEAREST)
    nearest = {name: _keys(table.take(rows[name])) for name in rows}
    for group in groups:
        if group.cluster_id not in rows:  # All its members lie in groups below it.
            below = folder.read_members(group.cluster_id, limit=N_NEAREST, columns=KEYS)
            nearest[group.cluster_id] = _keys(below)
    return _Laid(thin(table, max_points), group_centres(table), nearest, len(table))


def _keys(table: pa.Table) -> list[Key]:
    columns = [table[name].to_pylist() for name in KEYS[:2]]
    return list(zip(*columns, strict=True))


def _group_of(points: pa.Table, groups: Sequence[Group]) -> NDArray[np.int32]:
    """Give the position of each point's own group."""
    position = {group.cluster_id: at for at, group in enumerate(groups)}
    names = points["cluster_id"].combine_chunks().dictionary_encode()
    numbers = [position.get(name, NO_GROUP) for name in names.dictionary.to_pylist()]
    picked = np.array(numbers, dtype=np.int32)[names.indices.to_numpy()]
    return np.asarray(picked, dtype=np.int32)


def _groups(groups: Sequence[Group], laid: _Laid, in_words: dict[Key, Document]) -> list[MapGroup]:
    position = {group.cluster_id: at for at, group in enumerate(groups)}
    return [
        MapGroup(
            cluster_id=group.cluster_id,
            label=group.label,
            member_count=group.member_count,
            summary=group.summary,
            keywords=group.keywords,
            parent=position.get(group.parent_cluster_id or ""),
            place=_place_of(laid.centres.get(group.cluster_id)),
            nearest=[in_words[k] for k in laid.nearest.get(group.cluster_id, ()) if k in in_words],
        )
        for group in groups
    ]


def _place_of(centre: NDArray[np.float32] | None) -> tuple[float, float] | None:
    return None if centre is None else (float(centre[0]), float(centre[1]))
