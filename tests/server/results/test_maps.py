"""Maps as files: what is written is read, and what is shown of them is fair and repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.results.artifacts import RunFolder
from server.results.failures import ArtifactError
from server.results.maps import find_map, group_centres, places_of, read_map, thin, write_map


def members(sizes: dict[str, int]) -> pa.Table:
    names = [name for name, size in sizes.items() for _ in range(size)]
    return pa.table(
        {
            "source_collection_id": ["docs"] * len(names),
            "source_document_id": [str(number) for number in range(len(names))],
            "cluster_id": pa.array(names, pa.string()),
        }
    )


def with_places(sizes: dict[str, int], n_dims: int = 2) -> pa.Table:
    table = members(sizes)
    places = np.random.default_rng(0).normal(size=(len(table), n_dims)).astype(np.float32)
    for axis in range(n_dims):
        table = table.append_column("xyz"[axis], pa.array(places[:, axis]))
    return table


def folder_in(path: Path) -> RunFolder:
    folder = RunFolder(str(path), "ns_1", "clu_1", "run_1")
    folder.begin()
    return folder


@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_map_is_read_as_it_was_written(tmp_path: Path, n_dims: int) -> None:
    folder = folder_in(tmp_path)
    table = members({"cl_0": 3, "cl_noise": 2})
    places = np.arange(5 * n_dims, dtype=np.float32).reshape(5, n_dims)

    assert find_map(folder, n_dims) is None
    written = write_map(folder, table, places)

    assert find_map(folder, n_dims) == written
    assert (written.dimensions, written.rows) == (n_dims, 5)
    assert find_map(folder, 5 - n_dims) is None
    found = read_map(folder, n_dims)
    assert np.array_equal(places_of(found), places)
    assert found.drop_columns(list("xyz"[:n_dims])).equals(table)


def test_a_damaged_map_is_told(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    write_map(folder, members({"cl_0": 3}), np.zeros((3, 2), dtype=np.float32))
    path = Path(folder.root)
    (path / "layout.parquet").write_bytes(b"no map")
    (path / "layout.json").write_bytes(b"{}")

    with pytest.raises(ArtifactError, match=r"layout\.parquet of run_1 is damaged"):
        read_map(folder, 2)
    with pytest.raises(ArtifactError, match=r"layout\.json of run_1 is damaged"):
        find_map(folder, 2)


def test_a_group_lies_at_the_median_of_its_members_and_of_those_below() -> None:
    table = members({"cl_0_sub_0": 2, "cl_0_sub_1": 1, "cl_1": 3, "cl_noise": 1})
    table = table.append_column("x", pa.array([0, 2, 10, 5, 6, 100, -1], pa.float32()))
    table = table.append_column("y", pa.array([0, 4, 20, 1, 1, 1, -1], pa.float32()))

    centres = {name: tuple(place.tolist()) for name, place in group_centres(table).items()}

    assert centres == {
        "cl_0_sub_0": (1, 2),
        "cl_0_sub_1": (10, 20),
        "cl_0": (2, 4),
        "cl_1": (6, 1),
        "cl_noise": (-1, -1),
    }


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=20), max_points=st.integers(1, 900))
def test_a_thinned_map_is_fair(sizes: list[int], max_points: int) -> None:
    named = {f"cl_{number}": size for number, size in enumerate(sizes)}
    table = with_places(named)

    shown = thin(table, max_points)

    assert len(shown) == min(max_points, len(table))
    assert shown.equals(thin(table, max_points))
    ids = [int(text) for text in shown["source_document_id"].to_pylist()]
    assert ids == sorted(set(ids))
    counts = {name: shown["cluster_id"].to_pylist().count(name) for name in named}
    if len(sizes) <= max_points < len(table):
        assert min(counts.values()) >= 1
        share = (max_points - len(sizes)) / (len(table) - len(sizes))
        for name, size in named.items():
            assert abs(counts[name] - 1 - (size - 1) * share) < 1
    elif len(sizes) > max_points:
        smallest_shown = min(named[name] for name, count in counts.items() if count)
        assert smallest_shown >= max(named[name] for name, count in counts.items() if not count)


def test_an_empty_map_shows_nothing() -> None:
    empty = with_places({})

    assert len(thin(empty, 5)) == 0
    assert group_centres(empty) == {}
