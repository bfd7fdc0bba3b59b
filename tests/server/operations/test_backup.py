"""Backup and restore as docs/operations.md tells it, with the embedded stores."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from shoal_command import N_GROUPS, N_PER_GROUP, call_shoal, serving, write_documents

# Real servers come and go in their set-up, which takes longer on a busy machine.
pytestmark = pytest.mark.timeout(300)


def hot_copy(database: Path, to: Path) -> None:
    """Copy a database that is in use, as ``sqlite3 … .backup`` does."""
    to.parent.mkdir(parents=True)
    source, target = sqlite3.connect(database), sqlite3.connect(to)
    with source, target:
        source.backup(target)
    source.close()
    target.close()


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cold`` (all of a stopped server's) and ``hot`` (a running one's store)."""
    folder = tmp_path_factory.mktemp("backup")
    live = folder / "live"
    documents = write_documents(folder / "documents.parquet")
    assert call_shoal("import", documents, "--collection", "docs", "--data-dir", live).code == 0
    with serving(live, "--dev") as served:
        words = ("run", "--collection", "docs", "--method", "kmeans", "--param", "n_clusters=4")
        ran = call_shoal(*words, "--name", "kept", SHOAL_SERVER=served.address)
        assert ran.code == 0, ran.err
        hot_copy(live / "jobs.sqlite", folder / "hot" / "jobs.sqlite")
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(90)
    shutil.copytree(live, folder / "cold")
    shutil.rmtree(live)
    return folder


def test_a_restored_server_shows_and_goes_on_with_what_was_there(backup: Path) -> None:
    with serving(backup / "cold", "--dev") as served:
        at = {"SHOAL_SERVER": served.address}
        groups = call_shoal("groups", "kept", "--json", **at).json()
        members = call_shoal("members", "kept", "cl_0", "--limit", "100", "--json", **at)
        exported = call_shoal("export", "kept", "--json", **at).json()
        files = [Path(file["url"].removeprefix("file://")) for file in exported["artifacts"]]
        missing = [file for file in files if not file.exists()]
        again = call_shoal("execute", "kept", "--json", **at)

    assert len(groups["groups"]) == N_GROUPS
    assert members.code == 0
    assert members.out.count("source_document_id") == N_PER_GROUP
    assert files
    assert missing == []
    assert all(file.is_relative_to(backup / "cold") for file in files)
    assert again.code == 0, again.err
    assert again.json()["cluster"]["status"] == "COMPLETED"


def test_a_store_copied_under_a_running_server_opens_whole(backup: Path) -> None:
    # Without the vectors and artifacts that were not copied, its records are all there is.
    with serving(backup / "hot", "--dev") as served:
        listed = call_shoal("list", "--json", SHOAL_SERVER=served.address).json()

    assert [cluster["cluster_name"] for cluster in listed["results"]] == ["kept"]
    assert listed["results"][0]["status"] == "COMPLETED"
