"""Results under other names and elsewhere, from the shell."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from shoal_command import N_GROUPS, N_PER_GROUP, Shoal

N_DOCUMENTS = N_GROUPS * N_PER_GROUP


@pytest.fixture(scope="module")
def clustered(shoal: Shoal, collection: str) -> str:
    """Name a cluster with a finished run."""
    name = "for others"
    words = ("run", "--method", "kmeans", "--param", f"n_clusters={N_GROUPS}", "--json")
    done = shoal(*words, "--collection", collection, "--name", name)
    assert done.code == 0, done.err
    return name


def test_a_renamed_group_is_exported_and_written_under_its_new_name(
    shoal: Shoal, clustered: str, collection: str
):
    renamed = shoal("rename", clustered, "cl_0", "First of all", "--keyword", "first")
    exported = shoal("export", clustered, "--format", "csv", "--json")
    enriched = shoal("enrich", clustered, collection, "--map", "cluster_label=topic")

    assert "is called First of all" in renamed.out
    files = {Path(file["name"]).name: file for file in exported.json()["artifacts"]}
    with Path(files["members.csv"]["url"].removeprefix("file://")).open(newline="") as source:
        labels = [row["cluster_label"] for row in csv.DictReader(source)]
    assert labels.count("First of all") == N_PER_GROUP
    assert f"{N_DOCUMENTS} of {N_DOCUMENTS} documents of {collection} written" in enriched.out
    members = shoal("members", clustered, "cl_0", "--limit", "1", "--json").json()
    assert members[0]["payload"]["topic"] == "First of all"
    assert "members.parquet" in shoal("export", clustered).out


def test_assigning_keeps_the_groups(shoal: Shoal, clustered: str):
    again = shoal("execute", clustered, "--assign", "--threshold", "0.7", "--json")

    assert again.code == 0, again.err
    execution = again.json()["execution"]
    assert execution["mode"] == "assign"
    assert execution["effective_params"]["assignment_threshold"] == 0.7
    assert [group["member_count"] for group in again.json()["groups"]] == [N_PER_GROUP] * N_GROUPS


def test_faults_name_what_was_sent(shoal: Shoal, clustered: str, collection: str):
    unknown = shoal("rename", clustered, "cl_99", "Nobody")
    full = shoal("execute", clustered, "--threshold", "0.7")
    unmapped = shoal("enrich", clustered, collection, "--map", "cluster_label", "--filter", "{")

    assert unknown.code != 0
    assert "cl_99" in unknown.err
    assert "needs mode assign" in full.err
    assert "--map" in unmapped.err
    assert "--filter" in unmapped.err
