"""Which Dask clusters may run functions, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from server.engine.fitness import Cluster, unfitness, version_faults


def cluster(*workers: dict[str, Any]) -> Cluster:
    """Make one as a scheduler tells of it."""
    whole = {"host": "10.0.0.1", "nthreads": 1, "resources": {}, "status": "running"}
    return Cluster.from_identity(
        {"workers": {f"tcp://10.0.0.1:{n}": {**whole, **each} for n, each in enumerate(workers)}}
    )


@pytest.mark.parametrize(
    ("told", "device", "fault"),
    [
        (cluster({}), "auto", None),
        (cluster({}, {"resources": {"GPU": 1.0}}), "gpu", None),
        (cluster(), "cpu", "has no workers"),
        (cluster({"status": "closing"}), "cpu", "has no workers"),
        (cluster({}), "gpu", "no worker that offers the resource GPU"),
        (cluster({"resources": {"GPU": 0.5}}), "gpu", "no worker that offers the resource GPU"),
        (cluster({}, {"nthreads": 4}), "cpu", "tcp://10.0.0.1:1 with 4 threads"),
    ],
)
def test_what_a_cluster_lacks_is_said(told: Cluster, device: str, fault: str | None) -> None:
    said = unfitness(told, device)
    assert said is None if fault is None else fault in str(said)


def test_where_there_are_gpus_only_their_workers_count() -> None:
    mixed = cluster({}, {}, {"resources": {"GPU": 1}})
    assert (mixed.n_fit("auto"), mixed.resources("auto")) == (1, {"GPU": 1})
    assert (mixed.n_fit("cpu"), mixed.resources("cpu")) == (3, None)
    assert (cluster({}, {}).n_fit("auto"), cluster({}).resources("auto")) == (2, None)


def packages(**changed: str | None) -> dict[str, Any]:
    ours = {"shoal": "0.1.0", "python": "3.11.4.final.0", "dask": "2026.8.0"}
    return {"packages": {**ours, **changed}}


def test_every_difference_of_versions_is_said_once() -> None:
    told = {
        "client": packages(),
        "scheduler": packages(shoal=None, dask="2025.1.0"),
        "workers": {
            "tcp://a": packages(python="3.11.9.final.0"),
            "tcp://b": packages(shoal="0.0.9", python="3.12.1.final.0"),
            "tcp://c": packages(shoal=None),
        },
    }
    assert version_faults(told) == [
        "the scheduler has shoal missing (here 0.1.0), dask 2025.1.0 (here 2026.8.0)",
        "worker tcp://b has shoal 0.0.9 (here 0.1.0), python 3.12.1 (here 3.11.4)",
        "worker tcp://c has shoal missing (here 0.1.0)",
    ]
