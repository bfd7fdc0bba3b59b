"""A run's folder: whole or not there, checked, paged, and never outside its base."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.errors import NotFoundError
from server.jobs.moves import LeaseLostError
from server.results.artifacts import RunFolder
from server.results.failures import ArtifactError
from server.results.groups import Group, members_table
from server.results.tables import ROWS_PER_ROW_GROUP

CENTROID = np.array([1.0, 0.5, 0.0], dtype=np.float32)
GROUPS = [
    Group("cl_0", "Tools", 3, "Small programs", ("cli", "größe"), None, CENTROID, 0.25, 0.1),
    Group("cl_1", "Rest", 1, parent_cluster_id="cl_0"),
]


def members(labels, distances=None):
    n_points = len(labels)
    return members_table(
        pa.array(["docs"] * n_points, pa.string()),
        pa.array([str(i) for i in range(n_points)], pa.string()),
        np.array(labels, dtype=np.int32),
        GROUPS,
        distances=distances,
    )


@pytest.fixture(params=["local", "memory"])
def base_url(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "artifacts")
    return f"memory://artifacts-{uuid.uuid4().hex}"


def written(base_url: str, run_id: str = "run_1") -> RunFolder:
    folder = RunFolder(base_url, "ns_1", "clust_1", run_id)
    folder.begin()
    with folder.export_dir() as export:
        (export / "part-0.parquet").write_bytes(b"exported")
        folder.keep_export(export)
    folder.write_members(members([0, 1, 0, -1, 0], np.array([0.3, 0.1, 0.2, np.nan, 0.1])))
    folder.write_groups(GROUPS)
    folder.write_manifest(counts={"documents": 5}, device="cpu", timings_s={"export": 0.5})
    return folder


def test_what_was_written_is_read_by_somebody_else(base_url):
    written(base_url)
    folder = RunFolder(base_url, "ns_1", "clust_1", "run_1")

    manifest = folder.verify()
    first, second = folder.read_groups()

    assert folder.is_whole
    assert manifest.counts == {"documents": 5}
    assert "pyarrow" in manifest.libraries
    assert [file.name for file in folder.files()] == [
        "centroids.parquet",
        "export/part-0.parquet",
        "members.parquet",
    ]
    assert manifest.files[1].size_bytes == len(b"exported")
    assert first.centroid.tolist() == CENTROID.tolist()
    assert (first.label, first.summary, first.keywords) == (
        "Tools",
        "Small programs",
        ("cli", "größe"),
    )
    assert first.radius == pytest.approx(0.25)
    assert (second.centroid, second.parent_cluster_id, second.keywords) == (None, "cl_0", ())


def test_groups_can_be_read_without_their_vectors(base_url):
    groups = written(base_url).read_groups(with_centroids=False)
    assert [group.label for group in groups] == ["Tools", "Rest"]
    assert all(group.centroid is None for group in groups)


def test_members_of_a_group_come_nearest_first_and_in_pages(base_url):
    folder = written(base_url)

    def ids(*args, **kwargs):
        return folder.read_members(*args, **kwargs)["source_document_id"].to_pylist()

    assert ids("cl_0") == ["4", "2", "0"]
    assert ids("cl_0", offset=1, limit=1) == ["2"]
    assert ids("cl_0", offset=2, limit=10) == ["0"]
    assert ids("cl_0", offset=3) == []
    assert ids("cl_0", limit=0) == []
    assert ids("cl_1") == ["1"]
    assert ids("cl_noise") == ["3"]
    assert ids(None, offset=2) == ["0", "1", "3"]
    page = folder.read_members("cl_0", limit=1, columns=["source_document_id"])
    assert page.column_names == ["source_document_id"]


def test_pages_cross_row_groups(tmp_path):
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    n_points = ROWS_PER_ROW_GROUP + 50
    labels = np.zeros(n_points, dtype=np.int32)
    labels[:20] = 1
    folder.write_members(members(labels))

    page = folder.read_members("cl_0", offset=ROWS_PER_ROW_GROUP - 5, limit=10)
    last = folder.read_members("cl_1")

    expected = [str(i) for i in range(ROWS_PER_ROW_GROUP + 15, ROWS_PER_ROW_GROUP + 25)]
    assert page["source_document_id"].to_pylist() == expected
    assert last["source_document_id"].to_pylist() == [str(i) for i in range(20)]


def test_every_group_is_read_back_whole(tmp_path):
    """For any labels: the groups' members are those with their label, and nobody else."""
    rng = np.random.default_rng(11)
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    groups = [Group(f"cl_{i}", f"Group {i}", 0) for i in range(12)]
    labels = rng.integers(-1, 11, size=3 * ROWS_PER_ROW_GROUP)
    distances = rng.random(len(labels))
    ids = pa.array(np.arange(len(labels))).cast(pa.string())
    names = pa.array(["docs"] * len(labels))
    folder.write_members(members_table(names, ids, labels, groups, distances=distances))
    folder.write_groups(groups)

    for label, group in enumerate(groups):
        found = folder.read_members(group.cluster_id)
        rows = found["source_document_id"].to_numpy().astype(int)
        assert sorted(rows) == np.flatnonzero(labels == label).tolist()
        assert np.all(np.diff(distances[rows]) >= 0)
    assert len(folder.read_members("cl_noise")) == np.sum(labels == -1)


def test_members_that_are_not_sorted_are_refused(tmp_path):
    unsorted = members([0, 1]).take([1, 0, 1])
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    with pytest.raises(ValueError, match="not sorted by group"):
        folder.write_members(unsorted)


def test_centroids_of_several_features_may_differ_in_size(tmp_path):
    groups = [Group(f"f{n}.cl_0", "a", 1, centroid=np.ones(n, np.float32)) for n in (2, 3)]
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    folder.write_groups([*groups, Group("cl_0", "none", 1, fields={"a": [1, "ü"]})])

    read = folder.read_groups()

    assert [None if g.centroid is None else g.centroid.tolist() for g in read] == [
        [1.0, 1.0],
        [1.0, 1.0, 1.0],
        None,
    ]
    assert read[2].fields == {"a": [1, "ü"]}


def test_an_unknown_group_is_not_found_but_an_empty_one_is_empty(tmp_path):
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    folder.write_members(members([0]))
    folder.write_groups(GROUPS)

    assert len(folder.read_members("cl_1")) == 0
    assert len(folder.read_members("cl_noise")) == 0
    with pytest.raises(NotFoundError, match="cl_7"):
        folder.read_members("cl_7")


def test_a_negative_offset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="offset -1"):
        RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1").read_members(offset=-1)


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_a_run_without_groups_is_kept_too(tmp_path, labels):
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    folder.begin()
    folder.write_members(members(labels))
    folder.write_groups([])
    folder.write_manifest(counts={"documents": len(labels)}, device="cpu", timings_s={})

    folder.verify()
    assert folder.read_groups() == []
    assert len(folder.read_members()) == len(labels)


def test_a_changed_file_is_found_by_its_checksum(tmp_path):
    folder = written(str(tmp_path))
    path = tmp_path / "ns_1" / "clust_1" / "run_1" / "members.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"members\.parquet of run_1 is damaged"):
        folder.verify()


def test_a_missing_file_is_named(tmp_path):
    folder = written(str(tmp_path))
    (tmp_path / "ns_1" / "clust_1" / "run_1" / "centroids.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"centroids\.parquet of run_1 is missing"):
        folder.verify()
    with pytest.raises(NotFoundError, match="may have been retired"):
        folder.read_groups()


def test_damaged_files_are_said_to_be_so_when_read(tmp_path):
    folder = written(str(tmp_path))
    root = tmp_path / "ns_1" / "clust_1" / "run_1"
    (root / "members.parquet").write_bytes(b"no parquet")
    (root / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"members\.parquet"):
        folder.read_members()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        folder.read_manifest()


def test_one_changed_byte_of_a_page_is_found_when_it_is_read(tmp_path):
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    rng = np.random.default_rng(3)
    folder.write_members(members([0] * 500, rng.random(500)))
    path = tmp_path / "ns_1" / "clust_1" / "run_1" / "members.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 0x01
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"members\.parquet of run_1 is damaged"):
        folder.read_members("cl_0")


def test_a_members_file_of_somebody_else_is_refused(tmp_path):
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    folder.begin()
    path = tmp_path / "ns_1" / "clust_1" / "run_1" / "members.parquet"
    pq.write_table(members([0]), path)
    with pytest.raises(ArtifactError, match="does not say where its groups are"):
        folder.read_members("cl_0")


def test_a_manifest_of_a_newer_version_is_refused(tmp_path):
    folder = written(str(tmp_path))
    path = tmp_path / "ns_1" / "clust_1" / "run_1" / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ArtifactError, match="newer shoal"):
        folder.read_manifest()


def test_an_attempt_that_begins_anew_leaves_nothing_of_the_one_before(base_url):
    folder = written(base_url)
    folder.begin()
    assert not folder.is_whole
    folder.write_groups(GROUPS)
    folder.write_manifest(counts={}, device="cpu", timings_s={})
    assert [file.name for file in folder.files()] == ["centroids.parquet", "export/part-0.parquet"]


def test_a_kept_export_takes_the_place_of_the_one_before(base_url, tmp_path):
    folder = written(base_url)
    with folder.export_dir() as export:
        (export / "part-1.parquet").write_bytes(b"newer")
        assert (folder.keep_export(export) / "part-1.parquet").read_bytes() == b"newer"
    fetched = folder.fetch_export(tmp_path)
    assert [path.name for path in fetched.iterdir()] == ["part-1.parquet"]


def test_an_attempt_that_lost_its_lease_writes_nothing_more(base_url):
    lost = RunFolder(base_url, "ns_1", "clust_1", "run_1")
    lost.begin(1)
    owner = RunFolder(base_url, "ns_1", "clust_1", "run_1")
    owner.begin(2)
    owner.write_groups(GROUPS)

    with lost.export_dir() as export, pytest.raises(LeaseLostError, match="another attempt"):
        lost.keep_export(export)
    for write in (lambda: lost.write_groups([]), lambda: lost.begin(1)):
        with pytest.raises(LeaseLostError):
            write()
    assert len(owner.read_groups()) == len(GROUPS)
    owner.delete()
    with pytest.raises(LeaseLostError):
        lost.write_members(members([0]))
    assert not owner.fs.exists(f"{owner.root}/members.parquet")


def kill_while_it_exports(base_url: str, run_id: str, lease_number: int) -> None:
    """Begin an attempt in a process that ends in the middle of its export."""
    program = (
        "import os, sys; from server.results.artifacts import RunFolder\n"
        "folder = RunFolder(sys.argv[1], 'ns_1', 'clust_1', sys.argv[2])\n"
        "folder.begin(int(sys.argv[3]))\n"
        "with folder.export_dir() as export:\n"
        "    (export / 'part-0.parquet').write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    arguments = [sys.executable, "-c", program, base_url, run_id, str(lease_number)]
    assert subprocess.run(arguments, check=False).returncode == 9


def scratch_of(folder: RunFolder) -> list[Path]:
    places = (Path(folder.root), Path(tempfile.gettempdir()))
    found = [path for place in places for path in place.glob("*.shoal-*")]
    return [path for path in found if folder.is_local or path.name.startswith(folder.run_id)]


def test_what_a_killed_attempt_left_goes_when_the_next_begins(base_url):
    run_id = f"run_{uuid.uuid4().hex[:8]}"
    folder = RunFolder(base_url, "ns_1", "clust_1", run_id)
    kill_while_it_exports(base_url, run_id, 1)
    assert len(scratch_of(folder)) == 1

    folder.begin(2)
    assert scratch_of(folder) == []


def test_sweeping_leaves_the_scratch_of_a_later_attempt(base_url):
    folder = RunFolder(base_url, "ns_1", "clust_1", f"run_{uuid.uuid4().hex[:8]}")
    folder.begin(3)
    with folder.export_dir() as export:
        folder.sweep(2)
        assert export.exists()
        folder.sweep(3)
        assert not export.exists()


def test_an_attempt_that_lost_its_run_discards_nothing_of_the_next(base_url):
    lost = RunFolder(base_url, "ns_1", "clust_1", "run_1")
    lost.begin(1)
    owner = RunFolder(base_url, "ns_1", "clust_1", "run_1")
    owner.begin(2)
    owner.write_groups(GROUPS)

    lost.discard(1)
    assert len(owner.read_groups()) == len(GROUPS)
    owner.discard(2)
    assert not owner.fs.exists(owner.root)


def test_a_checkpoint_outlives_its_attempt_and_is_no_artifact(base_url):
    folder = written(base_url)
    folder.keep_checkpoint("groups", b"found")
    folder.begin(2)
    assert folder.checkpoint("groups") == b"found"
    assert folder.checkpoint("map") is None

    folder.write_groups(GROUPS)
    folder.write_manifest(counts={}, device="cpu", timings_s={})
    assert [file.name for file in folder.files()] == ["centroids.parquet", "export/part-0.parquet"]
    folder.leave(2)
    assert folder.checkpoint("groups") is None
    folder.verify()


def test_a_failed_export_of_a_remote_folder_uploads_nothing():
    folder = RunFolder(f"memory://artifacts-{uuid.uuid4().hex}", "ns_1", "clust_1", "run_1")
    folder.begin()

    def fail_half_way() -> None:
        with folder.export_dir() as export:
            (export / "part-0.parquet").write_bytes(b"half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail_half_way()
    assert folder.write_manifest(counts={}, device="cpu", timings_s={}).files == []


def test_without_a_manifest_there_are_no_artifacts(tmp_path):
    folder = RunFolder(str(tmp_path), "ns_1", "clust_1", "run_1")
    folder.write_members(members([0]))
    assert not folder.is_whole
    with pytest.raises(NotFoundError, match="run_1"):
        folder.read_manifest()


@pytest.mark.parametrize("bad", ["..", "a/b", "", ".hidden", "a\\b", "run_\x00", "x" * 129, "a\n"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_no_id_leads_out_of_the_base(tmp_path, bad, position):
    ids = ["ns_1", "clust_1", "run_1"]
    ids[position] = bad
    with pytest.raises(ArtifactError, match="is no id"):
        RunFolder(str(tmp_path), *ids)
