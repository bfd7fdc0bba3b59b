"""Keeps an attempt that has lost its run from writing over the next one's files.

A folder holds the number of the lease under which it was last begun. Whoever writes shows an
equal one: a worker whose server was silent, and that knows nothing of its run's new owner,
finds a higher number (or none, when the folder was discarded) and stops.
"""

from __future__ import annotations

from fsspec import AbstractFileSystem

from server.jobs.moves import LeaseLostError

LEASE_FILE = ".lease"


class Fence:
    """The lease's number in a folder.

    Parameters
    ----------
    fs, root
        The file system and the folder's path on it.
    number : int
        The lease under which this attempt works.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, number: int) -> None:
        self._fs = fs
        self._path = f"{root}/{LEASE_FILE}"
        self.number = number

    @property
    def is_overtaken(self) -> bool:
        """Whether an attempt under a later lease has begun."""
        return (self._found() or 0) > self.number

    def take(self) -> None:
        """Put the number into the folder, or raise `LeaseLostError` if a later one is there."""
        if self.is_overtaken:
            raise self._lost()
        self._fs.pipe_file(self._path, str(self.number).encode())

    def check(self) -> None:
        """Raise `LeaseLostError` unless the folder still has this number."""
        if self._found() != self.number:
            raise self._lost()

    def _found(self) -> int | None:
        try:
            return int(self._fs.cat_file(self._path))
        except (FileNotFoundError, ValueError):
            return None

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(f"another attempt writes to {self._path.rpartition('/')[0]} now")
