"""k-means on a real Dask cluster: a scheduler and three workers, each a process."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.distributed import Client, get_client
from dask_processes import DaskProcesses, dask_processes
from gpu_mixtures import mixture

from gpu import distributed
from gpu.backend import Backend
from gpu.clustering import Clustering
from gpu.kmeans import kmeans
from gpu.params import KMeansParams
from gpu.parts import PartSource, cut_parts
from tests.gpu.test_spread_kmeans import open_file, write

N_CLUSTERS = 50
PARAMS = KMeansParams(n_clusters=N_CLUSTERS)
WITHIN_S = 60


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 3) as started:
        yield started


@pytest.fixture
def client(processes: DaskProcesses) -> Iterator[Client]:
    with Client(processes.address, set_as_default=False, timeout=WITHIN_S) as client:
        client.wait_for_workers(3, timeout=WITHIN_S)
        yield client


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return mixture(40_000, 24, n_groups=N_CLUSTERS, spread=3.0, seed=11)[0]


@pytest.fixture(scope="module")
def sources(points: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[PartSource]:
    urls = write(tmp_path_factory.mktemp("export"), points, n_files=4, row_group_rows=1000)
    return cut_parts(urls, "vector", open_file, 200_000)


def in_a_worker(sources: list[PartSource], victim: str | None) -> tuple[Clustering, list[str]]:
    """Spread from inside a worker, as a run does; kill another once it keeps parts."""
    said: list[str] = []

    def tell(share: float) -> None:
        if victim is not None and not Path(victim).exists():
            Path(victim).touch()
            client = get_client()
            others = distributed.free_workers(client)
            pids = client.run(os.getpid, workers=others[:1])
            os.kill(next(iter(pids.values())), signal.SIGKILL)

    setting = distributed.Setting(get_client(), open_file, said.append, n_threads=1)
    return distributed.kmeans(setting, sources, PARAMS, angular=False, progress=tell), said


def spread(client: Client, sources: list[PartSource], victim: str | None = None) -> Any:
    return client.submit(in_a_worker, sources, victim, pure=False).result(timeout=WITHIN_S)


def sleep_until(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.05)


@functools.cache
def inertia_alone(data: bytes, n_dims: int) -> float:
    points = np.frombuffer(data, dtype=np.float32).reshape(-1, n_dims)
    return float(kmeans(points, PARAMS, backend=Backend("cpu", "")).details["inertia"])


def test_three_workers_find_what_one_machine_finds(
    client: Client, sources: list[PartSource], points: np.ndarray
) -> None:
    found, said = spread(client, sources)
    assert said == [f"k-means in {len(sources)} parts on 3 workers"]
    assert found.details["n_workers"] == 3
    alone = inertia_alone(points.tobytes(), points.shape[1])
    assert found.details["inertia"] == pytest.approx(alone, rel=1e-3)
    assert found.n_clusters == N_CLUSTERS
    assert found.device_reason == "spread over 3 workers of the Dask cluster"


def test_busy_workers_are_not_waited_for_and_change_nothing(
    client: Client, sources: list[PartSource], tmp_path: Path
) -> None:
    whole, _ = spread(client, sources)
    busy = [client.submit(sleep_until, str(tmp_path / "go"), pure=False) for _ in range(2)]
    while sum(map(len, client.processing().values())) < 2:
        time.sleep(0.05)
    found, said = spread(client, sources)
    (tmp_path / "go").touch()
    client.gather(busy)

    assert said == [f"k-means in {len(sources)} parts on 1 workers"]
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.details["inertia"] == whole.details["inertia"]


def test_a_worker_that_is_killed_leaves_its_parts_to_the_others(
    client: Client, sources: list[PartSource], points: np.ndarray, tmp_path: Path
) -> None:
    found, said = spread(client, sources, victim=str(tmp_path / "killed"))
    assert len(said) == 2
    assert "was lost: " in said[1]
    assert said[1].endswith("; its parts went to the others")
    assert found.notes == said[1:]
    alone = inertia_alone(points.tobytes(), points.shape[1])
    assert found.details["inertia"] == pytest.approx(alone, rel=1e-3)
    client.wait_for_workers(3, timeout=WITHIN_S)  # Its nanny has replaced it.
    again, _ = spread(client, sources)
    assert again.details["n_workers"] == 3


def test_nothing_is_left_behind(client: Client, sources: list[PartSource]) -> None:
    spread(client, sources)
    deadline = time.monotonic() + WITHIN_S
    while any(client.run(lambda dask_worker: len(dask_worker.state.actors)).values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
