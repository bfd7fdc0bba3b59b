"""k-means over the workers of a Dask cluster. The one file of `gpu` that knows Dask.

On CPU workers each free worker, and the asking one, keeps some parts of the matrix and reads them
itself (`gpu.parts`); on GPU workers it is cuML's own (`cuml.dask`). What keeps parts is an actor:
its calls do not wait behind a worker's functions, and it goes when its client does. A worker that
is busy is not waited for, so runs that spread never wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from distributed import Client, get_worker

from gpu.clustering import Clustering, renumber_by_size
from gpu.crew import Crew, Member, MemberLostError, Oneself
from gpu.errors import ClusteringError
from gpu.kmeans import n_starts_of
from gpu.params import KMeansParams
from gpu.parts import OpenFile, PartKeeper, PartSource
from gpu.spread_kmeans import spread_kmeans

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


def free_workers(client: Client) -> list[str]:
    """Give the addresses of the workers that run nothing, but for the one that asks."""
    own = _own_address()
    return sorted(
        address for address, keys in client.processing().items() if not keys and address != own
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
    labels, _ = renumber_by_size(found.labels)
    n_groups = int(labels.max()) + 1
    notes = losses
    if n_groups < params.n_clusters:
        notes.append(
            f"{params.n_clusters:,} groups were asked for and {n_groups:,} found: there are fewer "
            "distinct points than groups"
        )
    progress(1.0)
    return Clustering(
        labels=labels,
        strength=None,
        n_clusters=n_groups,
        effective_params=asdict(params) | {"n_init": n_starts_of(params)},
        device="cpu",
        device_reason=f"spread over {n_workers} workers of the Dask cluster",
        notes=notes,
        details={
            "inertia": found.inertia,
            "n_iter": found.n_iter,
            "converged": found.converged,
            "n_workers": n_workers,
            "n_parts": len(sources),
        },
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
