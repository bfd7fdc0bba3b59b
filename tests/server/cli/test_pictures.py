"""Pictures and reports from the shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from shoal_command import N_GROUPS, N_PER_GROUP, Shoal


@pytest.fixture(scope="module")
def clustered(shoal: Shoal, collection: str) -> str:
    """Name a cluster with a finished run."""
    name = "to be seen"
    words = ("run", "--method", "kmeans", "--param", f"n_clusters={N_GROUPS}", "--json")
    done = shoal(*words, "--collection", collection, "--name", name)
    assert done.code == 0, done.err
    return name


def test_a_map_is_written_as_a_page_and_as_a_picture(shoal: Shoal, clustered: str, tmp_path: Path):
    page, picture = tmp_path / "map.html", tmp_path / "map.png"

    written = shoal("map", clustered, "-o", page, "--field", "kind")
    drawn = shoal("map", clustered, "-o", picture, "--png", "--json")

    assert written.code == 0, written.err
    assert f"{N_GROUPS * N_PER_GROUP} documents, {N_GROUPS} groups" in written.out
    assert "kind 2 number 120" in page.read_text()
    assert drawn.json()["bytes"] == picture.stat().st_size
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_cannot_be_drawn_is_said(shoal: Shoal, clustered: str, tmp_path: Path):
    nowhere = shoal("map", clustered, "-o", tmp_path / "no" / "map.html")
    mistyped = shoal("map", clustered, "-o", tmp_path / "map.html", "--title-field", "nmae")

    assert nowhere.code == 2
    assert "there is no folder" in nowhere.err
    assert mistyped.code == 2
    assert "title_field: sent 'nmae'; no document of the run has it" in mistyped.err
    assert "name" in mistyped.err
    assert not (tmp_path / "map.html").exists()
