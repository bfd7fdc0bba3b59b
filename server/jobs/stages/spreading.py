"""When a run on a Dask cluster goes beyond its one worker, and how that is told.

k-means on one feature as it was exported, without a sample, is spread over all free workers where
the vectors take more than `RunSpec.spread_above_bytes`, or where the fit does not fit into this
worker's memory. HDBSCAN that does not fit clusters as large a sample as does, and gives every
other document to its nearest group. On the server's own workers neither is done: one machine
gains nothing by it, and what does not fit is refused with the number that would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from gpu import distributed
from gpu.backend import Backend, choose_backend
from gpu.clustering import Clustering, require_memory
from gpu.errors import DeviceError, DeviceMemoryError, HostMemoryError
from gpu.params import KMeansParams, Params
from gpu.parts import PartSource, cut_parts, suitable_part_bytes
from gpu.vectors import is_angular
from server.engine.fitness import GPU
from server.engine.task import cluster_client
from server.export.rows import vector_columns
from server.jobs.spec import StageTeller
from server.jobs.stages.loading import Documents
from server.jobs.stages.work import Work
from server.results.storage import EXPORT

SAFE_SHARE = 0.8
"""Of the documents that would just fit, so many are taken: others take memory meanwhile."""

MIB = 1 << 20


def may_go_beyond(work: Work) -> bool:
    """Tell whether a run that is too large for one worker is not refused for it."""
    if work.spec.spread_above_bytes is None:
        return False
    method = work.config.clustering_method
    return method == "hdbscan" or (method == "kmeans" and _is_plain(work))


def spread_kmeans(
    work: Work, documents: Documents, shape: tuple[int, int], params: Params, stage: StageTeller
) -> Clustering | None:
    """Cluster on all free workers where the rule wants it; None: this worker does it alone.

    Parameters
    ----------
    shape : tuple of int
        Of the vectors that are to be clustered, as they were exported.

    Raises
    ------
    ClusteringError
        Of the fit.
    """
    if not isinstance(params, KMeansParams) or not may_go_beyond(work):
        return None
    if documents.rows is not None or shape[0] < len(documents):
        return None
    why = _reason_to_spread(work, shape, params)
    if why is None:
        return None
    urls = [work.folder.file_url(f"{EXPORT}/{Path(path).name}") for path in documents.files]
    (column,) = vector_columns(1)
    sources = cut_parts(urls, column, open_url, suitable_part_bytes(*shape))
    setting = distributed.Setting(cluster_client(), open_url, stage.say)
    backend = choose_backend(work.spec.device)
    if len(sources) < 2 or not distributed.free_workers(
        setting.client, GPU if backend.device == "gpu" else None
    ):
        stage.say(f"{why}, but no other worker of the Dask cluster is free: this one does it alone")
        return None
    stage.say(why)
    return _fit(work, setting, sources, params, backend, stage)


def sample_that_fits(
    work: Work, shape: tuple[int, int], params: Params, stage: StageTeller
) -> int | None:
    """Give the size of the sample that HDBSCAN has memory for here; None where all fit."""
    if work.config.clustering_method != "hdbscan" or not may_go_beyond(work):
        return None
    error = _lack_of_memory(work, shape, params)
    if error is None or not error.fits_points:
        return None
    size = int(SAFE_SHARE * error.fits_points)
    told = (
        f"hdbscan on {shape[0]:,} documents needs about {error.needed_bytes / MIB:,.0f} MiB, and "
        f"this worker has {error.free_bytes / MIB:,.0f} MiB free: a sample of {size:,} is "
        "clustered"
    )
    if work.config.assign_rest:
        told += ", and every other document goes to its nearest group, or is noise outside of all"
    stage.say(told)
    work.warnings.append(told)
    return size


def open_url(url: str) -> BinaryIO:
    """Open a file of a run for reading, in any worker."""
    return cast(BinaryIO, fsspec.open(url, "rb").open())


def _is_plain(work: Work) -> bool:
    """Tell whether what is clustered is one column of the export, row by row."""
    config = work.config
    return (
        len(work.plan.features) == 1
        and not config.preprocessing_steps
        and config.sample_size is None
        and work.spec.within is None
    )


def _reason_to_spread(work: Work, shape: tuple[int, int], params: KMeansParams) -> str | None:
    above = work.spec.spread_above_bytes or 0
    n_bytes = 4 * shape[0] * shape[1]
    vectors = f"{shape[0]:,} x {shape[1]} vectors take {n_bytes / MIB:,.0f} MiB"
    if n_bytes > above:
        return f"k-means spreads: {vectors}, more than SHOAL_SPREAD_MIB = {above / MIB:g}"
    error = _lack_of_memory(work, shape, params)
    if error is None:
        return None
    free = error.free_bytes / MIB
    return f"k-means spreads: {vectors}, and this worker has {free:,.0f} MiB free for the fit"


def _lack_of_memory(work: Work, shape: tuple[int, int], params: Params) -> HostMemoryError | None:
    """Ask whether this worker, on its GPU or without it, has memory for the fit."""
    method, metric = work.config.clustering_method, work.plan.features[0].metric
    try:
        require_memory(method, shape, params, choose_backend(work.spec.device), metric)
    except HostMemoryError as error:
        return error
    except DeviceMemoryError:
        try:
            require_memory(method, shape, params, Backend("cpu", ""), metric)
        except HostMemoryError as error:
            return error
    return None


def _fit(
    work: Work,
    setting: distributed.Setting,
    sources: list[PartSource],
    params: KMeansParams,
    backend: Backend,
    stage: StageTeller,
) -> Clustering:
    metric = work.plan.features[0].metric
    angular: dict[str, Any] = {"angular": is_angular(metric)}
    if metric == "dot":
        work.warnings.append("dot product: the vectors were scaled to length 1, as for cosine")
    if backend.device == "gpu":
        try:
            return distributed.kmeans_on_gpus(setting, sources, params, resource=GPU, **angular)
        except DeviceError as error:
            if work.spec.device == "gpu":
                raise
            work.warnings.append(f"ran on the CPU, the GPUs could not: {error}")
    return distributed.kmeans(setting, sources, params, progress=stage.share, **angular)
