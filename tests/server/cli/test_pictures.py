"""Pictures and reports from the shell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from shoal_command import N_GROUPS, N_PER_GROUP, Served, Shoal
from terminal import frames_of

from server.cli import memberships
from server.cli.connection import connect
from server.cli.results import list_groups
from server.jobs.model import STAGES

pytestmark = pytest.mark.timeout(400)  # The first map of a worker compiles for a minute.


@pytest.fixture(scope="module")
def clustered(shoal: Shoal, collection: str) -> str:
    """Name a cluster with a finished run."""
    name = "to be seen"
    words = ("run", "--method", "kmeans", "--param", f"n_clusters={N_GROUPS}", "--json")
    done = shoal(*words, "--collection", collection, "--name", name)
    assert done.code == 0, done.err
    return name


@pytest.fixture(scope="module")
def few(shoal: Shoal, collection: str) -> str:
    """Name a cluster of twelve documents: so few are mapped without UMAP, in no time."""
    name = "a few"
    names = [f"kind {i // N_PER_GROUP} number {i}" for i in (*range(6), *range(120, 126))]
    chosen = json.dumps({"AND": [{"field": "name", "operator": "in", "value": names}]})
    words = ("run", "--method", "kmeans", "--param", "n_clusters=2", "--filter", chosen, "--json")
    done = shoal(*words, "--collection", collection, "--name", name)
    assert done.code == 0, done.err
    return name


def test_a_map_is_written_as_a_page_and_as_a_picture(shoal: Shoal, few: str, tmp_path: Path):
    page, picture = tmp_path / "map.html", tmp_path / "map.png"

    written = shoal("map", few, "-o", page, "--field", "kind")
    drawn = shoal("map", few, "-o", picture, "--png", "--json")

    assert written.code == 0, written.err
    assert "12 documents, 2 groups" in written.out
    assert "kind 2 number 120" in page.read_text()
    assert drawn.json()["bytes"] == picture.stat().st_size
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_cannot_be_drawn_is_said(shoal: Shoal, few: str, tmp_path: Path):
    nowhere = shoal("map", few, "-o", tmp_path / "no" / "map.html")
    mistyped = shoal("map", few, "-o", tmp_path / "map.html", "--title-field", "nmae")

    assert nowhere.code == 2
    assert "there is no folder" in nowhere.err
    assert mistyped.code == 2
    assert "title_field: sent 'nmae'; no document of the run has it" in mistyped.err
    assert "name" in mistyped.err
    assert not (tmp_path / "map.html").exists()


@pytest.fixture(scope="module")
def by_density(shoal: Shoal, collection: str) -> str:
    """Name a cluster with a finished HDBSCAN run."""
    name = "by density"
    words = ("run", "--method", "hdbscan", "--param", "min_cluster_size=10", "--json")
    done = shoal(*words, "--collection", collection, "--name", name)
    assert done.code == 0, done.err
    return name


def test_a_report_has_what_was_asked_and_what_came_out(shoal: Shoal, clustered: str):
    report = shoal("report", clustered, "--json").json()

    assert report["cluster_name"] == clustered
    assert (report["n_documents"], report["n_groups"]) == (N_GROUPS * N_PER_GROUP, N_GROUPS)
    assert report["asked"]["collections"] == ["docs"]
    assert report["ran"]["parameters used"]["n_clusters"] == N_GROUPS
    assert "numpy" in report["ran"]["versions"]
    assert {row["name"]: row["how_to_read"] for row in report["quality"]}["silhouette"]
    groups = report["groups"]
    assert [group["member_count"] for group in groups] == [N_PER_GROUP] * N_GROUPS
    assert all(0 < group["cohesion"] < 3 for group in groups)
    assert all(len(group["examples"]) == 3 for group in groups)
    figures = report["figures"]
    assert N_GROUPS in figures["elbow"]["n_clusters"]
    assert [row["cluster_id"] for row in figures["silhouette_profile"]] == [
        group["cluster_id"] for group in groups
    ]
    assert set(report["timings_s"]) >= {"export", "cluster", "write"}


def test_a_report_of_hdbscan_has_its_condensed_tree(shoal: Shoal, by_density: str, tmp_path: Path):
    path = tmp_path / "report.html"

    done = shoal("report", by_density, "-o", path)
    report = shoal("report", by_density, "--json", "--title-field", "kind").json()

    assert done.code == 0, done.err
    assert "Condensed tree" in path.read_text()
    tree = report["figures"]["condensed_tree"]
    assert {name for name in tree["group"] if name} == {g["cluster_id"] for g in report["groups"]}
    assert tree["size"][0] == report["n_documents"]
    assert {title[:4] for group in report["groups"] for title in group["examples"]} == {"kind"}


def test_two_runs_are_compared(shoal: Shoal, clustered: str, by_density: str, tmp_path: Path):
    run_id = shoal("report", clustered, "--json").json()["run_id"]
    path = tmp_path / "compare.html"

    same = shoal("compare", clustered, run_id)
    compared = shoal("compare", run_id, by_density, "-o", path, "--json").json()

    assert same.code == 0, same.err
    assert "ARI 1.000, AMI 1.000" in same.out
    assert same.out.count("kept") == N_GROUPS
    assert compared["n_shared"] == N_GROUPS * N_PER_GROUP
    assert {row["change"] for row in compared["changes"]} == {"kept"}
    over_all = compared["agreement"]["all shared documents, noise as one group"]
    assert 0.5 < over_all["adjusted_rand"] <= 1
    assert "Where the documents went" in path.read_text()


def test_members_are_read_from_the_run_s_own_file_or_asked_for(
    dev_server: Served, clustered: str, by_density: str, monkeypatch: pytest.MonkeyPatch
):
    with connect(dev_server.address, None, None) as connection:
        for name in (clustered, by_density):
            listed = list_groups(connection, name, None)
            run = (connection, name, listed.run_id)
            roots = [group.cluster_id for group in listed.groups]

            asked = set(memberships.ask_members(*run, roots))

            assert set(memberships.memberships(*run, roots)) == asked
            assert len(asked) == N_GROUPS * N_PER_GROUP
            content = memberships.local_file(*run)
            assert content is not None
            assert content[:4] == b"PAR1"
            with monkeypatch.context() as patched:
                # The server is elsewhere, and another file lies where it names its own.
                patched.setattr(Path, "read_bytes", lambda path: b"PAR1 of others")
                assert memberships.local_file(*run) is None
                assert set(memberships.memberships(*run, roots)) == asked


def test_runs_that_cannot_be_compared_are_said(shoal: Shoal, clustered: str):
    unknown = shoal("compare", clustered, "run_00000000000000000000")

    assert unknown.code == 4
    assert "run_00000000000000000000" in unknown.err


def test_top_tells_what_runs_and_what_the_workers_take(shoal: Shoal, clustered: str):
    told = shoal("top", "--json").json()
    shown = shoal("top")

    assert (told["running"], told["waiting"], told["n_waiting"]) == ([], [], 0)
    (worker,) = told["workers"]
    assert worker["status"] == "idle"
    assert worker["memory_bytes"] > 10 << 20
    assert "0 running, 0 waiting; 0 of 1 workers busy" in shown.out
    assert "MiB" in shown.out


def test_a_watch_ends_with_the_groups(shoal: Shoal, clustered: str):
    watched = shoal("watch", clustered, "--title-field", "kind")

    assert watched.code == 0
    assert watched.out.count("kind 1") == 3
    assert "cl_3" in watched.out


NARROW = 80


def test_on_a_terminal_a_panel_ends_with_the_groups(dev_server: Served, clustered: str):
    frames = frames_of("watch", clustered, columns=NARROW, SHOAL_SERVER=dev_server.address)

    shown = re.sub(r"\x1b\[[\d;]*m", "", frames[-1])
    panel, _, groups = shown.partition("most typical d")
    assert [line.split()[2] for line in panel.splitlines() if "✓" in line] == list(STAGES)
    assert "device: cpu" in panel
    rows = [line for line in groups.splitlines() if line.strip().startswith("cl_")]
    assert len(rows) == N_GROUPS  # One line for each, however long its titles.
    assert [row.split()[:4] for row in rows] == [
        [f"cl_{at}", "Cluster", str(at), str(N_PER_GROUP)] for at in range(N_GROUPS)
    ]
    assert "/s" not in panel  # What is past came at once, which is no rate.
    assert max(map(len, rows)) <= NARROW
    assert rows[0].rstrip().endswith("…")
