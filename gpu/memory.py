"""How much memory a fit takes, asked before it starts.

The estimates (`gpu.host_memory`, `gpu.device_memory`) are of the peak beyond what is allocated
already, the vectors themselves included only on the GPU, where they have to be copied to. A fit
that is refused names a number of points that would fit, one that is killed names nothing.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu.backend import gpu_unusable
from gpu.device_memory import device_bytes, streamed_bytes
from gpu.host_memory import host_bytes
from gpu.params import (
    AgglomerativeParams,
    DbscanParams,
    HdbscanParams,
    KMeansParams,
    Params,
    SpectralParams,
)

FLOAT = 4
BASE_BYTES = 64 << 20
"""Blocks and library buffers of any fit on the GPU."""

ON_BLOCKS_BYTES = 256 << 20
"""What a method needs there that looks at one block of pairs at a time and forgets it."""

DBSCAN_BATCH_MB = 2_000
"""Millions of bytes of pairs that cuML's DBSCAN is let look at together; its own is 13,000."""

_CGROUP = Path("/sys/fs/cgroup")


def estimate(
    method: str,
    n_points: int,
    n_dims: int,
    params: Params,
    device: str = "cpu",
    *,
    metric: str = "cosine",
    free: int | None = None,
    has_vectors: bool = True,
) -> int:
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
    metric : str
        cosine and dot take a copy of rows that are not of length 1.
    free : int or None
        Bytes that the fit may count on. On the CPU None is what is free now; on the GPU None
        asks for a fit of all vectors at once, where k-means can do with less.
    has_vectors : bool
        On the CPU whether they are in memory already; else they are counted, too.

    Returns
    -------
    int
        Bytes, beyond vectors that are there already on the CPU and with them on the GPU, where
        k-means that does not fit into `free` streams them (`gpu.streamed_kmeans`).
    """
    if isinstance(params, HdbscanParams):
        approximate = params.is_approximate(n_points, metric, device)
        params = replace(params, approx_min_span_tree=approximate)
    if device == "cpu":
        vectors = 0 if has_vectors else n_points * n_dims * FLOAT
        return vectors + host_bytes(
            n_points,
            n_dims,
            params,
            is_angular=metric in ("cosine", "dot"),
            is_approximate=isinstance(params, HdbscanParams) and bool(params.approx_min_span_tree),
            free=free_bytes("cpu") if free is None else free,
        )
    if isinstance(params, KMeansParams | HdbscanParams):
        needed = device_bytes(n_points, n_dims, params)
        if isinstance(params, KMeansParams) and free is not None and needed > free:
            return min(needed, streamed_bytes(n_points, n_dims, params))
        return needed
    # The vectors, unit or centred rows, and the library's own.
    matrix = 3 * n_points * n_dims * FLOAT
    return BASE_BYTES + matrix + _on_device(n_points, n_dims, params) + n_points * 64


def _on_device(n_points: int, n_dims: int, params: Params) -> int:
    match params:
        case AgglomerativeParams():
            return n_points * 128
        case DbscanParams():
            # Of each pair whether it is near, and, were all near, its number in a list.
            return min(9 * n_points * n_points, DBSCAN_BATCH_MB * 1_000_000)
        case SpectralParams(affinity="rbf"):
            return 20 * n_points * n_points
        case SpectralParams():
            return n_points * (48 * params.n_neighbors + 64 * params.n_clusters)
        case _:
            return ON_BLOCKS_BYTES


def fitting_points(
    method: str, n_dims: int, params: Params, device: str, free: int, **told: Any
) -> int:
    """Give a largest number of points whose estimate is within `free` bytes; `told` as there."""

    def fits(n_points: int) -> bool:
        return estimate(method, n_points, n_dims, params, device, free=free, **told) <= free

    low, high = 0, 1
    while fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
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
