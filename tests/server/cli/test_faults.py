"""What a mistake gets: words, every violation, and the documented exit code."""

from __future__ import annotations

import json
from pathlib import Path

from shoal_command import Shoal, call_shoal, run_shoal

from gpu.params import BUILT_METHODS

NOBODY = "127.0.0.1:1"


def test_an_unknown_collection_and_its_reason(shoal: Shoal):
    done = shoal("run", "--collection", "nowhere", "--method", "kmeans")

    assert done.code == 2
    assert "collection_ids[0]: collection 'nowhere' does not exist" in done.err


def test_the_server_lists_every_violation_at_once(shoal: Shoal, collection: str):
    done = shoal(
        "run",
        "--collection",
        collection,
        "--method",
        "kmeans",
        "--json",
        "--param",
        "n_cluster=3",
        "--param",
        "max_iter=-1",
        "--filter",
        '{"AND": [{"field": "kind", "operator": "like", "value": 1}]}',
    )
    error = json.loads(done.err)["error"]

    assert done.code == 2
    assert error["code"] == "INVALID_ARGUMENT"
    assert len(error["violations"]) == 3
    assert "n_clusters" in str(error["violations"])


def test_words_that_cannot_be_read_are_listed_before_any_call():
    done = call_shoal(
        "run",
        "--collection",
        "docs",
        "--method",
        "kmeans",
        "--server",
        NOBODY,
        "--param",
        "n_clusters",
        "--filter",
        "{",
        "--map",
        "cluster_id",
    )

    assert done.code == 2
    assert "--param: 'n_clusters' is not NAME=VALUE" in done.err
    assert "--filter: --filter is not JSON" in done.err
    assert "--map: only with --enrich" in done.err


def test_an_absent_server():
    done = run_shoal("list", "--server", NOBODY)

    assert done.code == 3
    assert f"no shoal server answers at {NOBODY}" in done.err
    assert "shoal serve" in done.err


def test_an_unknown_cluster(shoal: Shoal):
    assert shoal("get", "nothing").code == 4
    assert shoal("watch", "nothing").code == 4


def test_a_name_that_is_taken(shoal: Shoal, collection: str):
    words = ("run", "--collection", collection, "--method", "kmeans", "--name", "twice")
    assert shoal(*words, "--no-wait").code == 0
    again = shoal(*words, "--no-wait", "--json")

    assert again.code == 6
    assert json.loads(again.err)["error"]["reason"] == "CLUSTER_NAME_TAKEN"


def test_serve_lists_every_bad_setting(tmp_path: Path):
    done = call_shoal(
        "serve", "--device", "tpu", "--workers", "0", "--data-dir", tmp_path, SHOAL_KEEP_RUNS="none"
    )

    assert done.code == 2
    for name in ("SHOAL_DEVICE", "SHOAL_WORKERS", "SHOAL_KEEP_RUNS"):
        assert name in done.err


def test_dev_is_for_loopback_only(tmp_path: Path):
    done = call_shoal("serve", "--dev", "--listen", "0.0.0.0:0", "--data-dir", tmp_path)

    assert done.code == 2
    assert "loopback" in done.err


def test_help_names_the_exit_codes():
    done = call_shoal("--help")

    assert done.code == 0
    assert "3 unavailable" in " ".join(done.out.split()).replace("3 │ │ ", "3 ")


def test_help_of_run_names_the_methods_there_are():
    shown = " ".join(call_shoal("run", "--help").out.replace("│", " ").split())

    assert f"{', '.join(BUILT_METHODS[:-1])} or {BUILT_METHODS[-1]}" in shown
