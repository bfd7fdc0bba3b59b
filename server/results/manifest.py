"""The manifest of a run's files: what there is, how large, and its SHA-256."""

from __future__ import annotations

import hashlib
from datetime import datetime
from importlib import metadata
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.results.failures import ArtifactError

MANIFEST = "manifest.json"
MANIFEST_SCHEMA_VERSION = 1
_HASH_CHUNK_BYTES = 1 << 20
_LIBRARIES = ("numpy", "pyarrow", "scikit-learn", "faiss-cpu", "qdrant-client", "cuml-cu13")


class ArtifactFile(BaseModel):
    """One file of a run: its path within the run's folder, its size and its SHA-256."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a run left behind and how it came to be."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = MANIFEST_SCHEMA_VERSION
    namespace_id: str
    cluster_id: str
    run_id: str
    created_at: datetime
    counts: dict[str, int] = Field(default_factory=dict)
    device: str = ""
    timings_s: dict[str, float] = Field(default_factory=dict)
    libraries: dict[str, str] = Field(default_factory=dict)
    files: list[ArtifactFile] = Field(default_factory=list)
    export_removed: bool = False


def library_versions() -> dict[str, str]:
    """Give the versions of the libraries that decide a result, those that are installed."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def parse_manifest(text: bytes, run_id: str) -> Manifest:
    """Read a manifest's JSON.

    Raises
    ------
    ArtifactError
        If it cannot be understood: damaged, or written by a newer version.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(f"{MANIFEST} of {run_id} is damaged: {error}") from error
    if manifest.schema_version > MANIFEST_SCHEMA_VERSION:
        raise ArtifactError(
            f"{MANIFEST} of {run_id} has version {manifest.schema_version}, this server "
            f"reads up to {MANIFEST_SCHEMA_VERSION}; read it with a newer shoal"
        )
    return manifest


def digest_of(source: BinaryIO, name: str) -> ArtifactFile:
    """Take the size and the SHA-256 of a file, read to its end."""
    digest = hashlib.sha256()
    size_bytes = 0
    while chunk := source.read(_HASH_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    return ArtifactFile(name=name, size_bytes=size_bytes, sha256=digest.hexdigest())
