"""Runs from the shell: what is printed, what JSON holds, which code comes back."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from shoal_command import COMMAND, N_GROUPS, N_PER_GROUP, Served, Shoal, environment

KMEANS = ("run", "--method", "kmeans", "--param", f"n_clusters={N_GROUPS}")
N_DOCUMENTS = N_GROUPS * N_PER_GROUP


@pytest.fixture(scope="module")
def finished(shoal: Shoal, collection: str) -> dict:
    """A finished run, as `--json` gives it."""
    done = shoal(*KMEANS, "--collection", collection, "--name", "four kinds", "--json")
    assert done.code == 0, done.err
    return done.json()


def test_run_gives_the_groups_with_their_most_typical_documents(finished: dict):
    assert finished["cluster"]["status"] == "COMPLETED"
    assert finished["execution"]["device"] == "cpu"
    assert finished["execution"]["effective_params"]["n_clusters"] == N_GROUPS
    assert Path(finished["execution"]["artifacts_url"].removeprefix("file://")).is_dir()
    assert [group["member_count"] for group in finished["groups"]] == [N_PER_GROUP] * N_GROUPS
    kinds = [
        {title.split(" number")[0] for title in group["examples"]} for group in finished["groups"]
    ]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set.union(*kinds)) == N_GROUPS


def test_output_that_is_no_terminal_is_plain_lines(shoal: Shoal, collection: str):
    done = shoal(*KMEANS, "--collection", collection, "--title-field", "kind")

    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    lines = [line.split(":")[0].split(" ")[0] for line in done.out.splitlines()]
    stages = [line for line in dict.fromkeys(lines) if line in ("export", "cluster", "write")]
    assert stages == ["export", "cluster", "write"]
    assert "kind 0 · kind 0 · kind 0" in done.out
    assert f"{1 / N_GROUPS:.1%}" in done.out
    assert "artifacts file://" in done.out


def test_a_terminal_gets_bars(dev_server: Served, collection: str):
    screen, line = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *KMEANS, "--collection", collection],
        stdout=line,
        stderr=line,
        env=environment(SHOAL_SERVER=dev_server.address, TERM="xterm-256color"),
    )
    os.close(line)
    shown = bytearray()
    try:
        while part := os.read(screen, 65536):
            shown += part
    except OSError:  # How Linux says that the other end is closed.
        pass
    os.close(screen)

    assert process.wait(30) == 0
    assert "━" in shown.decode()
    assert b"\x1b[" in shown
    assert b"cl_0" in shown


def test_list_and_get_know_the_cluster(shoal: Shoal, finished: dict):
    listed = shoal("list", "--json", "--search", "four kinds").json()
    got = shoal("get", "four kinds", "--json", "--timings").json()

    assert [row["cluster_id"] for row in listed["results"]] == [finished["cluster"]["cluster_id"]]
    assert got["num_documents_clustered"] == N_DOCUMENTS
    assert {"export", "cluster", "write", "publish"} <= set(got["timings"])
    assert list(got["timeline"]) == list(got["timings"])
    begins = [got["timeline"][stage][0][0] for stage in ("export", "cluster", "publish")]
    assert begins == sorted(begins)
    shown = shoal("get", "four kinds", "--timings").out
    assert re.search(r"publish +\d+\.\d\d s +\d+\.\d\d s +━", shown)
    assert "four kinds" in shoal("list").out


def test_groups_and_members_show_what_was_found(shoal: Shoal, finished: dict):
    groups = shoal("groups", "four kinds", "--json").json()
    members = shoal("members", "four kinds", "cl_0", "--limit", "5", "--json").json()

    assert groups["total_count"] == N_GROUPS
    assert [member["rank"] for member in members] == [1, 2, 3, 4, 5]
    distances = [member["distance_to_centroid"] for member in members]
    assert distances == sorted(distances)
    assert len({member["payload"]["kind"] for member in members}) == 1


def test_watch_goes_on_after_what_was_seen(shoal: Shoal, finished: dict):
    everything = [
        json.loads(line) for line in shoal("watch", "four kinds", "--json").out.splitlines()
    ]
    rest = shoal("watch", "four kinds", "--after", "3", "--json").out.splitlines()

    assert [event["sequence"] for event in everything] == list(range(1, len(everything) + 1))
    assert everything[-1]["status"] == "completed"
    assert [json.loads(line) for line in rest] == everything[3:]


def test_a_filter_from_a_file_and_enrichment_reach_the_documents(
    shoal: Shoal, collection: str, tmp_path: Path
):
    filters = tmp_path / "filter.json"
    filters.write_text('{"kind": "kind 1"}')
    words = ("run", "--method", "kmeans", "--param", "n_clusters=2", "--collection", collection)
    done = shoal(
        *words, "--filter", f"@{filters}", "--enrich", "--map", "cluster_id=topic", "--json"
    )
    assert done.code == 0, done.err
    report = done.json()
    cluster_id = report["cluster"]["cluster_id"]
    members = shoal("members", cluster_id, "cl_1", "--limit", "3", "--json").json()

    assert report["execution"]["num_documents"] == N_PER_GROUP
    assert report["cluster"]["output_collection_ids"] == []
    assert {member["payload"]["topic"] for member in members} == {"cl_1"}
    assert {member["payload"]["kind"] for member in members} == {"kind 1"}


def test_a_run_that_fails_ends_with_1_and_says_why(shoal: Shoal, collection: str):
    words = ("run", "--method", "kmeans", "--param", "n_clusters=5000")
    done = shoal(*words, "--collection", collection)

    assert done.code == 1
    assert "failed: " in done.out
    assert f"{N_DOCUMENTS}" in done.out


def test_cancel_stops_a_run_that_would_take_long(shoal: Shoal, collection: str):
    slow = ("--method", "kmeans", "--param", "n_clusters=100", "--param", "n_init=100000")
    started = shoal("run", "--collection", collection, *slow, "--no-wait", "--json").json()
    ended = shoal("cancel", started["cluster_id"], "--wait", "--json")
    watched = shoal("watch", started["cluster_id"])

    assert ended.code == 0, ended.err
    assert ended.json()["status"] == "canceled"
    assert watched.code == 1
    assert watched.out.splitlines()[-1].startswith("canceled")


def test_delete_asks_where_somebody_can_answer(shoal: Shoal, collection: str):
    shoal(*KMEANS, "--collection", collection, "--name", "short lived", "--json")
    unasked = shoal("delete", "short lived")
    deleted = shoal("delete", "short lived", "--yes", "--json")

    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert deleted.code == 0, deleted.err
    assert len(deleted.json()["deleted_output_collection_ids"]) == 1
    assert shoal("get", "short lived").code == 4
