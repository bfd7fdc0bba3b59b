"""What is done while the groups are being named, which waits for a model or reads payloads.

How good the groups are does not depend on their names; nor do the output's documents, but for
one field, which they are told in the end (`server.results.renaming`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

from server.jobs.stages.grouping import Found
from server.jobs.stages.loading import Documents
from server.jobs.stages.measuring import Measured, measure
from server.jobs.stages.work import Partition, Work
from server.jobs.stages.writing import Naming, StagedOutput, stage_members

Result = TypeVar("Result")


@dataclass
class Ahead:
    """Work under way beside the stage label.

    Attributes
    ----------
    measured : Future of list of Measured
        One for each partition.
    staged : Future of list of StagedOutput
        Done when the outputs hold all members.
    """

    measured: Future[list[Measured]]
    staged: Future[list[StagedOutput]]
    _naming: Naming

    def name(self, partitions: list[Partition]) -> None:
        """Hand over the partitions under the final names of their groups."""
        self._naming.partitions = partitions


@contextmanager
def working_ahead(work: Work, documents: Documents, found: Found) -> Iterator[Ahead]:
    """Measure the groups and fill the outputs beside what the block does.

    Leaving the block waits for both. What goes wrong in the block ends the filling.
    """
    naming = Naming()
    with ThreadPoolExecutor(2, thread_name_prefix="ahead") as pool:

        def beside(function: Callable[[], Result]) -> Future[Result]:
            return pool.submit(copy_context().run, function)  # Spans find the one around them.

        try:
            yield Ahead(
                beside(lambda: _measure(work, found)),
                beside(lambda: stage_members(work, documents, found, naming)),
                naming,
            )
        except BaseException:
            naming.has_failed = True
            raise


def _measure(work: Work, found: Found) -> list[Measured]:
    with work.clock.ahead("summarize"):
        spaces = found.spaces.spaces or [None] * len(found.partitions)
        return [
            measure(work, partition, space)
            for partition, space in zip(found.partitions, spaces, strict=True)
        ]
