"""Files that commands write for their callers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.errors import InvalidRequestError, Violation

OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
]


def require_folder(path: Path) -> None:
    """Refuse a place that cannot be written to, before long work is done for it.

    Raises
    ------
    InvalidRequestError
    """
    if path.is_dir():
        raise _refused(path, "it is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise _refused(path, f"there is no folder {path.absolute().parent}")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file in place of what is there.

    Raises
    ------
    InvalidRequestError
        If the system refuses.
    """
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error


def _refused(path: Path, why: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("--output", f"{str(path)!r} cannot be written: {why}")])
