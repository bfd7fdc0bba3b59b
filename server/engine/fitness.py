"""Whether a Dask cluster that others keep can run our functions, told in words.

Works on what the scheduler tells, and knows nothing of Dask itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

GPU = "GPU"
"""The resource that workers with a GPU offer: ``dask worker --resources GPU=1``."""

COMPARED = ("shoal", "python", "dask", "distributed", "cloudpickle", "msgpack", "numpy")
"""Packages whose versions must agree: what is sent is unpickled by the other's."""

COMPARED_OF_SCHEDULER = ("shoal", "python", "dask", "distributed")
"""A scheduler unpickles what it passes on, and so needs shoal too."""


@dataclass(frozen=True)
class Worker:
    """One worker process."""

    address: str
    host: str
    n_threads: int
    n_gpus: float


@dataclass(frozen=True)
class Cluster:
    """The workers of a cluster, by address."""

    workers: Mapping[str, Worker]

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> Self:
        """Read what a scheduler says of itself."""
        return cls(
            {
                address: Worker(
                    address,
                    str(told["host"]),
                    int(told["nthreads"]),
                    float(told["resources"].get(GPU, 0)),
                )
                for address, told in identity["workers"].items()
                if told["status"] in ("running", "paused", "init")
            }
        )

    def resources(self, device: str) -> dict[str, float] | None:
        """Say what a function takes of a worker: its GPU, where there is one and it may."""
        wants_gpu = device != "cpu" and any(w.n_gpus >= 1 for w in self.workers.values())
        return {GPU: 1} if wants_gpu else None

    def n_fit(self, device: str) -> int:
        """Count the workers that take functions, one at a time."""
        if self.resources(device) is None:
            return len(self.workers)
        return sum(worker.n_gpus >= 1 for worker in self.workers.values())


def unfitness(cluster: Cluster, device: str) -> str | None:
    """Say why no function should be sent to a cluster; None if one may be."""
    if not cluster.workers:
        return "has no workers; start one with `dask worker ADDRESS --nthreads 1`"
    if device == "gpu" and cluster.resources(device) is None:
        # A task that asks for a resource which no worker has waits for ever.
        return (
            f"has no worker that offers the resource {GPU}, which SHOAL_DEVICE=gpu asks for; "
            f"start workers with `--resources {GPU}=1`, or set SHOAL_DEVICE=auto"
        )
    shared = [worker for worker in cluster.workers.values() if worker.n_threads != 1]
    if shared:
        return (
            f"has a worker {shared[0].address} with {shared[0].n_threads} threads, and a cancel "
            "would end all runs of one process; start workers with --nthreads 1"
        )
    return None


def version_faults(told: Mapping[str, Any]) -> list[str]:
    """Say where versions differ from this process's, one line for each member of the cluster.

    Parameters
    ----------
    told : mapping
        What Dask's `Client.get_versions` gives, asked for the package shoal too.
    """
    ours = told["client"]["packages"]
    faults = [_differences("the scheduler", told["scheduler"], ours, COMPARED_OF_SCHEDULER)]
    faults += [
        _differences(f"worker {address}", of_worker, ours, COMPARED)
        for address, of_worker in told["workers"].items()
    ]
    return [fault for fault in faults if fault]


def _differences(
    who: str, told: Mapping[str, Any] | None, ours: Mapping[str, Any], names: tuple[str, ...]
) -> str:
    theirs = (told or {}).get("packages", {})
    found = [
        f"{name} {_shown(theirs.get(name))} (here {_shown(ours.get(name))})"
        for name in names
        if _compared(name, theirs.get(name)) != _compared(name, ours.get(name))
    ]
    return f"{who} has {', '.join(found)}" if found else ""


def _compared(name: str, version: str | None) -> str | None:
    # Bytecode and pickles are the same within 3.11, say.
    return ".".join(version.split(".")[:2]) if name == "python" and version else version


def _shown(version: str | None) -> str:
    return version.removesuffix(".final.0") if version else "missing"
