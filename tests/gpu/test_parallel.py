"""Blocks go to threads, results come in order, and BLAS gets its threads back."""

import threading

import pytest
from threadpoolctl import threadpool_info

from gpu.parallel import at_most, n_cores, worker_threads


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_results_come_in_the_order_of_the_items():
    with worker_threads(4) as each:
        assert each(lambda item: item * item, range(50)) == [n * n for n in range(50)]
        assert each(str, []) == []


def test_work_runs_on_several_threads_at_once():
    meeting = threading.Barrier(2, timeout=20)

    with worker_threads(2) as each:
        each(lambda _item: meeting.wait(), range(2))  # Would time out on one thread.


def test_blas_has_one_thread_inside_and_its_own_again_after():
    before = blas_threads()

    with worker_threads() as each:
        inside = each(lambda _item: blas_threads(), range(2))

    assert before
    assert all(count == 1 for threads in inside for count in threads)
    assert blas_threads() == before


@pytest.mark.parametrize("n_items", [1, 8])
def test_an_error_in_a_thread_is_the_callers(n_items):
    def fail(item):
        raise KeyError(item)

    with worker_threads(2) as each, pytest.raises(KeyError):
        each(fail, range(n_items))


def test_there_is_at_least_one_core():
    assert n_cores() >= 1


def test_a_block_is_held_to_so_many_cores_and_no_longer():
    names = set()
    everywhere = n_cores()
    with at_most(1):
        assert n_cores() == 1
        with worker_threads() as each:
            each(lambda _item: names.add(threading.current_thread().name), range(8))
        with at_most(None):
            assert n_cores() == everywhere
        assert n_cores() == 1
    assert names == {threading.current_thread().name}
    assert n_cores() == everywhere
    with at_most(10_000):
        assert n_cores() == everywhere
