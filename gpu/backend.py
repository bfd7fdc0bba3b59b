"""The one place that decides between the GPU and the CPU.

Nothing here touches CUDA on import. The first call that asks for a GPU probes it in three steps,
each only when the one before it worked: the driver through its C interface (under a millisecond,
imports nothing), CuPy's runtime and one kernel, a tiny cuML fit. Importing cuDF or cuML succeeds
without a GPU, so an import proves nothing. The answer is kept for the life of the process.

Call it in the process that will do the work: a process that forks after ``cuInit`` leaves its
children without a usable GPU.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np

from gpu.errors import (
    DeviceError,
    DeviceFailedError,
    DeviceMemoryError,
    DeviceUnavailableError,
)

Device = Literal["auto", "gpu", "cpu"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Backend:
    """Where a fit runs, and why there.

    Attributes
    ----------
    device : {"gpu", "cpu"}
    reason : str
        In plain words, for the run's record.
    """

    device: Literal["gpu", "cpu"]
    reason: str


def choose_backend(device: Device) -> Backend:
    """Choose where to run.

    Parameters
    ----------
    device : {"auto", "gpu", "cpu"}
        auto takes the GPU when one is usable.

    Raises
    ------
    DeviceUnavailableError
        With device "gpu" when none is usable, with the reason.
    """
    if device not in ("auto", "gpu", "cpu"):
        raise ValueError(f"device must be auto, gpu or cpu, got {device!r}")
    if device == "cpu":
        return Backend("cpu", "the CPU was asked for")
    unusable = gpu_unusable()
    if unusable is None:
        why = "a GPU was asked for" if device == "gpu" else "a GPU is usable"
        return Backend("gpu", why)
    if device == "gpu":
        raise DeviceUnavailableError(why=unusable)
    return Backend("cpu", f"no usable GPU: {unusable}")


def with_spare(
    attempt: Callable[[Backend], Result], backend: Backend, device: Device
) -> tuple[Result, Backend]:
    """Run on a back end; under device "auto", what the GPU could not do runs on the CPU.

    Returns
    -------
    result : whatever `attempt` gives
    used : Backend
        `backend` itself, or the CPU with the reason.

    Raises
    ------
    DeviceError
        Where another device than "auto" was asked for.
    """
    try:
        return attempt(backend), backend
    except DeviceError as error:
        if device != "auto" or backend.device != "gpu":
            raise
        spare = Backend("cpu", f"the GPU could not: {error}")
    # Only now is what the failed attempt held let go.
    return attempt(spare), spare


@cache
def gpu_unusable() -> str | None:
    """None if a GPU, its driver and RAPIDS all work, else why not in one line. Never raises."""
    return _driver_fault() or _library_fault()


def _driver_fault() -> str | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError) as error:
        return f"no NVIDIA driver ({error})"
    if code or not count.value:
        return f"no CUDA device (driver code {code}, {count.value} devices)"
    return None


def _library_fault() -> str | None:
    # Whatever comes out of here means "not usable": ImportError, but also AttributeError
    # (numba-cuda with a newer NumPy), RuntimeError (CUDA), MemoryError (rmm), OSError (ctypes).
    # Not a warning of those packages, though: where warnings are errors, it would look like one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _first_use_fault()
        except Exception as error:
            return _first_line(error)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _first_use_fault() -> str | None:
    import cupy

    cupy.cuda.runtime.getDeviceCount()
    if int(cupy.arange(4).sum()) != 6:
        return "cupy computed a wrong sum"
    import cudf
    from cuml.cluster import KMeans

    if int(cudf.Series([1, 2]).sum()) != 3:
        return "cudf computed a wrong sum"
    corners = cupy.asarray([[0, 0], [0, 1], [9, 8], [9, 9]], dtype=cupy.float32)
    fitted = KMeans(n_clusters=2, init="k-means++", random_state=0).fit(corners)
    if len(set(fitted.labels_.tolist())) != 2:
        return "cuml found no groups among four points"
    return None


_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "bad_alloc", "memoryallocation", "alloc_failed")
"""What RuntimeErrors of CuPy, raft, cuBLAS and cuSOLVER say, in lower case, when memory is short.

CuPy's runtime: cudaErrorMemoryAllocation: out of memory. raft: the same, or the allocator's own
std::bad_alloc: out_of_memory. cuBLAS and cuSOLVER: CUBLAS_STATUS_ALLOC_FAILED and alike.
"""


@contextmanager
def device_errors(needed_bytes: int) -> Iterator[None]:
    """Turn the GPU libraries' ways of giving up into a `DeviceError`.

    CuPy, raft and cuML raise RuntimeErrors: of CUDA, and where an algorithm cannot go on with
    such points (a solver that does not converge), which the CPU's may.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # CuPy's OutOfMemoryError is a MemoryError, and Cython turns rmm's bad_alloc into one.
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY):
            from gpu.memory import free_bytes

            raise DeviceMemoryError(
                needed_bytes=needed_bytes, free_bytes=free_bytes("gpu")
            ) from error
        raise DeviceFailedError(why=_first_line(error)) from error


def array_module(array: Any) -> Any:
    """Give the module an array belongs to: cupy for a CuPy array, else numpy."""
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    return np
