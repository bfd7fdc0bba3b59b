"""The files of a run: export, members, centroids, and the manifest that makes them whole.

``{base}/{namespace_id}/{cluster_id}/{run_id}/`` on any fsspec file system. The manifest is
written last and at once, so its presence means that every file it names is complete; a
folder without one is the leftover of a run that did not get that far. Names that begin with
a dot are the attempts' own and no artifacts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from server.errors import NotFoundError
from server.results.failures import ArtifactError
from server.results.fence import LEASE_FILE, Fence
from server.results.groups import NOISE_ID, SUBGROUP, Group
from server.results.manifest import (
    MANIFEST,
    ArtifactFile,
    Manifest,
    digest_of,
    library_versions,
    parse_manifest,
)
from server.results.tables import (
    groups_of,
    groups_table,
    read_rows,
    read_slices,
    write_members,
    write_parquet,
)

MEMBERS = "members.parquet"
CENTROIDS = "centroids.parquet"
FIGURES = "figures.json"
EXPORT = "export"
SCRATCH = ".shoal-"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class RunFolder:
    """The folder of one run.

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
        """Begin an attempt: remove what earlier ones of the same run left, but for their export.

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
        for path in self.fs.ls(self.root, detail=False):
            if path.rstrip("/").rpartition("/")[2] not in (EXPORT, LEASE_FILE):
                self.fs.rm(path, recursive=True)

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
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self._scratch_parent()) as scratch:
            folder = Path(scratch) / EXPORT
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

    def write_members(self, members: pa.Table) -> None:
        """Write ``members.parquet`` from a table of `members_table`."""
        self._write(MEMBERS, lambda sink: write_members(members, sink))

    def write_groups(self, groups: Sequence[Group]) -> None:
        """Write ``centroids.parquet``: one row for each group, its vector with it."""
        table = groups_table(groups)
        self._write(CENTROIDS, lambda sink: write_parquet(table, sink))

    def write_figures(self, figures: Mapping[str, Any]) -> None:
        """Write ``figures.json``: what the run's report draws."""
        text = json.dumps(figures, allow_nan=False).encode()
        self._write(FIGURES, lambda sink: _write_all(sink, text))

    def read_figures(self) -> dict[str, Any]:
        """Read what `write_figures` wrote; empty for a run of a version that wrote none."""
        text = self.read_copy(FIGURES)
        return {} if text is None else dict(json.loads(text))

    def write_manifest(
        self,
        *,
        counts: Mapping[str, int],
        device: str,
        timings_s: Mapping[str, float],
        libraries: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Take stock of the files and write the manifest, last and at once."""
        names = sorted(name for name in self._names() if name != MANIFEST)
        manifest = Manifest(
            namespace_id=self.namespace_id,
            cluster_id=self.cluster_id,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            counts=dict(counts),
            device=device,
            timings_s=dict(timings_s),
            libraries=dict(library_versions() if libraries is None else libraries),
            files=[self._digest(name) for name in names],
        )
        self._put_manifest(manifest)
        return manifest

    def add_copy(self, name: str, write: Callable[[BinaryIO], None]) -> ArtifactFile:
        """Write a file that the manifest does not name, whole or not at all.

        Two who write the same content under one name at once do each other no harm.
        """
        self._write(name, write)
        return self._digests[name]

    def read_copy(self, name: str) -> bytes | None:
        """Read a small file of `add_copy`; None where there is none."""
        try:
            return bytes(self.fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def read_manifest(self) -> Manifest:
        """Read the manifest.

        Raises
        ------
        NotFoundError
            If there is none: the run did not get that far, or its files were retired.
        ArtifactError
            If it cannot be understood.
        """
        try:
            text = self.fs.cat_file(self._path(MANIFEST))
        except FileNotFoundError as error:
            raise self._gone(MANIFEST) from error
        return parse_manifest(text, self.run_id)

    def files(self) -> list[ArtifactFile]:
        """List the files with their sizes and checksums, from the manifest."""
        return self.read_manifest().files

    def file_url(self, name: str) -> str:
        """Say where one file of `files` is."""
        return f"{self.url}/{name}"

    def verify(self) -> Manifest:
        """Check every file against the manifest.

        Raises
        ------
        ArtifactError
            Naming the first file that is missing or not what was written.
        """
        manifest = self.read_manifest()
        self._digests.clear()
        for expected in manifest.files:
            try:
                found = self._digest(expected.name)
            except FileNotFoundError as error:
                raise ArtifactError(
                    f"{expected.name} of {self.run_id} is missing; run the cluster again"
                ) from error
            if found != expected:
                raise ArtifactError(
                    f"{expected.name} of {self.run_id} is damaged: {found.size_bytes:,} bytes with "
                    f"SHA-256 {found.sha256}, the manifest says {expected.size_bytes:,} bytes with "
                    f"{expected.sha256}; run the cluster again",
                    file=expected.name,
                )
        return manifest

    def read_groups(self, *, with_centroids: bool = True) -> list[Group]:
        """Read the groups in their order; leave out the vectors where nobody needs them."""
        with self.open_parquet(CENTROIDS) as file:
            names = [n for n in file.schema_arrow.names if with_centroids or n != "centroid"]
            return groups_of(file.read(columns=names))

    def read_members(
        self,
        group_id: str | None = None,
        *,
        offset: int = 0,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read members, of one group nearest first or of all in the order of the groups.

        A group of a hierarchy has the members of all groups below it, each with the distance
        to the centroid of the group that it lies in directly.

        Raises
        ------
        NotFoundError
            If the run has no such group. A group can be there and have no members.
        """
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"offset {offset} and limit {limit} must not be negative")
        with self.open_parquet(MEMBERS) as file:
            slices = self._slices(file, group_id)
            if len(slices) > 1:
                return _nearest_first(file, slices, columns).slice(offset, limit)
            start, n_rows = slices[0]
            n_wanted = max(0, n_rows - offset)
            n_wanted = n_wanted if limit is None else min(limit, n_wanted)
            return read_rows(file, start + offset, n_wanted, columns)

    def _slices(self, file: pq.ParquetFile, group_id: str | None) -> list[tuple[int, int]]:
        """Find where the members of a group and of those below it lie; at least one slice."""
        if group_id is None:
            return [(0, file.metadata.num_rows)]
        below = f"{group_id}{SUBGROUP}"
        found = [
            place
            for name, place in read_slices(file).items()
            if name == group_id or name.startswith(below)
        ]
        if found:
            return found
        known = {group.cluster_id for group in self.read_groups(with_centroids=False)}
        # With several features each has noise of its own: `text.cl_noise`.
        is_noise = group_id is not None and group_id.split(".")[-1] == NOISE_ID
        if not is_noise and group_id not in known:
            raise NotFoundError("group", group_id, f"see ListGroups for those of {self.run_id}")
        return [(0, 0)]

    def drop_export(self) -> bool:
        """Remove the export, the manifest's word of it first; whether there was one."""
        manifest = self.read_manifest()
        kept = [file for file in manifest.files if not file.name.startswith(f"{EXPORT}/")]
        if len(kept) < len(manifest.files):
            self._put_manifest(manifest.model_copy(update={"files": kept, "export_removed": True}))
        had_one = bool(self.fs.exists(self._path(EXPORT)))
        self._remove_export()
        return had_one

    def _remove_export(self) -> None:
        if self.fs.exists(self._path(EXPORT)):
            self.fs.rm(self._path(EXPORT), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _gone(self, name: str) -> NotFoundError:
        return NotFoundError(
            "artifacts of run", self.run_id, f"{name} is not there; they may have been retired"
        )

    def _names(self) -> list[str]:
        names = [path[len(self.root) + 1 :] for path in self.fs.find(self.root)]
        return [name for name in names if not any(p.startswith(".") for p in name.split("/"))]

    def _write(self, name: str, write: Callable[[BinaryIO], None]) -> None:
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self._scratch_parent()) as scratch:
            path = Path(scratch) / "content"
            with path.open("wb") as sink:
                write(sink)
                sink.flush()
                os.fsync(sink.fileno())
            self._upload(path, name)

    def _scratch_parent(self) -> str | None:
        """Give a scratch place on the run's own disk, so that a rename is enough."""
        if not self.is_local:
            return None
        Path(self.root).mkdir(parents=True, exist_ok=True)
        return self.root

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

    def _put_manifest(self, manifest: Manifest) -> None:
        text = manifest.model_dump_json(indent=2).encode()
        self._write(MANIFEST, lambda sink: _write_all(sink, text))

    def _digest(self, name: str) -> ArtifactFile:
        if name not in self._digests:
            with self.fs.open(self._path(name), "rb") as source:
                self._digests[name] = digest_of(source, name)
        return self._digests[name]

    @contextmanager
    def open_parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """Open one of the tables.

        Raises
        ------
        NotFoundError
            If it is not there.
        ArtifactError
            If it turns out to be damaged while it is read within the block.
        """
        try:
            source = self.fs.open(self._path(name), "rb")
        except FileNotFoundError as error:
            raise self._gone(name) from error
        with source:
            try:
                yield pq.ParquetFile(source, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                raise ArtifactError(
                    f"{name} of {self.run_id} is damaged: {error}; run the cluster again",
                    file=name,
                ) from error


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


def _nearest_first(
    file: pq.ParquetFile, slices: Sequence[tuple[int, int]], columns: Sequence[str] | None
) -> pa.Table:
    """Read several slices as one, by distance."""
    table = pa.concat_tables([read_rows(file, start, n, None) for start, n in slices])
    ordered = table.sort_by("distance_to_centroid")
    return ordered if columns is None else ordered.select(list(columns))


def checked_id(value: str) -> str:
    """Let only ids through that stay within the folder they name."""
    if not _ID.fullmatch(value):
        raise ArtifactError(
            f"{value!r} is no id; letters, digits, '_' and '-' are allowed, at most 128"
        )
    return value


def _write_all(sink: BinaryIO, content: bytes) -> None:
    sink.write(content)
