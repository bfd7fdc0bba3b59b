"""From Qdrant to matrices: the export's Parquet files, read back as columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpu import device_frames, frames
from gpu.errors import TooFewPointsError
from gpu.memory import estimate, free_bytes
from gpu.params import parse_params
from gpu.vectors import is_angular, unit_rows
from server.export.filters import parse_filter
from server.export.parquet import ExportReport, ExportRequest, ExportSource, export
from server.export.seal import DamagedExportError, moved, seal, sealed
from server.jobs.spec import StageTeller
from server.jobs.stages.work import Array, Work
from server.results.artifacts import RunFolder

MEMORY_SHARE = 0.6
"""Of what is free, so much the vectors of a run on a Dask cluster may take of a worker."""

ID_COLUMNS = ["source_collection_id", "source_document_id"]


@dataclass(frozen=True)
class Documents:
    """The documents of a run, in the order of the export.

    Attributes
    ----------
    collection_ids, document_ids : pa.ChunkedArray of string
        Where each document lives.
    blocks : tuple of arrays of shape (n_documents, n_dims), float32
        Its vector for each feature.
    files : tuple of str
        The export's Parquet files, with the payload fields that were kept.
    rows : array of int64, or None
        The rows of `files` that these documents are; None for all of them.
    """

    collection_ids: pa.ChunkedArray
    document_ids: pa.ChunkedArray
    blocks: tuple[Array, ...]
    files: tuple[str, ...]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Count the documents."""
        return len(self.document_ids)


def export_documents(
    work: Work, directory: Path, payload_fields: tuple[str, ...] = ()
) -> ExportReport:
    """Export what the definition's filter leaves of its collections."""
    spec = work.spec
    request = ExportRequest(
        address=spec.qdrant,
        sources=tuple(
            ExportSource(source.collection_id, source.qdrant_name, source.vector_names)
            for source in work.plan.sources
        ),
        filter=parse_filter(spec.definition.filters) if spec.definition.filters else None,
        payload_fields=payload_fields,
        directory=str(directory),
        distance=work.plan.features[0].distance if work.plan.features else "Euclid",
    )
    names = ", ".join(spec.definition.collection_ids)
    with work.clock.stage("export", f"reading {names}") as stage:
        exported = _export_before(work, request, stage) or _export_now(work, request, stage)
        for path, sha256 in exported.checksums.items():
            work.folder.adopt_export(Path(path), sha256)
        stage.count(exported.n_documents, exported.n_documents)
    if exported.left_out.count:
        work.warnings.append(exported.left_out.describe())
    return exported


def _export_before(work: Work, request: ExportRequest, stage: StageTeller) -> ExportReport | None:
    """Give the export of an earlier attempt of this run, if one came to its end."""
    try:
        kept = sealed(request, work.folder.fetch_export(Path(request.directory)))
    except DamagedExportError as error:
        stage.say(f"the export of an earlier attempt is damaged: {error}; reading again")
        return None
    if kept is not None:
        stage.message = (
            f"{kept.n_documents:,} documents exported by an earlier attempt are used: "
            "the files agree with their checksums"
        )
    return kept


def _export_now(work: Work, request: ExportRequest, stage: StageTeller) -> ExportReport:
    """Export, and keep what is whole for this attempt and for later ones."""
    exported = export(request, progress=stage.count)
    seal(request, exported)
    folder = work.folder.keep_export(Path(request.directory))
    stage.message = f"{exported.n_documents:,} documents exported"
    return moved(exported, folder)


def load_documents(work: Work, exported: ExportReport) -> Documents:
    """Read the export back: ids as Arrow columns, vectors as matrices."""
    with work.clock.stage("load") as stage:
        ids = pa.concat_tables([pq.read_table(path, columns=ID_COLUMNS) for path in exported.files])
        blocks = _load_blocks(work, exported)
        if blocks and _only_directions_matter(work):
            blocks = (unit_rows(blocks[0], in_place=True),)
        shapes = ", ".join(f"{block.shape[0]:,} x {block.shape[1]}" for block in blocks)
        stage.message = f"{shapes} float32"
    return _within(work, Documents(ids[ID_COLUMNS[0]], ids[ID_COLUMNS[1]], blocks, exported.files))


def _load_blocks(work: Work, exported: ExportReport) -> tuple[Array, ...]:
    """Read the vectors to where the fit will run; several features, or steps, on the host."""
    if len(exported.columns) != 1 or work.config.preprocessing_steps:
        return tuple(frames.load_vectors(exported.files, column) for column in exported.columns)
    config = work.config
    params = parse_params(config.clustering_method, config.algorithm_params).params

    def needed_bytes(n_points: int, n_dims: int) -> int:
        n_clustered = min(n_points, config.sample_size or n_points)
        fit = estimate(config.clustering_method, n_clustered, n_dims, params, "gpu")
        return 4 * n_points * n_dims + fit

    if _is_beyond_memory(work, exported):
        disk = Path(exported.files[0]).parent
        return (frames.load_vectors(exported.files, exported.columns[0], disk),)
    loaded = device_frames.load_for(
        exported.files, exported.columns[0], work.spec.device, needed_bytes
    )
    work.warnings += loaded.notes
    return (loaded.vectors,)


def _is_beyond_memory(work: Work, exported: ExportReport) -> bool:
    """Whether the vectors are better kept on the disk: on a cluster a run may be that large."""
    n_bytes = 4 * exported.n_documents * sum(exported.n_dims.values())
    return work.spec.spread_above_bytes is not None and n_bytes > MEMORY_SHARE * free_bytes("cpu")


def _only_directions_matter(work: Work) -> bool:
    """Whether nothing of the run looks at the lengths of its vectors.

    Then they are scaled to 1 where they lie: else each step that needs directions would make a
    copy of the whole matrix (under Dot; Qdrant itself scales under Cosine).
    """
    config = work.config
    is_alone = len(work.plan.features) == 1
    keeps_lengths = config.preprocessing_steps or config.members_with_vectors
    return is_alone and is_angular(work.plan.features[0].metric) and not keeps_lengths


def _within(work: Work, documents: Documents) -> Documents:
    """Keep only the members of the parent group, where the job lies inside one."""
    group = work.spec.within
    if group is None:
        return documents
    folder = RunFolder(
        work.spec.artifacts_url, work.spec.namespace_id, group.cluster_id, group.run_id
    )
    members = folder.read_members(group.group_id, columns=ID_COLUMNS)
    keys = set(zip(*(members[name].to_pylist() for name in ID_COLUMNS), strict=True))
    ids = zip(documents.collection_ids.to_pylist(), documents.document_ids.to_pylist(), strict=True)
    rows = np.flatnonzero(np.fromiter((key in keys for key in ids), bool, len(documents)))
    if not len(rows):
        raise TooFewPointsError(n_points=0, needed=1)
    return Documents(
        documents.collection_ids.take(rows),
        documents.document_ids.take(rows),
        tuple(block[rows] for block in documents.blocks),
        documents.files,
        rows,
    )
