"""How much memory a fit takes, asked before it starts.

The estimates are of the peak beyond what is allocated already, the vectors themselves included
only on the GPU, where they have to be copied to. They err on the large side: a fit that is
refused names a number of points that would fit, one that is killed names nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from gpu.device_memory import device_bytes
from gpu.params import HdbscanParams, KMeansParams, Params

FLOAT = 4
BASE_BYTES = 64 << 20
"""Blocks, thread stacks and library buffers of any fit."""

_CGROUP = Path("/sys/fs/cgroup")


def estimate(method: str, n_points: int, n_dims: int, params: Params, device: str = "cpu") -> int:
    """Estimate the peak memory of a fit.

    Parameters
    ----------
    method : str
        A built method.
    n_points, n_dims : int
        Shape of the vectors, float32.
    params : HdbscanParams or KMeansParams
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
    assert isinstance(params, HdbscanParams)
    return BASE_BYTES + copies * matrix + _hdbscan_working_set(n_points, params)


def _hdbscan_working_set(n_points: int, params: HdbscanParams) -> int:
    # Per point: neighbours with distances, tree edges, condensed tree, labels.
    neighbours = params.resolved(n_points).min_samples or 0
    return n_points * (12 * neighbours + 256)


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
