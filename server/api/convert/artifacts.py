"""The files of a run out, and the format that is asked for in."""

from __future__ import annotations

from collections.abc import Iterator

from clusters.v1 import artifact_pb2

from server.errors import Violation
from server.jobs.exporting import Exported
from server.results.copies import FORMATS, Format


def faults_of_format(request: artifact_pb2.ExportExecutionRequest) -> Iterator[Violation]:
    """Refuse a format that there is not."""
    if request.HasField("format") and request.format not in FORMATS:
        yield Violation("format", f"sent {request.format!r}; allowed: {', '.join(FORMATS)}")


def format_of(request: artifact_pb2.ExportExecutionRequest) -> Format:
    """Give the format that is asked for: parquet unless another is."""
    return next((known for known in FORMATS if known == request.format), "parquet")


def exported_to_pb(exported: Exported) -> artifact_pb2.ExportExecutionResponse:
    """Give the files of a run."""
    return artifact_pb2.ExportExecutionResponse(
        cluster_id=exported.cluster.cluster_id,
        run_id=exported.run.run_id,
        format=exported.format,
        artifacts_url=exported.url,
        artifacts=[
            artifact_pb2.Artifact(
                name=file.name,
                url=f"{exported.url}/{file.name}",
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                rows=file.rows,
            )
            for file in exported.files
        ],
    )
