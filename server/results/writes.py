"""Many writes to Qdrant: cut by bytes, several in flight, repeated when it stumbles.

Every write here may be repeated without harm (same ids, same values), so a lost answer is
simply asked for again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from server.qdrant.client import UNAVAILABLE_CODES, translated
from server.results.failures import WriteStoppedError

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]

MAX_BATCH_BYTES = 2 << 20
MAX_BATCH_ROWS = 2_000
N_IN_FLIGHT = 4
WRITE_TIMEOUT_S = 60
"""Seconds that one request may take before it is repeated."""

_PASSING_CODES = frozenset(
    {
        *UNAVAILABLE_CODES,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)
_PASSING_HTTP = frozenset({429, 502, 503, 504})
_QDRANT_ERRORS = (
    grpc.RpcError,
    UnexpectedResponse,
    ResponseHandlingException,
    ResourceExhaustedResponse,
)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a write is repeated, and how long to wait before each repeat (seconds).

    The default spans half a minute: longer than Qdrant takes to restart.
    """

    attempts: int = 10
    first_delay_s: float = 0.2
    max_delay_s: float = 5.0

    def delays(self) -> Iterator[float]:
        """Give the waits between attempts, doubling, each with up to a quarter less."""
        delay_s = self.first_delay_s
        for _ in range(self.attempts - 1):
            yield delay_s * random.uniform(0.75, 1.0)
            delay_s = min(2 * delay_s, self.max_delay_s)


def never() -> bool:
    """Say no: the default of `should_stop`."""
    return False


def repeat_passing(
    call: Callable[[], R],
    *,
    collection: str,
    policy: RetryPolicy,
    should_stop: ShouldStop = never,
) -> R:
    """Make a call to Qdrant, repeating it after faults that pass by themselves.

    Raises
    ------
    QdrantUnavailableError, QdrantRefusedError, CollectionNotFoundError
        After the last attempt, or at once for a fault that repeating does not mend.
    WriteStoppedError
        If `should_stop` says so between two attempts.
    """
    for delay_s in policy.delays():
        try:
            return call()
        except _QDRANT_ERRORS as error:
            if not is_passing(error):
                raise translated(error, collection=collection) from error
        if should_stop():
            raise WriteStoppedError(f"stopped while writing to {collection}")
        time.sleep(delay_s)
    try:
        return call()
    except _QDRANT_ERRORS as error:
        raise translated(error, collection=collection) from error


def is_passing(error: Exception) -> bool:
    """Whether a Qdrant error is likely to be gone at the next attempt."""
    if isinstance(error, (ResponseHandlingException, ResourceExhaustedResponse)):
        return True
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _PASSING_HTTP
    return isinstance(error, grpc.Call) and error.code() in _PASSING_CODES


def slices_by_bytes(
    row_bytes: NDArray[np.int64],
    *,
    max_bytes: int = MAX_BATCH_BYTES,
    max_rows: int = MAX_BATCH_ROWS,
) -> Iterator[slice]:
    """Cut rows into runs that fit a request; a row that is too large travels alone.

    Parameters
    ----------
    row_bytes : array of shape (n_rows,), int64
        About how many bytes each row takes in the request.
    """
    ends = np.cumsum(row_bytes)
    start = 0
    while start < len(row_bytes):
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + max_bytes, side="right"))
        stop = min(max(fitting, start + 1), start + max_rows)
        yield slice(start, stop)
        start = stop


def write_all(
    batches: Iterable[T],
    write: Callable[[T], R],
    *,
    n_in_flight: int = N_IN_FLIGHT,
    should_stop: ShouldStop = never,
) -> Iterator[R]:
    """Write batches from several threads and give each result as it comes, in any order.

    The first error ends it: batches that wait are dropped, those under way are waited for,
    so nothing is written after this has returned.

    Raises
    ------
    WriteStoppedError
        If `should_stop` says so between two batches.
    """
    pending: set[Future[R]] = set()
    with ThreadPoolExecutor(n_in_flight, thread_name_prefix="qdrant-write") as pool:
        try:
            for batch in batches:
                if should_stop():
                    raise WriteStoppedError("stopped between two batches")
                pending.add(pool.submit(write, batch))
                if len(pending) >= n_in_flight:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()
