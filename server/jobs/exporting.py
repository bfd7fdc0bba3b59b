"""Says where a run's files are, in the format that is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from weakref import WeakValueDictionary

from server.jobs.findings import Findings
from server.jobs.model import ClusterRecord, RunRecord
from server.results.copies import FileForOthers, Format, files_for_others
from server.tenancy import Caller


@dataclass(frozen=True)
class Exported:
    """A run's files in one format; their names are paths below `url`."""

    cluster: ClusterRecord
    run: RunRecord
    format: Format
    url: str
    files: list[FileForOthers]


class Exports:
    """Lists the files of runs, and converts tables where that was not done before."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        # Two at once would make the same copies; this only saves the second one the work.
        self._locks: WeakValueDictionary[tuple[str, Format], asyncio.Lock] = WeakValueDictionary()

    async def export(
        self, caller: Caller, id_or_name: str, run_id: str, format: Format
    ) -> Exported:
        """Give a finished run's files.

        Raises
        ------
        NoResultsError
            If the run has no groups.
        NotFoundError
            If its artifacts were retired.
        """
        cluster, run = await self._findings.finished(caller, id_or_name, run_id)
        folder = self._findings.folder(cluster, run)
        async with self._locks.setdefault((run.run_id, format), asyncio.Lock()):
            files = await asyncio.to_thread(files_for_others, folder, format, run.renamed)
        return Exported(cluster, run, format, folder.url, files)
