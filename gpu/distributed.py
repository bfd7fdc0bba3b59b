"""k-means over the workers of a Dask cluster. The one file of `gpu` that knows Dask.

On CPU workers each free worker, and the asking one, keeps some parts of the matrix and reads them
itself (`gpu.parts`); on GPU workers it is cuML's own (`cuml.dask`). What keeps parts is an actor:
its calls do not wait behind a worker's functions, and it goes when its client does. A worker that
is busy is not waited for, so runs that spread never wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from distributed import Client, Lock, get_worker, secede

from gpu.backend import device_errors
from gpu.clustering import Clustering
from gpu.crew import Crew, Member, MemberLostError, Oneself, keeper_of
from gpu.errors import ClusteringError, TooFewPointsError
from gpu.frames import load_row_groups
from gpu.kmeans import clustering_of, cuml_tolerance, n_starts_of
from gpu.memory import estimate
from gpu.params import KMeansParams
from gpu.parts import Frame, OpenFile, PartKeeper, PartSource
from gpu.spread_kmeans import spread_kmeans
from gpu.vectors import on_device, require_finite, unit_rows

Array = Any

MUSTER_S = 10.0
"""Seconds that a worker gets to take its place; who is later does without parts."""


@dataclass(frozen=True)
class Setting:
    """Where k-means is spread to.

    Attributes
    ----------
    client : distributed.Client
        Not asynchronous; of the worker that asks, or of a process outside.
    open_file : callable
        Opens a part's file by its URL, in any worker.
    say : callable
        Told in words what happens to workers.
    n_threads : int or None
        Of each worker; None: one per core.
    """

    client: Client
    open_file: OpenFile
    say: Callable[[str], None]
    n_threads: int | None = None


def free_workers(client: Client, resource: str | None = None) -> list[str]:
    """Give the addresses of the workers that run nothing, but for the one that asks.

    With a `resource` only of those that offer it.
    """
    own = _own_address()
    offered = client.scheduler_info(n_workers=-1)["workers"]
    return sorted(
        address
        for address, keys in client.processing().items()
        if not keys
        and address != own
        and (resource is None or offered.get(address, {}).get("resources", {}).get(resource))
    )


def kmeans(
    setting: Setting,
    sources: Sequence[PartSource],
    params: KMeansParams,
    *,
    angular: bool,
    progress: Callable[[float], None] = lambda share: None,
) -> Clustering:
    """Partition the rows of all parts into groups around means, on this and all free workers.

    Parameters
    ----------
    setting : Setting
    sources : sequence of PartSource
        In the order of their rows.
    params : KMeansParams
    angular : bool
        Whether rows are scaled to length 1.
    progress : callable

    Returns
    -------
    Clustering
        As `gpu.kmeans.kmeans` gives it, and the same for a seed however many workers there are,
        unless one is lost on the way. `details` also has ``n_workers`` and ``n_parts``.

    Raises
    ------
    TooFewPointsError, InvalidVectorsError, HostMemoryError
    """
    losses: list[str] = []

    def lose(what: str) -> None:
        losses.append(f"{what}; its parts went to the others")
        setting.say(losses[-1])

    how = (setting.open_file, angular, setting.n_threads)
    with _mustered(setting, how, len(sources) - 1) as others:
        n_workers = 1 + len(others)
        setting.say(f"k-means in {len(sources)} parts on {n_workers} workers")
        crew = Crew(sources, [Oneself(PartKeeper(*how)), *others], lose)
        found = spread_kmeans(crew, params, n_threads=setting.n_threads, progress=progress)
    progress(1.0)
    details = {"inertia": found.inertia, "n_iter": found.n_iter, "converged": found.converged}
    counts = {"n_workers": n_workers, "n_parts": len(sources)}
    return _clustering(found.labels, params, "cpu", losses, details | counts)


def _clustering(
    labels: Array, params: KMeansParams, device: str, notes: list[str], details: dict[str, Any]
) -> Clustering:
    found = clustering_of(labels, params, device, details)
    return replace(
        found,
        device_reason=f"spread over {details['n_workers']} workers of the Dask cluster",
        notes=[*notes, *found.notes],
    )


class _Remote:
    """A `PartKeeper` in another worker."""

    def __init__(self, address: str, actor: Any) -> None:
        self.name = f"worker {address}"
        self._actor = actor

    def ask(self, kind: str, *asked: Any) -> Callable[[], dict[int, Any]]:
        """See `gpu.crew.Member`."""
        try:
            answer = getattr(self._actor, kind)(*asked)
        except RuntimeError as error:  # The scheduler knows that its worker is gone.
            return partial(_lost, error)

        def wait() -> dict[int, Any]:
            try:
                result: dict[int, Any] = answer.result()
            except ClusteringError:
                raise
            except Exception as error:
                # Gone, or its way to the files is: then the others read them, or say why not.
                raise MemberLostError(str(error)) from error
            return result

        return wait


def _lost(error: Exception) -> dict[int, Any]:
    raise MemberLostError(str(error)) from error


@contextmanager
def _mustered(setting: Setting, how: tuple[Any, ...], most: int) -> Iterator[list[Member]]:
    """Put a keeper into each free worker, at most so many, for as long as the block is open."""
    client = setting.client
    addresses = free_workers(client)[: max(0, most)]
    placed = {
        address: client.submit(PartKeeper, *how, actor=True, pure=False, workers=[address])
        for address in addresses
    }
    members: list[Member] = []
    try:
        for address, future in placed.items():
            try:
                members.append(_Remote(address, future.result(timeout=MUSTER_S)))
            except Exception as error:  # Gone, or busy by now.
                setting.say(f"worker {address} does not take part: {error!r}")
        yield members
    finally:
        client.cancel(list(placed.values()), force=True)


def _own_address() -> str | None:
    try:
        return str(get_worker().address)
    except ValueError:  # Not in a worker.
        return None


def kmeans_on_gpus(
    setting: Setting,
    sources: Sequence[PartSource],
    params: KMeansParams,
    *,
    angular: bool,
    resource: str,
) -> Clustering:
    """Partition the rows of all parts by cuML, on the GPUs of this and all free workers.

    Must be called by a function that runs in a worker. That function's thread is given back, for
    cuML's own functions need one in each worker at the same time; so one such fit goes at a time.

    Parameters
    ----------
    resource : str
        Which workers with a GPU offer.

    Raises
    ------
    TooFewPointsError, InvalidVectorsError
    DeviceError
        If a GPU runs out of memory or fails.

    Notes
    -----
    cuML seeds by k-means|| here and by k-means++ on one GPU, so the two may end in different
    local optima.
    """
    from cuml.dask.cluster import KMeans

    client = setting.client
    own = _own_address()
    workers = [*([] if own is None else [own]), *free_workers(client, resource)][: len(sources)]
    n_points, n_dims = sum(source.n_rows for source in sources), sources[0].n_dims
    if n_points < params.n_clusters:
        raise TooFewPointsError(n_points=n_points, needed=params.n_clusters)
    needed = estimate("kmeans", -(-n_points // len(workers)), n_dims, params, "gpu")
    secede()
    setting.say(f"k-means in {len(sources)} parts on the GPUs of {len(workers)} workers")
    with Lock("shoal-kmeans-on-gpus"), device_errors(needed):
        places = [workers[keeper_of(n, len(sources), len(workers))] for n in range(len(sources))]
        parts, moments = [], []
        for source, place in zip(sources, places, strict=True):
            there = {"workers": [place], "pure": False}
            parts.append(client.submit(_load, source, setting.open_file, angular, **there))
            moments.append(client.submit(_moments, parts[-1], **there))
        frame, tolerance = _frame(client.gather(moments), n_points, params.tol)
        parts = [
            client.submit(_framed, part, frame, workers=[place], pure=False)
            for part, place in zip(parts, places, strict=True)
        ]
        model = KMeans(
            client=client,
            n_clusters=params.n_clusters,
            init="k-means||" if params.init == "k-means++" else params.init,
            n_init=n_starts_of(params),
            max_iter=params.max_iter,
            tol=tolerance,
            random_state=params.random_state,
        ).fit(_matrix(parts, sources))
        labels = client.compute(model.labels_.map_blocks(_to_host, dtype=np.int32)).result()
        fitted = model.get_combined_model()
    details = {
        "inertia": float(model.inertia_) * frame.scale**2,
        "n_iter": min(int(fitted.n_iter_), params.max_iter),
        "converged": int(fitted.n_iter_) <= params.max_iter,
        "n_workers": len(workers),
        "n_parts": len(sources),
    }
    return _clustering(np.asarray(labels, dtype=np.int32), params, "gpu", [], details)


def _load(source: PartSource, open_file: OpenFile, angular: bool) -> Array:
    """Read a part into this worker's GPU."""
    import cupy

    with open_file(source.url) as opened:
        rows = load_row_groups(opened, source.row_groups, source.column)
    require_finite(rows)
    return on_device(unit_rows(rows) if angular else rows, cupy)


def _moments(points: Array) -> tuple[Array, float]:
    """Sum the rows, and their squared lengths."""
    import cupy

    total = points.sum(axis=0, dtype=cupy.float64)
    return cupy.asnumpy(total), float((points * points).sum(dtype=cupy.float64))


def _frame(
    moments: Sequence[tuple[Array, float]], n_points: int, tol: float
) -> tuple[Frame, float]:
    """Give the frame, and the tolerance in it, by which cuML stops as scikit-learn does."""
    origin = np.sum([total for total, _ in moments], axis=0) / n_points
    square = sum(squares for _, squares in moments) / n_points
    variance = max(0.0, square - float(origin @ origin)) / len(origin)
    tolerance, scale = cuml_tolerance(tol, variance)
    return Frame(origin, 1 / scale), tolerance


def _framed(points: Array, frame: Frame) -> Array:
    import cupy

    points = points - cupy.asarray(frame.origin, dtype=cupy.float32)
    points *= cupy.float32(1 / frame.scale)
    return points


def _matrix(parts: Sequence[Any], sources: Sequence[PartSource]) -> Any:
    """Lay parts below each other, each where it is."""
    import cupy
    import dask.array

    meta = cupy.zeros((0, 0), dtype=cupy.float32)
    blocks = [
        dask.array.from_delayed(part, shape=(source.n_rows, source.n_dims), meta=meta)
        for part, source in zip(parts, sources, strict=True)
    ]
    return dask.array.concatenate(blocks)


def _to_host(labels: Array) -> Array:
    import cupy

    return cupy.asnumpy(labels).astype(np.int32)
