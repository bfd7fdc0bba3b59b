"""The map of a run, as a worker process makes it.

A run whose field mappings ask for places makes its map itself, from what it has in memory; else
it is made when it is first asked for, from the finished run's own files alone. Both are one map:
it shows the vectors as they were exported, without the run's preprocessing. Several
features are laid side by side as the run did; where each had groups of its own, normalized and
with equal weights, so that a document has one place.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpu import features
from gpu.backend import Backend, choose_backend, with_spare
from gpu.errors import ClusteringError
from gpu.frames import load_vectors
from gpu.layout import layout
from server.errors import NotFoundError, PreconditionError
from server.export.rows import vector_columns
from server.jobs.definition import VectorConfig
from server.jobs.model import RunRecord
from server.jobs.sources import ANGULAR
from server.jobs.spec import Device
from server.jobs.stages.loading import ID_COLUMNS, Documents
from server.jobs.stages.spaces import Spaces
from server.jobs.stages.work import Array, Work
from server.results.artifacts import RunFolder
from server.results.maps import (
    KEYS,
    document_keys,
    find_map,
    places_of,
    read_map,
    write_map,
)
from server.results.storage import EXPORT


class NoMapError(PreconditionError):
    """The run can have no map: it had no vectors, or they were retired with its export."""

    reason = "NO_MAP"


@dataclass(frozen=True)
class MapOrder:
    """What a worker is told to map.

    Attributes
    ----------
    earlier_run_ids : tuple of str
        Runs of the same cluster before this one, newest first: the new map is laid over that
        of the first that has one.
    n_dims : int
        2 or 3.
    """

    artifacts_url: str
    namespace_id: str
    cluster_id: str
    run: RunRecord
    earlier_run_ids: tuple[str, ...]
    n_dims: int
    device: Device

    def folder(self, run_id: str) -> RunFolder:
        """Give the folder of one of the cluster's runs."""
        return RunFolder(self.artifacts_url, self.namespace_id, self.cluster_id, run_id)


def map_documents(work: Work, documents: Documents, spaces: Spaces) -> NDArray[np.float32] | None:
    """Give every document of a run its place, where the run's field mappings ask for one.

    Returns
    -------
    array of shape (n_documents, 2 or 3), float32, or None
    """
    spec = work.spec
    n_dims = spec.definition.map_dimensions
    if n_dims is None:
        return None
    earlier = (
        RunFolder(spec.artifacts_url, spec.namespace_id, spec.cluster_id, run_id)
        for run_id in spec.earlier_successes
    )
    ids = pa.table([documents.collection_ids, documents.document_ids], names=ID_COLUMNS)
    with work.clock.stage("summarize", f"laying out the map in {n_dims} dimensions") as stage:
        if len(spaces.spaces) == 1:
            vectors, metric = spaces.spaces[0].vectors, _metric(spaces.spaces[0].distance)
        else:
            vectors, metric = _all_alike(documents.blocks)
        places, notes = _lay_out(
            vectors,
            metric,
            previous=_previous(earlier, n_dims, ids),
            n_dims=n_dims,
            device=spec.device,
            tell=stage.share,
        )
        stage.message = f"{len(places):,} documents on the map"
    work.warnings += notes
    return places


def make_map(order: MapOrder, report: Callable[[float], None]) -> None:
    """Compute a run's map and keep it with the run's files.

    Parameters
    ----------
    report : callable
        Told the share done, from 0 to 1.

    Raises
    ------
    NoMapError
        If there are no vectors any more, or none that could be laid out.
    NotFoundError
        If the run's artifacts were retired.
    """
    folder = order.folder(order.run.run_id)
    members = folder.read_members(columns=KEYS)
    with _export_files(folder) as files:
        try:
            ids = pa.concat_tables([pq.read_table(path, columns=ID_COLUMNS) for path in files])
            vectors, metric = _space(order.run, files)
        except FileNotFoundError as error:  # A newer run took them while we read.
            raise _export_is_gone(order.run.run_id) from error
    members = _with_vectors(members, ids)
    places_in_export = pc.index_in(document_keys(members), value_set=document_keys(ids))
    rows, member_of = np.unique(places_in_export.to_numpy(), return_inverse=True)
    documents = ids.take(rows)
    try:
        places, _ = _lay_out(
            vectors if len(rows) == len(vectors) else vectors[rows],
            metric,
            previous=_previous(map(order.folder, order.earlier_run_ids), order.n_dims, documents),
            n_dims=order.n_dims,
            device=order.device,
            tell=report,
        )
    except ClusteringError as error:
        raise NoMapError(f"run {order.run.run_id} cannot be mapped: {error}") from error
    write_map(folder, members, places[member_of])
    if not folder.is_whole:  # Retired meanwhile: leave no map behind.
        folder.delete()


def _lay_out(
    vectors: Array,
    metric: str,
    *,
    previous: NDArray[np.float32] | None,
    n_dims: int,
    device: Device,
    tell: Callable[[float], None],
) -> tuple[NDArray[np.float32], list[str]]:
    """Compute the map; with device "auto" on the CPU where the GPU cannot."""

    def on(backend: Backend) -> NDArray[np.float32]:
        return layout(
            vectors, metric=metric, n_dims=n_dims, previous=previous, backend=backend, progress=tell
        )

    backend = choose_backend(device)
    places, used = with_spare(on, backend, device)
    notes = [] if used is backend else [f"the map was laid out on the CPU, {used.reason}"]
    return places, notes


@contextmanager
def _export_files(folder: RunFolder) -> Iterator[list[Path]]:
    """Give the run's exported files on this machine's own disk."""
    names = export_names(folder)
    if folder.is_local:
        yield [Path(folder.root) / name for name in names]
        return
    with tempfile.TemporaryDirectory(prefix="shoal-map-") as scratch:
        paths = [Path(scratch) / f"{number}.parquet" for number in range(len(names))]
        for name, path in zip(names, paths, strict=True):
            try:
                with folder.fs.open(f"{folder.root}/{name}", "rb") as source, path.open("wb") as to:
                    shutil.copyfileobj(source, to)
            except FileNotFoundError as error:
                raise _export_is_gone(folder.run_id) from error
        yield paths


def export_names(folder: RunFolder) -> list[str]:
    """Give the names of a run's exported files.

    Raises
    ------
    NoMapError
        If they were retired.
    """
    files = folder.files()
    names = sorted(file.name for file in files if file.name.startswith(f"{EXPORT}/"))
    if not names:
        raise _export_is_gone(folder.run_id)
    return names


def _export_is_gone(run_id: str) -> NoMapError:
    return NoMapError(
        f"run {run_id} has no map and cannot get one: its vectors were retired when a newer run "
        "of the cluster ended; ask for the map of the newest run",
        run_id=run_id,
    )


def _space(run: RunRecord, files: Sequence[Path]) -> tuple[NDArray[np.float32], str]:
    """Give the vectors that the map shows, and how they are compared."""
    if run.result is None:
        raise ValueError(f"run {run.run_id} has no result to map")
    names, config = run.result.feature_uris, run.definition.vector
    blocks = [load_vectors(files, column) for column in vector_columns(len(names))]
    metric = _metric(run.result.distance)
    if len(blocks) == 1:
        return blocks[0], metric
    if config.multi_feature_strategy == "independent":
        return _all_alike(blocks)
    weights = _weights(run, config, names)
    return features.concatenate(blocks, weights, normalize=config.normalize_features), metric


def _metric(distance: str) -> str:
    """Say how the map compares vectors of one of Qdrant's distances."""
    # UMAP has no use for Manhattan's corners: near is near by either.
    return "cosine" if distance in ANGULAR else "euclidean"


def _all_alike(blocks: Sequence[Array]) -> tuple[Array, str]:
    """Lay features that have groups of their own side by side, each as heavy as the others."""
    return features.concatenate(blocks, [1.0] * len(blocks), normalize=True), "cosine"


def _weights(run: RunRecord, config: VectorConfig, names: Sequence[str]) -> list[float]:
    learned = run.result.learned_weights if run.result is not None else None
    known = learned or config.feature_weights
    return [float(known.get(name, 1.0)) for name in names]


def _with_vectors(members: pa.Table, ids: pa.Table) -> pa.Table:
    """Leave out members that the export has not: they have no place."""
    return members.filter(pc.is_in(document_keys(members), value_set=document_keys(ids)))


def _previous(
    folders: Iterable[RunFolder], n_dims: int, documents: pa.Table
) -> NDArray[np.float32] | None:
    """Give the documents' places on the newest earlier map; NaN for those it had not."""
    for folder in folders:
        if find_map(folder, n_dims) is None:
            continue
        try:
            earlier = read_map(folder, n_dims)
        except NotFoundError:  # Retired between the two looks.
            continue
        found = pc.index_in(document_keys(documents), value_set=document_keys(earlier))
        known = found.is_valid().to_numpy(zero_copy_only=False)
        places = np.full((len(documents), n_dims), np.nan, dtype=np.float32)
        places[known] = places_of(earlier)[found.drop_null().to_numpy()]
        return places
    return None
