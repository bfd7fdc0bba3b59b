"""What a worker is handed to do a run, what it tells meanwhile, and what it gives back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from server import tracing
from server.jobs.definition import ClusterDefinition
from server.jobs.model import OutputCollection, ParentGroup, RunRecord, RunResult, Stage
from server.labeling.settings import LabelingSettings
from server.qdrant.client import QdrantAddress
from server.tracing import TraceLink, Tracing

REPORT_EVERY_S = 0.25
"""Progress inside a stage is told at most this often; its start and end always."""

DEFAULT_ASSIGNMENT_THRESHOLD = 0.5
"""Least cosine similarity for an assignment, where its caller names none."""

Device = Literal["auto", "gpu", "cpu"]


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run needs besides its data; travels to the worker.

    Attributes
    ----------
    qdrant_names : tuple of str
        The inputs' names in Qdrant, in the order of the definition's collection_ids.
    outputs : tuple of OutputCollection
        Where groups and members go; none when the sources are enriched.
    labeling : LabelingSettings
        The language models that may be asked, with their keys; never shown.
    label_cache : str
        Folder of the replies that are kept.
    within : ParentGroup or None
        The group of another job whose members alone are clustered.
    previous_run_ids : tuple of str
        Earlier runs of the cluster; fields they wrote into documents may be taken away.
    earlier_successes : tuple of str
        Earlier runs that found groups, newest first: their artifacts are kept or retired, and
        the newest one's members are compared with the new ones when sources are enriched.
    assign_to : RunRecord or None
        In mode assign the run whose groups new documents are given to.
    assignment_threshold : float
        Least cosine similarity to a centroid for that.
    n_threads : int or None
        Cores that the run may use; None: all of its worker's.
    lease_number : int
        Of the attempt: what it writes gives way to that of a later one.
    result : RunResult or None
        What was committed; set once the run only needs to be published.
    spread_above_bytes : int or None
        Vectors that take more are clustered by k-means on several workers of a Dask cluster; None
        where there is none.
    trace : TraceLink or None
        Where the run's spans go; None while nothing is traced.
    started_at : datetime or None
        When the run was first claimed; None: it begins now.
    """

    namespace_id: str
    cluster_id: str
    run_id: str
    definition: ClusterDefinition
    qdrant: QdrantAddress
    qdrant_names: tuple[str, ...]
    artifacts_url: str
    outputs: tuple[OutputCollection, ...]
    labeling: LabelingSettings = field(default_factory=LabelingSettings)
    label_cache: str = ""
    device: Device = "auto"
    within: ParentGroup | None = None
    keep_runs: int = 3
    previous_run_ids: tuple[str, ...] = ()
    earlier_successes: tuple[str, ...] = ()
    assign_to: RunRecord | None = None
    assignment_threshold: float = DEFAULT_ASSIGNMENT_THRESHOLD
    n_threads: int | None = None
    lease_number: int = 1
    result: RunResult | None = None
    spread_above_bytes: int | None = None
    trace: TraceLink | None = None
    started_at: datetime | None = None


@dataclass(frozen=True)
class Prepared:
    """A run's results, whole and staged, ready to be committed."""

    result: RunResult
    warnings: list[str]


@dataclass(frozen=True)
class Progress:
    """One thing a worker tells: where it is, how far, and what it has to say.

    `share` is the done part of the stage, 0 to 1, or None while it cannot be known.
    `device_memory` has the GPU's used and total bytes, for the server's metrics.
    """

    stage: Stage | None = None
    share: float | None = None
    processed: int | None = None
    total: int | None = None
    message: str = ""
    device: str | None = None
    device_reason: str | None = None
    warnings: tuple[str, ...] = ()
    occurred_at: datetime | None = None
    device_memory: dict[str, int] | None = None

    def to_message(self) -> dict[str, Any]:
        """Give the form that travels to the server: plain values only."""
        message = asdict(self)
        message["occurred_at"] = (self.occurred_at or datetime.now(UTC)).timestamp()
        return message

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Progress:
        """Read what `to_message` gave."""
        told = datetime.fromtimestamp(round(message["occurred_at"], 3), UTC)
        return cls(**{**message, "warnings": tuple(message["warnings"]), "occurred_at": told})


Report = Callable[[dict[str, Any]], None]


@dataclass
class StageClock:
    """Walks a run through its stages: tells where it is, and measures each.

    A run is told to be in one stage at a time, and the stages come in order. What is done ahead
    for a later stage (`ahead`), or still for an earlier one, counts for that stage's seconds, so
    that those of all stages may add up to more than the run took; it is told of only while
    the run is in that stage.

    `device_memory` is asked at the end of each stage; `tracing` makes each a span. `began_s` is how
    long ago the run started when its clock did. `timeline` has, for each stage, when anything of it
    was done: pairs of begin and end, in seconds since the run's start.
    """

    report: Report
    device_memory: Callable[[], dict[str, int] | None] = lambda: None
    tracing: Tracing = tracing.OFF
    began_s: float = 0.0
    timeline: dict[str, list[list[float]]] = field(default_factory=dict)
    _zero: float = field(default_factory=lambda: time.perf_counter())
    _present: Stage | None = None
    _told_at: float = 0.0
    _began: dict[Stage, tuple[int, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def timings_s(self) -> dict[str, float]:
        """Give the seconds of each stage."""
        return {
            stage: sum(end - begin for begin, end in spans)
            for stage, spans in self.timeline.items()
        }

    @contextmanager
    def stage(self, stage: Stage, message: str = "") -> Iterator[StageTeller]:
        """Tell the stage's start and end, and add its seconds to the timings."""
        teller = StageTeller(self, stage)
        self._present = stage
        self.tell(Progress(stage=stage, share=0.0, message=message))
        with self._timed(stage), self.tracing.span(stage):
            yield teller
        self.tell(
            Progress(
                stage=stage, share=1.0, processed=teller.processed, total=teller.total,
                message=teller.message, device=teller.device, device_reason=teller.device_reason,
                device_memory=self.device_memory(),
            )
        )  # fmt: skip

    @contextmanager
    def ahead(self, stage: Stage) -> Iterator[StageTeller]:
        """Do a part of a stage beside the one that the run is in, from another thread."""
        with self._timed(stage), self.tracing.span(f"{stage} ahead"):
            yield StageTeller(self, stage)

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        """Note when anything of the stage is done, each moment once."""
        with self._lock:
            n_parts, began = self._began.get(stage, (0, time.perf_counter()))
            self._began[stage] = n_parts + 1, began
        try:
            yield
        finally:
            with self._lock:
                n_parts, began = self._began.pop(stage)
                if n_parts > 1:
                    self._began[stage] = n_parts - 1, began
                else:
                    span = [self._since_start(began), self._since_start(time.perf_counter())]
                    self.timeline.setdefault(stage, []).append(span)

    def _since_start(self, moment: float) -> float:
        return round(self.began_s + moment - self._zero, 6)

    def tell(self, progress: Progress) -> None:
        """Send one report at once, unless it is of a stage that the run is not in."""
        if progress.stage != self._present:
            return
        self._told_at = time.monotonic()
        self.report(progress.to_message())

    def tell_sometimes(self, progress: Progress) -> None:
        """Send one report unless the last one was a moment ago."""
        if time.monotonic() - self._told_at >= REPORT_EVERY_S:
            self.tell(progress)


@dataclass
class StageTeller:
    """What a stage reports while it runs, and the words of its end."""

    clock: StageClock
    name: Stage
    processed: int | None = None
    total: int | None = None
    message: str = ""
    device: str | None = None
    device_reason: str | None = None

    def say(self, message: str) -> None:
        """Report at once something that is worth an event of its own."""
        self.clock.tell(Progress(stage=self.name, message=message))

    def share(self, share: float) -> None:
        """Report the done part of the stage, 0 to 1."""
        self.clock.tell_sometimes(Progress(stage=self.name, share=min(max(share, 0.0), 1.0)))

    def count(self, processed: int, total: int | None = None) -> None:
        """Report how many of how many documents are through."""
        self.processed, self.total = processed, total
        share = min(processed / total, 1.0) if total else None
        self.clock.tell_sometimes(
            Progress(stage=self.name, share=share, processed=processed, total=total)
        )
