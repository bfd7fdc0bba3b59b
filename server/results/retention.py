"""Which runs' artifacts stay, and the sweeping of those that do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import NotFoundError
from server.results.artifacts import RunFolder
from server.results.storage import cluster_folder

DEFAULT_KEEP_RUNS = 3


@dataclass(frozen=True)
class Retired:
    """What retention removed: whole runs, and exports of runs that stay."""

    runs: tuple[str, ...]
    exports: tuple[str, ...]


def apply_retention(
    base_url: str,
    namespace_id: str,
    cluster_id: str,
    runs_newest_first: Sequence[str],
    *,
    keep_runs: int = DEFAULT_KEEP_RUNS,
    in_work: Collection[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> Retired:
    """Keep the newest runs of a cluster and the export of the newest; remove all else.

    Parameters
    ----------
    runs_newest_first : sequence of str
        Ids of the completed runs; only the store knows their order.
    keep_runs : int
        How many of them stay, at least 1.
    in_work : collection of str
        Runs that somebody is writing now; untouched. A folder that is in neither list is
        the leftover of a dead run and goes.
    """
    if keep_runs < 1:
        raise ValueError(f"keep_runs is {keep_runs}; at least 1 is allowed")
    options = storage_options or {}
    kept = list(runs_newest_first[:keep_runs])
    removed = []
    for run_id in _runs_on_disk(base_url, namespace_id, cluster_id, options):
        if run_id not in kept and run_id not in in_work:
            RunFolder(base_url, namespace_id, cluster_id, run_id, options).delete()
            removed.append(run_id)
    dropped = [
        run_id
        for run_id in kept[1:]
        if _drop_export(RunFolder(base_url, namespace_id, cluster_id, run_id, options))
    ]
    return Retired(runs=tuple(removed), exports=tuple(dropped))


def delete_cluster_artifacts(
    base_url: str,
    namespace_id: str,
    cluster_id: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> int:
    """Remove all runs of a cluster; give how many there were. Repeating it is harmless."""
    options = storage_options or {}
    runs = _runs_on_disk(base_url, namespace_id, cluster_id, options)
    for run_id in runs:
        RunFolder(base_url, namespace_id, cluster_id, run_id, options).delete()
    fs, root = cluster_folder(base_url, namespace_id, cluster_id, options)
    if fs.exists(root):
        fs.rm(root, recursive=True)
    return len(runs)


def _runs_on_disk(
    base_url: str, namespace_id: str, cluster_id: str, options: Mapping[str, Any]
) -> list[str]:
    fs, root = cluster_folder(base_url, namespace_id, cluster_id, options)
    if not fs.exists(root):
        return []
    entries = fs.ls(root, detail=True)
    return sorted(
        entry["name"].rstrip("/").rpartition("/")[2]
        for entry in entries
        if entry["type"] == "directory"
    )


def _drop_export(folder: RunFolder) -> bool:
    try:
        return folder.drop_export()
    except NotFoundError:
        # A run older than the artifacts' base folder, or retired by hand: nothing to drop.
        return False
