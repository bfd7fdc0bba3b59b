"""Where a run's files lie, and how attempts write there: each file whole or not at all.

Names that begin with a dot are the attempts' own and no artifacts:

    .lease               the number of the lease under which the folder was last begun
    .shoal-{number}-*    scratch of the attempt under that lease
    .checkpoint-*        a stage's outcome, for a later attempt to go on from

An attempt that is killed leaves its scratch behind. The next one removes it when it begins; what
an attempt leaves that had already lost its run goes when that run is published, by its server
once that finds the lease lost, or with the run.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from server.results.failures import ArtifactError
from server.results.fence import LEASE_FILE, Fence
from server.results.manifest import MANIFEST, ArtifactFile, digest_of

EXPORT = "export"
CHECKPOINT = ".checkpoint-"

_SCRATCH = re.compile(r"\.shoal-(\d+)-.*")
_NO_ATTEMPT = 0
"""Stands for the lease of who writes beside the attempts: copies of a finished run."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class RunStorage:
    """The folder of one run, as its attempts write to it.

    Parameters
    ----------
    base_url : str
        An fsspec URL or a local path, under which all runs lie.
    namespace_id, cluster_id, run_id : str
        As the store knows them. Anything but letters, digits, ``_`` and ``-`` is refused.
    storage_options : mapping, optional
        Handed to the fsspec file system.

    Raises
    ------
    ArtifactError
        If an id could lead out of the base folder.
    """

    def __init__(
        self,
        base_url: str,
        namespace_id: str,
        cluster_id: str,
        run_id: str,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.namespace_id = namespace_id
        self.cluster_id = cluster_id
        self.run_id = run_id
        self.fs, cluster_root = cluster_folder(base_url, namespace_id, cluster_id, storage_options)
        self.root = f"{cluster_root}/{checked_id(run_id)}"
        self._digests: dict[str, ArtifactFile] = {}
        self._fence: Fence | None = None

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's own file system."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def url(self) -> str:
        """Where the files are, for people and programs."""
        return str(self.fs.unstrip_protocol(self.root))

    @property
    def is_whole(self) -> bool:
        """Whether the manifest is there, and so everything that it names."""
        return bool(self.fs.exists(self._path(MANIFEST)))

    def begin(self, lease_number: int = 1) -> None:
        """Begin an attempt: remove what earlier ones left, but for what it may go on from.

        Raises
        ------
        LeaseLostError
            If an attempt under a later lease has begun. Every write below raises it too, once
            one has.
        """
        fence = Fence(self.fs, self.root, lease_number)
        self.fs.makedirs(self.root, exist_ok=True)
        fence.take()
        self._fence = fence
        self._digests.clear()
        if self.is_whole:
            self.fs.rm_file(self._path(MANIFEST))
        for name in self._entries():
            if name not in (EXPORT, LEASE_FILE) and not name.startswith(CHECKPOINT):
                self.fs.rm(self._path(name), recursive=True)
        self.sweep(lease_number - 1)

    def sweep(self, newest_lease: int) -> None:
        """Remove the scratch of attempts up to this lease, which were killed or have lost the run.

        Whoever of them is still at work finds its file gone instead of its lease lost.
        """
        parent, prefix = Path(self._scratch_parent()), self._scratch_prefix()
        for path in parent.glob(f"{prefix}.shoal-*"):
            found = _SCRATCH.fullmatch(path.name.removeprefix(prefix))
            if found and _NO_ATTEMPT < int(found[1]) <= newest_lease:
                shutil.rmtree(path, ignore_errors=True)  # Another may sweep, too.

    def discard(self, lease_number: int) -> None:
        """Remove what an attempt left; all files, unless a later attempt has begun."""
        if Fence(self.fs, self.root, lease_number).is_overtaken:
            self.sweep(lease_number)
        else:
            self.delete()

    def delete(self) -> None:
        """Remove all files of the run. The manifest goes first: half is never taken for whole."""
        self._digests.clear()
        if self.is_whole:
            self.fs.rm_file(self._path(MANIFEST))
        if self.fs.exists(self.root):
            self.fs.rm(self.root, recursive=True)

    @contextmanager
    def export_dir(self) -> Iterator[Path]:
        """Give a local folder to export into, which goes with the block unless it is kept."""
        with self._scratch() as scratch:
            folder = scratch / EXPORT
            folder.mkdir()
            yield folder

    def keep_export(self, folder: Path) -> Path:
        """Keep what lies in the folder of `export_dir`, in place of any earlier export.

        Returns where to read it from within the block: on a local file system it is moved in
        one step, elsewhere it is uploaded, and the local files stay.
        """
        self._check_fence()
        self._remove_export()
        if self.is_local:
            kept = Path(self._path(EXPORT))
            folder.rename(kept)
            return kept
        # The word that it is whole comes last; names with a dot sort first.
        for path in sorted((p for p in folder.iterdir()), reverse=True):
            self.fs.makedirs(self._path(EXPORT), exist_ok=True)
            self.fs.put_file(str(path), self._path(f"{EXPORT}/{path.name}"))
        return folder

    def fetch_export(self, folder: Path) -> Path:
        """Give a local folder with the export that was kept before; an empty one if none was."""
        if self.is_local:
            return Path(self._path(EXPORT))
        if self.fs.exists(self._path(EXPORT)):
            for path in self.fs.ls(self._path(EXPORT), detail=False):
                self.fs.get_file(path, str(folder / path.rpartition("/")[2]))
        return folder

    def adopt_export(self, path: Path, sha256: str) -> None:
        """Take over the checksum that the export's writer took, instead of reading it again."""
        name = f"{EXPORT}/{path.name}"
        self._digests[name] = ArtifactFile(name=name, size_bytes=path.stat().st_size, sha256=sha256)

    def keep_checkpoint(self, name: str, content: bytes) -> None:
        """Keep a stage's outcome for the attempts to come."""
        self._write(f"{CHECKPOINT}{name}", lambda sink: write_all(sink, content))

    def checkpoint(self, name: str) -> bytes | None:
        """Give what `keep_checkpoint` kept; None where there is none."""
        return self.read_copy(f"{CHECKPOINT}{name}")

    def leave(self, lease_number: int) -> None:
        """End the attempts of a run that is published: remove what only they needed."""
        for name in self._entries():
            if name.startswith(CHECKPOINT):
                self.fs.rm_file(self._path(name))
        self.sweep(lease_number)

    def read_copy(self, name: str) -> bytes | None:
        """Read a small file; None where there is none."""
        try:
            return bytes(self.fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def _entries(self) -> list[str]:
        """Name what lies directly in the folder."""
        if not self.fs.exists(self.root):
            return []
        paths = self.fs.ls(self.root, detail=False)
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def _names(self) -> list[str]:
        """Name all files but the attempts' own."""
        names = [path[len(self.root) + 1 :] for path in self.fs.find(self.root)]
        return [name for name in names if not any(p.startswith(".") for p in name.split("/"))]

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _remove_export(self) -> None:
        if self.fs.exists(self._path(EXPORT)):
            self.fs.rm(self._path(EXPORT), recursive=True)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give a folder of this attempt, on the run's own disk: a rename is then enough."""
        lease = _NO_ATTEMPT if self._fence is None else self._fence.number
        parent = Path(self._scratch_parent())
        parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{self._scratch_prefix()}.shoal-{lease}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as scratch:
            yield Path(scratch)

    def _scratch_parent(self) -> str:
        return self.root if self.is_local else tempfile.gettempdir()

    def _scratch_prefix(self) -> str:
        """Tell runs apart where all have one place for their scratch."""
        return "" if self.is_local else self.run_id

    def _write(self, name: str, write: Callable[[BinaryIO], None]) -> None:
        with self._scratch() as scratch:
            path = scratch / "content"
            with path.open("wb") as sink:
                write(sink)
                sink.flush()
                os.fsync(sink.fileno())
            self._upload(path, name)

    def _check_fence(self) -> None:
        if self._fence is not None:
            self._fence.check()

    def _upload(self, path: Path, name: str) -> None:
        with path.open("rb") as source:
            self._digests[name] = digest_of(source, name)
        self._check_fence()
        self.fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
        if self.is_local:
            shutil.move(path, self._path(name))
            return
        self.fs.put_file(str(path), self._path(name))

    def _digest(self, name: str) -> ArtifactFile:
        if name not in self._digests:
            with self.fs.open(self._path(name), "rb") as source:
                self._digests[name] = digest_of(source, name)
        return self._digests[name]


def cluster_folder(
    base_url: str,
    namespace_id: str,
    cluster_id: str,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[AbstractFileSystem, str]:
    """Give the file system and the path under which all runs of a cluster lie."""
    # Other processes write here, too: a remembered listing would hide what they did.
    options = {"use_listings_cache": False, **(storage_options or {})}
    fs, base = fsspec.core.url_to_fs(base_url, **options)
    return fs, "/".join([base.rstrip("/"), checked_id(namespace_id), checked_id(cluster_id)])


def checked_id(value: str) -> str:
    """Let only ids through that stay within the folder they name."""
    if not _ID.fullmatch(value):
        raise ArtifactError(
            f"{value!r} is no id; letters, digits, '_' and '-' are allowed, at most 128"
        )
    return value


def write_all(sink: BinaryIO, content: bytes) -> None:
    """Write some bytes."""
    sink.write(content)
