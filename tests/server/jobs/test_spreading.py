"""The rule by which a run goes beyond its worker; tests/server/dask_cluster has such runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from qdrant_client import QdrantClient

from gpu.params import parse_params
from server.jobs.definition import parse_definition
from server.jobs.sources import Feature, SourcePlan
from server.jobs.spec import Progress, RunSpec, StageClock
from server.jobs.stages.spreading import may_go_beyond, sample_that_fits
from server.jobs.stages.work import Work
from server.qdrant.client import QdrantAddress
from server.results.artifacts import RunFolder

TOO_LARGE = (10**9, 1000)
FEATURE = Feature("text", 1000, "Cosine", "text")


def work(
    folder: Path, told: list[Progress], *, above: int | None = 0, features: int = 1, **config: Any
) -> Work:
    spec = RunSpec(
        namespace_id="ns_1",
        cluster_id="clust_1",
        run_id="run_1",
        definition=parse_definition(
            {
                "collection_ids": ["docs"],
                "vector_config": {"clustering_method": "kmeans", **config},
            }
        ),
        qdrant=QdrantAddress("127.0.0.1", 1),
        qdrant_names=("docs",),
        artifacts_url=str(folder),
        outputs=(),
        device="cpu",
        spread_above_bytes=above,
    )
    clock = StageClock(lambda message: told.append(Progress.from_message(message)))
    return Work(
        spec,
        clock,
        RunFolder(str(folder), "ns_1", "clust_1", "run_1"),
        cast(QdrantClient, None),  # The rule asks nobody.
        SourcePlan((), (FEATURE,) * features, TOO_LARGE[0]),
    )


@pytest.mark.parametrize(
    ("how", "may"),
    [
        ({}, True),
        ({"above": None}, False),  # Not on a Dask cluster.
        ({"clustering_method": "hdbscan"}, True),
        ({"clustering_method": "dbscan"}, False),
        ({"sample_size": 1000}, False),
        ({"features": 2, "feature_uris": ["text", "image"]}, False),
        ({"preprocessing_steps": [{"method": "normalize"}]}, False),
    ],
)
def test_who_may_go_beyond_one_worker(tmp_path: Path, how: dict[str, Any], may: bool) -> None:
    assert may_go_beyond(work(tmp_path, [], **how)) is may


def sample(run: Work, shape: tuple[int, int]) -> int | None:
    method = run.config.clustering_method
    params = parse_params(method, run.config.algorithm_params).params
    with run.clock.stage("preprocess") as stage:
        return sample_that_fits(run, shape, params, stage)


def test_hdbscan_that_does_not_fit_takes_a_sample_and_says_so(tmp_path: Path) -> None:
    told: list[Progress] = []
    run = work(tmp_path, told, clustering_method="hdbscan")
    size = sample(run, TOO_LARGE)
    assert size is not None
    assert 1000 < size < TOO_LARGE[0]
    (warning,) = run.warnings
    assert "hdbscan on 1,000,000,000 documents needs about " in warning
    assert f"a sample of {size:,} is clustered, and every other document goes to its " in warning
    assert warning in [progress.message for progress in told]


@pytest.mark.parametrize(
    ("how", "shape"),
    [
        ({"clustering_method": "hdbscan"}, (1000, 8)),  # Fits.
        ({"clustering_method": "hdbscan", "above": None}, TOO_LARGE),
        ({"clustering_method": "kmeans"}, TOO_LARGE),
    ],
)
def test_others_take_none(tmp_path: Path, how: dict[str, Any], shape: tuple[int, int]) -> None:
    run = work(tmp_path, [], **how)
    assert sample(run, shape) is None
    assert run.warnings == []
