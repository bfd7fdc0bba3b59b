"""Goes on from what an earlier attempt of the run found, instead of looking for it again.

The groups, and the places on the map, are kept in the run's folder as they are found, each in
one file of arrays and JSON. They hold for the very export that they were found in, by its
checksums, and for the version that wrote them; a file that cannot be read costs its stages
again, nothing else. Names need no such file: the replies of language models are cached.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.export.parquet import ExportReport
from server.jobs.sources import Feature
from server.jobs.stages.grouping import DEFAULT_SEED, Found
from server.jobs.stages.loading import Documents
from server.jobs.stages.spaces import Spaces, make_spaces
from server.jobs.stages.work import Partition, Work
from server.results.groups import Group

GROUPS: Final = "groups"
MAP: Final = "map"
_VERSION: Final = 2
_TOLD: Final = "told"
_COLUMNS: Final = ("rows", "labels", "distances", "confidence")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError)

Arrays = Mapping[str, NDArray[Any]]


def keep_groups(work: Work, exported: ExportReport, found: Found) -> None:
    """Keep the groups that were found, with the warnings and the seconds so far."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, partition in enumerate(found.partitions):
        columns = {name: getattr(partition, name) for name in _COLUMNS}
        columns["centroids"] = _centroids(partition.groups)
        arrays |= {f"{k}.{number}": v for k, v in columns.items() if v is not None}
    told = {
        "partitions": [_told_of(partition) for partition in found.partitions],
        "learned_weights": found.spaces.learned_weights,
        "learning_quality_score": found.spaces.learning_quality_score,
        "relationships": found.relationships,
        "warnings": work.warnings,
        "timeline": work.clock.timeline,
    }
    _keep(work, GROUPS, exported, arrays, told)


def groups_before(work: Work, exported: ExportReport, documents: Documents) -> Found | None:
    """Give the groups that an earlier attempt found in this very export, if one did."""
    kept = _kept(work, GROUPS, exported)
    if kept is None:
        return None
    arrays, told = kept
    features = {feature.name: feature for feature in work.plan.features}
    with work.clock.stage("cluster") as stage:
        partitions = [
            _partition(number, each, arrays, features)
            for number, each in enumerate(told["partitions"])
        ]
        spaces = _spaces(work, documents, told)
        stage.device, stage.device_reason = partitions[0].device, partitions[0].device_reason
        n_groups = sum(len(partition.groups) for partition in partitions)
        stage.message = f"{n_groups:,} groups found by an earlier attempt are used"
    work.warnings += [warning for warning in told["warnings"] if warning not in work.warnings]
    work.clock.timeline = told["timeline"] | work.clock.timeline
    return Found(partitions, spaces, told["relationships"])


def keep_places(work: Work, exported: ExportReport, places: NDArray[np.float32] | None) -> None:
    """Keep where the documents lie on the map, if the run made one."""
    if places is not None:
        _keep(work, MAP, exported, {"places": places}, {})


def places_before(work: Work, exported: ExportReport) -> NDArray[np.float32] | None:
    """Give the places that an earlier attempt laid out, if one did."""
    kept = _kept(work, MAP, exported)
    return None if kept is None else kept[0]["places"]


def _keep(
    work: Work, name: str, exported: ExportReport, arrays: Arrays, told: dict[str, Any]
) -> None:
    text = json.dumps({**told, "holds_for": _holds_for(exported)}, default=_plain)
    members: dict[str, Any] = {**arrays, _TOLD: np.frombuffer(text.encode(), np.uint8)}
    sink = io.BytesIO()
    np.savez(sink, **members)
    work.folder.keep_checkpoint(name, sink.getvalue())


def _kept(work: Work, name: str, exported: ExportReport) -> tuple[Arrays, dict[str, Any]] | None:
    """Read what was kept for this export; None for what is not there, is older, or is damaged."""
    content = work.folder.checkpoint(name)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {member: file[member] for member in file.files}
        told = json.loads(arrays.pop(_TOLD).tobytes())
    except _UNREADABLE as error:
        work.warnings.append(f"the {name} of an earlier attempt cannot be read: {error}")
        return None
    return (arrays, told) if told["holds_for"] == _holds_for(exported) else None


def _holds_for(exported: ExportReport) -> dict[str, Any]:
    """Name the documents and the code that a checkpoint belongs to."""
    return {
        "version": _VERSION,
        "shoal": metadata.version("shoal"),
        "export": {Path(path).name: sha256 for path, sha256 in exported.checksums.items()},
    }


def _told_of(partition: Partition) -> dict[str, Any]:
    """Give what of a partition is no array."""
    names = ("algorithm", "device", "device_reason", "effective_params", "quality", "figures")
    return {
        **{name: getattr(partition, name) for name in (*names, "n_dims", "distance")},
        "feature": None if partition.feature is None else partition.feature.name,
        "groups": [asdict(replace(group, centroid=None)) for group in partition.groups],
    }


def _partition(
    number: int, told: dict[str, Any], arrays: Arrays, features: Mapping[str, Feature]
) -> Partition:
    columns = {name: arrays.get(f"{name}.{number}") for name in _COLUMNS}
    centroids = arrays.get(f"centroids.{number}")
    groups = [
        Group(
            **{
                **group,
                "keywords": tuple(group["keywords"]),
                "centroid": None if centroids is None else centroids[position],
            }
        )
        for position, group in enumerate(told["groups"])
    ]
    feature = None if told["feature"] is None else features[told["feature"]]
    return Partition(**{**told, **columns, "feature": feature, "groups": groups})


def _spaces(work: Work, documents: Documents, told: dict[str, Any]) -> Spaces:
    """Lay the vectors out as they were when the groups were found; none by attributes."""
    if not documents.blocks:
        return Spaces(())
    known = Spaces((), told["learned_weights"], told["learning_quality_score"])
    return make_spaces(work, documents, None, DEFAULT_SEED, known)


def _centroids(groups: list[Group]) -> NDArray[np.float32] | None:
    rows = [group.centroid for group in groups if group.centroid is not None]
    return np.array(rows, dtype=np.float32) if rows else None


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers into Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept")
