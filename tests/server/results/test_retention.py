"""Which runs stay, which exports stay, and that a run in work is left alone."""

from __future__ import annotations

import pytest

from server.results.artifacts import RunFolder
from server.results.failures import ArtifactError
from server.results.retention import apply_retention, delete_cluster_artifacts


def run(base_url: str, run_id: str, *, cluster_id: str = "clust_1") -> RunFolder:
    folder = RunFolder(base_url, "ns_1", cluster_id, run_id)
    folder.begin()
    with folder.export_dir() as export:
        (export / "part-0.parquet").write_bytes(b"exported")
        folder.keep_export(export)
    folder.write_groups([])
    folder.write_manifest(counts={}, device="cpu", timings_s={})
    return folder


def test_newest_runs_stay_and_only_the_newest_keeps_its_export(tmp_path):
    base_url = str(tmp_path)
    folders = {run_id: run(base_url, run_id) for run_id in ("run_1", "run_2", "run_3", "run_4")}
    order = ["run_4", "run_3", "run_2", "run_1"]

    retired = apply_retention(base_url, "ns_1", "clust_1", order, keep_runs=3)
    again = apply_retention(base_url, "ns_1", "clust_1", order, keep_runs=3)

    assert retired.runs == ("run_1",)
    assert retired.exports == ("run_3", "run_2")
    assert (again.runs, again.exports) == ((), ())
    assert not folders["run_1"].is_whole
    assert len(folders["run_4"].verify().files) == 2
    older = folders["run_3"].verify()
    assert older.export_removed
    assert [file.name for file in older.files] == ["centroids.parquet"]
    assert not (tmp_path / "ns_1" / "clust_1" / "run_3" / "export").exists()


def test_leftovers_of_dead_runs_go_and_runs_in_work_stay(tmp_path):
    base_url = str(tmp_path)
    run(base_url, "run_1")
    for run_id in ("run_dead", "run_busy"):
        RunFolder(base_url, "ns_1", "clust_1", run_id).begin()

    retired = apply_retention(base_url, "ns_1", "clust_1", ["run_1"], in_work=["run_busy"])

    assert retired.runs == ("run_dead",)
    assert sorted(p.name for p in (tmp_path / "ns_1" / "clust_1").iterdir()) == [
        "run_1",
        "run_busy",
    ]


def test_a_run_whose_files_are_gone_already_is_no_fault(tmp_path):
    run(str(tmp_path), "run_2")
    retired = apply_retention(str(tmp_path), "ns_1", "clust_1", ["run_2", "run_1"])
    assert (retired.runs, retired.exports) == ((), ())


def test_a_cluster_without_artifacts_is_no_fault(tmp_path):
    assert apply_retention(str(tmp_path), "ns_1", "clust_1", []).runs == ()
    assert delete_cluster_artifacts(str(tmp_path), "ns_1", "clust_1") == 0


def test_deleting_a_cluster_leaves_its_neighbours(tmp_path):
    run(str(tmp_path), "run_1")
    run(str(tmp_path), "run_2")
    neighbour = run(str(tmp_path), "run_1", cluster_id="clust_2")

    assert delete_cluster_artifacts(str(tmp_path), "ns_1", "clust_1") == 2

    assert not (tmp_path / "ns_1" / "clust_1").exists()
    assert neighbour.verify().run_id == "run_1"


def test_keeping_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_runs is 0"):
        apply_retention(str(tmp_path), "ns_1", "clust_1", [], keep_runs=0)


def test_deleting_does_not_follow_an_id_out_of_the_base(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(ArtifactError, match="is no id"):
        delete_cluster_artifacts(str(tmp_path / "base"), "..", "outside")
    assert outside.exists()
