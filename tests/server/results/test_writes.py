"""Cutting by bytes, writing in parallel, and what is repeated."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from server.results.failures import WriteStoppedError
from server.results.writes import RetryPolicy, is_passing, slices_by_bytes, write_all


def cut(sizes, **limits):
    return [(s.start, s.stop) for s in slices_by_bytes(np.array(sizes, dtype=np.int64), **limits)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10, 10, 10], [(0, 3)]),
        ([60, 40, 1], [(0, 2), (2, 3)]),
        ([1, 500, 1], [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_rows_are_cut_so_that_they_fit(sizes, expected):
    assert cut(sizes, max_bytes=100, max_rows=50) == expected


def test_no_batch_has_more_rows_than_allowed():
    assert cut([1] * 5, max_bytes=100, max_rows=2) == [(0, 2), (2, 4), (4, 5)]


def test_several_batches_are_in_flight_but_not_all():
    together = threading.Barrier(3, timeout=10)
    drawn = []

    def batches():
        for i in range(9):
            drawn.append(i)
            yield i

    def write(i):
        together.wait()
        return i

    results = write_all(batches(), write, n_in_flight=3)
    first = next(results)
    assert len(drawn) <= 5
    assert sorted([first, *results]) == list(range(9))


def test_nothing_is_written_after_an_error_has_come_out():
    written = []

    def write(i):
        if i == 1:
            raise RuntimeError("refused")
        written.append(i)
        return i

    with pytest.raises(RuntimeError, match="refused"):
        list(write_all(iter(range(1000)), write, n_in_flight=2))
    count = len(written)
    assert count < 10
    assert threading.active_count() < 50
    assert len(written) == count


def test_stopping_is_heard_between_batches():
    answers = iter([False, False, True])
    written = []
    with pytest.raises(WriteStoppedError):
        list(write_all(range(10), written.append, n_in_flight=1, should_stop=lambda: next(answers)))
    assert written == [0, 1]


def test_only_faults_that_pass_are_repeated():
    def response(status):
        return UnexpectedResponse(status, "", b"", {})  # type: ignore[arg-type]

    assert is_passing(ResourceExhaustedResponse("slow down", 1))
    assert is_passing(response(503))
    assert not is_passing(response(400))
    assert not is_passing(ValueError("no"))


def test_waits_grow_up_to_their_limit():
    delays = list(RetryPolicy(attempts=6, first_delay_s=1.0, max_delay_s=4.0).delays())
    for delay, full in zip(delays, [1, 2, 4, 4, 4], strict=True):
        assert 0.75 * full <= delay <= full
