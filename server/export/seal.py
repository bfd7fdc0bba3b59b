"""The word that an export is whole, so that a later attempt goes on from it.

It is the last file to be written beside the parts, and names each with its size and SHA-256.
Without it there are only leftovers; with it, and with parts that agree, the export need not
be repeated.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from server.export.parquet import ExportReport, ExportRequest

SEAL: Final = ".whole.json"
_SEAL_VERSION: Final = 1


class DamagedExportError(Exception):
    """An export is said to be whole and is not. Never leaves the stage: it exports anew."""


class _Seal(BaseModel):
    """What the file holds; the report's paths are names within the folder."""

    model_config = ConfigDict(frozen=True)

    version: int = _SEAL_VERSION
    request: str
    report: ExportReport


def seal(request: ExportRequest, report: ExportReport) -> None:
    """Write the word into the request's folder, on disk before it is in view."""
    named = _renamed(report, lambda path: Path(path).name)
    content = _Seal(request=_fingerprint(request), report=named)
    final = Path(request.directory) / SEAL
    staged = final.with_name(f"{SEAL}.tmp")
    with staged.open("wb") as file:
        file.write(content.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    staged.replace(final)


def sealed(request: ExportRequest, folder: Path) -> ExportReport | None:
    """Give the report of a whole export of the same request that lies in a folder.

    Reads every byte of it once. None: there is none, or it was made for another request.

    Raises
    ------
    DamagedExportError
        If it is said to be whole and is not; names the file.
    """
    try:
        text = (folder / SEAL).read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = _Seal.model_validate_json(text)
    except ValidationError as error:
        raise DamagedExportError(f"{SEAL} cannot be read") from error
    if content.version != _SEAL_VERSION or content.request != _fingerprint(request):
        return None
    report = moved(content.report, folder)
    for path, sha256 in report.checksums.items():
        _check(Path(path), sha256)
    return report


def _check(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedExportError(f"{path.name} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise DamagedExportError(f"{path.name} does not agree with its checksum")


def _fingerprint(request: ExportRequest) -> str:
    """Tell requests apart by what decides the rows: not by address, folder or patience."""
    decides = (request.sources, request.filter, request.payload_fields, request.distance)
    return hashlib.sha256(repr(decides).encode()).hexdigest()


def moved(report: ExportReport, folder: Path) -> ExportReport:
    """Give the report with its files in another folder."""
    return _renamed(report, lambda path: str(folder / Path(path).name))


def _renamed(report: ExportReport, name: Callable[[str], str]) -> ExportReport:
    return replace(
        report,
        files=tuple(name(path) for path in report.files),
        checksums={name(path): sha256 for path, sha256 in report.checksums.items()},
    )
