"""The files of a run: export, members, centroids, and the manifest that makes them whole.

``{base}/{namespace_id}/{cluster_id}/{run_id}/`` on any fsspec file system. The manifest is
written last and at once, so its presence means that every file it names is complete; a
folder without one is the leftover of a run that did not get that far.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from server.errors import NotFoundError
from server.results.failures import ArtifactError
from server.results.groups import NOISE_ID, SUBGROUP, Group
from server.results.manifest import (
    MANIFEST,
    ArtifactFile,
    Manifest,
    library_versions,
    parse_manifest,
)
from server.results.storage import EXPORT, RunStorage, write_all
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


class RunFolder(RunStorage):
    """The folder of one run: what it has for readers, beside how attempts write to it."""

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
        self._write(FIGURES, lambda sink: write_all(sink, text))

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

    def _gone(self, name: str) -> NotFoundError:
        return NotFoundError(
            "artifacts of run", self.run_id, f"{name} is not there; they may have been retired"
        )

    def _put_manifest(self, manifest: Manifest) -> None:
        text = manifest.model_dump_json(indent=2).encode()
        self._write(MANIFEST, lambda sink: write_all(sink, text))

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


def _nearest_first(
    file: pq.ParquetFile, slices: Sequence[tuple[int, int]], columns: Sequence[str] | None
) -> pa.Table:
    """Read several slices as one, by distance."""
    table = pa.concat_tables([read_rows(file, start, n, None) for start, n in slices])
    ordered = table.sort_by("distance_to_centroid")
    return ordered if columns is None else ordered.select(list(columns))
