"""How much memory a fit takes, asked before it starts.

The estimates are of the peak beyond what is allocated already, the vectors themselves included
only on the GPU, where they have to be copied to. They err on the large side: a fit that is
refused names a number of points that would fit, one that is killed names nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gpu.backend import gpu_unusable
from gpu.device_memory import device_bytes
from gpu.params import (
    AgglomerativeParams,
    AutoParams,
    EvocParams,
    GaussianMixtureParams,
    HdbscanParams,
    KMeansParams,
    MeanShiftParams,
    OpticsParams,
    Params,
    SpectralParams,
)

FLOAT = 4
BASE_BYTES = 64 << 20
"""Blocks, thread stacks and library buffers of any fit."""

ON_BLOCKS_BYTES = 256 << 20
"""What a method needs that looks at one block of pairs per thread and forgets it."""

_CGROUP = Path("/sys/fs/cgroup")


def estimate(method: str, n_points: int, n_dims: int, params: Params, device: str = "cpu") -> int:
    """Estimate the peak memory of a fit.

    Parameters
    ----------
    method : str
        A built method.
    n_points, n_dims : int
        Shape of the vectors, float32.
    params : Params
        The method's own.
    device : {"cpu", "gpu"}

    Returns
    -------
    int
        Bytes, beyond the vectors on the CPU and with them on the GPU.
    """
    if device == "gpu" and isinstance(params, KMeansParams | HdbscanParams):
        return device_bytes(n_points, n_dims, params)
    matrix = n_points * n_dims * FLOAT
    copies = 2 if device == "gpu" else 1  # One for unit or centred rows, on the GPU also its own.
    if isinstance(params, KMeansParams):
        # float32 centroids, float64 sums, and a share of the work for each.
        centroids = params.n_clusters * n_dims * (2 * FLOAT + 8)
        return BASE_BYTES + copies * matrix + 2 * centroids + n_points * 32
    if isinstance(params, HdbscanParams):
        return BASE_BYTES + copies * matrix + _hdbscan_working_set(n_points, params)
    own = _working_set(n_points, n_dims, params, device)
    return BASE_BYTES + copies * matrix + own + n_points * 64


def _hdbscan_working_set(n_points: int, params: HdbscanParams) -> int:
    # Per point: neighbours with distances, tree edges, condensed tree, labels.
    neighbours = params.resolved(n_points).min_samples or 0
    return n_points * (12 * neighbours + 256)


def _working_set(n_points: int, n_dims: int, params: Params, device: str) -> int:
    pairs = n_points * n_points
    match params:
        case AgglomerativeParams():
            # float64 distances of half the pairs, which the merging copies.
            return n_points * 128 if device == "gpu" else 8 * pairs
        case SpectralParams(affinity="rbf"):
            # The affinity, its Laplacian, and the solver's float64 copy.
            return 20 * pairs
        case SpectralParams():
            return n_points * (48 * params.n_neighbors + 64 * params.n_clusters)
        case GaussianMixtureParams():
            covariance = {"full": params.n_components * n_dims, "tied": n_dims}
            free = covariance.get(params.covariance_type, params.n_components)
            # The float64 copy and two products of it; covariances and their inverses.
            return 24 * n_points * (n_dims + params.n_components) + 24 * n_dims * free
        case MeanShiftParams():
            # Windows and the float64 copy; the neighbours of a window are all points at worst.
            return 32 * n_points * n_dims
        case OpticsParams():
            return 24 * n_points * n_dims
        case EvocParams():
            return n_points * (48 * params.n_neighbors + 512)
        case AutoParams():
            return 2 * FLOAT * n_points * n_dims + n_points * 4_096
        case _:
            return ON_BLOCKS_BYTES


def fitting_points(method: str, n_dims: int, params: Params, device: str, free: int) -> int:
    """Give the largest number of points whose estimate is within `free` bytes."""
    low, high = 0, 1
    while estimate(method, high, n_dims, params, device) <= free:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if estimate(method, middle, n_dims, params, device) <= free:
            low = middle
        else:
            high = middle
    return low


def free_bytes(device: str) -> int:
    """Measure the free memory of the machine (within its container's limit) or of the GPU."""
    if device == "gpu":
        import cupy

        return int(cupy.cuda.runtime.memGetInfo()[0])
    free = _available_by_kernel()
    limited = _left_in_container()
    return free if limited is None else min(free, limited)


def device_memory() -> dict[str, int] | None:
    """Measure used and total bytes of the GPU; None in a process that has not used one."""
    if "cupy" not in sys.modules or gpu_unusable() is not None:
        return None
    import cupy

    free, total = cupy.cuda.runtime.memGetInfo()
    return {"used": int(total - free), "total": int(total)}


def _available_by_kernel() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # Not Linux: free pages, without what the page cache would give up.
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _left_in_container() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # No second-generation control group.
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
