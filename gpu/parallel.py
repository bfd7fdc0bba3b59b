"""Threads for blocks of rows.

Each worker thread runs matrix products with one BLAS thread. Letting BLAS keep its own pool
beside ours (or beside numba's) made k-means 3 to 6 times slower: idle BLAS threads spin for the
next product and take the cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]
"""Apply a function to every item, in any order; the results come in the items' order."""


_most: int | None = None
"""Cores that `at_most` leaves to this process; its threads see it, too."""


def n_cores() -> int:
    """Give the number of cores this process may use."""
    have = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return len(have) if _most is None else min(_most, len(have))


@contextmanager
def at_most(n_threads: int | None) -> Iterator[None]:
    """Let everything in the process use so many cores while the block is open; None: all."""
    global _most
    before, _most = _most, n_threads
    try:
        yield
    finally:
        _most = before


def threads_for(array: Any) -> int | None:
    """Give the number of threads for work on an array: 1 on the GPU, else one per core (None)."""
    return None if isinstance(array, np.ndarray) else 1


@contextmanager
def worker_threads(n_threads: int | None = None, blas: Any = None) -> Iterator[Each]:
    """Give a function that maps over a pool of threads, with BLAS held to one thread each.

    The limit is the process's while the context is open.

    Parameters
    ----------
    n_threads : int or None
        None: one per core. With 1 the work is done in the calling thread, as is right for work
        on a GPU.
    blas : threadpoolctl.ThreadpoolController or None
        What `blas_libraries` found before; None: they are looked for now.
    """
    n_threads = n_threads or n_cores()
    limit = (blas or blas_libraries()).limit(limits=1, user_api="blas")
    with limit, ThreadPoolExecutor(n_threads) as pool:

        def each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
            todo = list(items)
            if len(todo) == 1 or n_threads == 1:  # Handing it over would cost, and gain nothing.
                return one_by_one(work, todo)
            return list(pool.map(work, todo))

        yield each


def one_by_one(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do it in the calling thread: an `Each` for where others are at work already."""
    return [work(item) for item in items]


def blas_libraries() -> Any:
    """Look for the BLAS libraries that are loaded, which takes some milliseconds."""
    # Imported late, with the first fit.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
