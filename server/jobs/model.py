"""What the job store keeps: clusters with their runs, and the events of a run.

A cluster and its runs are ONE document, because a single MongoDB server has no
transactions: a change of state is one conditional replace of that document
(`ClusterRecord.revision` is the condition). The moves that are legal are in `moves.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from server.jobs.definition import ClusterDefinition

SCHEMA_VERSION = 1

RunStatus = Literal["pending", "processing", "completed", "failed", "canceled"]
ACTIVE_STATUSES: tuple[RunStatus, ...] = ("pending", "processing")
FINAL_STATUSES: frozenset[RunStatus] = frozenset({"completed", "failed", "canceled"})

Stage = Literal["export", "load", "preprocess", "cluster", "summarize", "label", "write"]
STAGES: tuple[Stage, ...] = (
    "export",
    "load",
    "preprocess",
    "cluster",
    "summarize",
    "label",
    "write",
)
PUBLISH = "publish"
"""What follows the stages: outputs are switched, or source documents enriched."""

ClusterStatus = Literal[
    "DRAFT",
    "PENDING",
    "IN_PROGRESS",
    "PROCESSING",
    "COMPLETED",
    "COMPLETED_WITH_ERRORS",
    "FAILED",
    "CANCELED",
    "SKIPPED",
    "ARCHIVED",
    "ACTIVE",
    "SUSPENDED",
    "UNKNOWN",
]


class Record(BaseModel):
    """Base of stored records: unknown fields are kept out loudly, times are aware (UTC)."""

    # NaN and infinity stay what they are in metrics; JSON's null would be another value.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Lease(Record):
    """Who works on a run, and until when without a word from them it is still theirs.

    `number` grows with every claim. A writer that shows an older number has lost the run.
    """

    owner: str
    number: int
    expires_at: datetime


class RunError(Record):
    """Why a run failed: `reason` is stable for programs, `message` is for people."""

    reason: str
    message: str


class OutputCollection(Record):
    """One output collection: `name` is what readers use, `generation` holds the points."""

    collection_id: str
    name: str
    generation: str
    feature: str | None = None


class RunResult(Record):
    """What a run found; written at its commit, never changed after."""

    algorithm: str
    num_clusters: int
    num_documents: int
    num_noise: int = 0
    device: str = "cpu"
    device_reason: str = ""
    effective_params: dict[str, Any] = Field(default_factory=dict)
    feature_uris: list[str] = Field(default_factory=list)
    distance: str = ""
    learned_weights: dict[str, float] | None = None
    learning_quality_score: float | None = None
    hierarchy_relationships: list[dict[str, Any]] = Field(default_factory=list)
    quality_metrics: dict[str, Any] = Field(default_factory=dict)
    timings_s: dict[str, float] = Field(default_factory=dict)
    timeline: dict[str, list[list[float]]] = Field(default_factory=dict)
    outputs: list[OutputCollection] = Field(default_factory=list)
    artifacts_url: str = ""
    source_bucket_ids: list[str] = Field(default_factory=list)
    labeling_errors: list[str] = Field(default_factory=list)
    labeling_usage: dict[str, Any] = Field(default_factory=dict)
    skipped_reason: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)


class ParentGroup(Record):
    """The group of a finished run of another job, whose members alone are clustered."""

    cluster_id: str
    run_id: str
    group_id: str


class GroupNames(Record):
    """What a caller calls one group of a run, in place of what the run called it.

    None, and no keywords: as the run called it. An empty summary takes the run's away.
    """

    cluster_id: str
    label: str | None = None
    summary: str | None = None
    keywords: list[str] = Field(default_factory=list)


class DefinedRecord(Record):
    """A record with a definition, which is stored as it was sent: defaults are not part of it."""

    definition: ClusterDefinition

    @field_serializer("definition")
    def _as_sent(self, definition: ClusterDefinition) -> dict[str, Any]:
        return definition.model_dump(mode="json", exclude_unset=True)


class RunRecord(DefinedRecord):
    """One execution of a cluster's definition.

    `definition` is what this run started with, overrides included: a later PATCH of the
    cluster does not touch it. `committed_at` is the point after which the run can only go
    forward: its results are whole and being published, by whoever holds the lease. `renamed`
    lies over the names in its artifacts, which never change. `traceparent` names the span of
    the call that asked for it, where that is traced.
    """

    run_id: str
    task_id: str
    mode: Literal["full", "assign"] = "full"
    assignment_threshold: float | None = None
    within: ParentGroup | None = None
    request_id: str | None = None
    request_sha256: str | None = None
    traceparent: str | None = None
    status: RunStatus = "pending"
    stage: Stage | None = None
    queued_at: datetime
    started_at: datetime | None = None
    committed_at: datetime | None = None
    finished_at: datetime | None = None
    lease: Lease | None = None
    attempts: int = 0
    cancel_requested: bool = False
    warnings: list[str] = Field(default_factory=list)
    result: RunResult | None = None
    renamed: list[GroupNames] = Field(default_factory=list)
    error: RunError | None = None

    @property
    def is_final(self) -> bool:
        """Whether no later state can follow."""
        return self.status in FINAL_STATUSES

    @property
    def timings_s(self) -> dict[str, float]:
        """Seconds of each stage, and from the commit until everybody saw the results."""
        if self.result is None:
            return {}
        if self.committed_at is None or self.finished_at is None:
            return self.result.timings_s
        published = (self.finished_at - self.committed_at).total_seconds()
        return {**self.result.timings_s, PUBLISH: published}

    @property
    def timeline(self) -> dict[str, list[list[float]]]:
        """When each stage was at work: begins and ends, in seconds since the run's start."""
        if self.result is None or not self.result.timeline:
            return {}
        moments = (self.started_at, self.committed_at, self.finished_at)
        start, *published = [moment for moment in moments if moment is not None]
        if len(published) < 2:
            return self.result.timeline
        span = [(moment - start).total_seconds() for moment in published]
        return {**self.result.timeline, PUBLISH: [span]}

    @property
    def is_skipped(self) -> bool:
        """Whether the filter left too few documents, so that nothing was clustered."""
        return self.result is not None and self.result.skipped_reason is not None


class ClusterRecord(DefinedRecord):
    """A clustering job: its definition and its runs, oldest first."""

    schema_version: int = SCHEMA_VERSION
    cluster_id: str
    organization_id: str
    namespace_id: str
    cluster_name: str
    created_at: datetime
    updated_at: datetime
    archived: bool = False
    revision: int = 0
    request_id: str | None = None
    request_sha256: str | None = None
    child_cluster_ids: list[str] = Field(default_factory=list)
    runs: list[RunRecord] = Field(default_factory=list)

    @property
    def newest_run(self) -> RunRecord | None:
        """The run that `status` speaks of."""
        return self.runs[-1] if self.runs else None

    @property
    def newest_success(self) -> RunRecord | None:
        """The newest completed run that found something: counts and outputs are its own."""
        completed = [run for run in self.runs if run.status == "completed" and not run.is_skipped]
        return completed[-1] if completed else None

    @property
    def status(self) -> ClusterStatus:
        """The seed's upper-case word, from the newest run."""
        if self.archived:
            return "ARCHIVED"
        run = self.newest_run
        if run is None:
            return "DRAFT"
        return run_status_word(run)

    def run(self, run_id: str) -> RunRecord | None:
        """Find a run of this cluster by its id."""
        return next((run for run in self.runs if run.run_id == run_id), None)


def run_status_word(run: RunRecord) -> ClusterStatus:
    """Say a run's state in the upper-case words of Cluster and Task."""
    if run.status == "pending":
        return "PENDING"
    if run.status == "processing":
        return "IN_PROGRESS" if run.stage in (None, "export") else "PROCESSING"
    if run.status == "failed":
        return "FAILED"
    if run.status == "canceled":
        return "CANCELED"
    if run.is_skipped:
        return "SKIPPED"
    has_errors = run.result is not None and run.result.labeling_errors
    return "COMPLETED_WITH_ERRORS" if has_errors else "COMPLETED"


class EventRecord(Record):
    """One numbered thing that happened to a run; see ExecutionEvent in the contract.

    `sequence` is 0 until the store has numbered it.
    """

    run_id: str
    sequence: int = 0
    status: RunStatus
    stage: Stage | None = None
    stage_progress: float | None = None
    processed: int | None = None
    total: int | None = None
    message: str = ""
    device: str | None = None
    device_reason: str | None = None
    occurred_at: datetime
    warnings: list[str] = Field(default_factory=list)
    error: RunError | None = None

    @property
    def is_final(self) -> bool:
        """Whether the stream ends with this event."""
        return self.status in FINAL_STATUSES


Role = Literal["read", "write", "admin"]


class NamespaceRecord(Record):
    """A tenant's space. `collection_template` is fixed at birth, so names never move.

    The first namespace of a server reads Qdrant collections by their own names
    (``{collection_id}``), later ones by ``{namespace_id}__{collection_id}``. A collection
    id cannot contain ``__``, so no two namespaces can meet in one name.
    """

    namespace_id: str
    organization_id: str
    name: str
    collection_template: str
    created_at: datetime


class KeyRecord(Record):
    """An API key as stored: never the key, only its SHA-256."""

    key_id: str
    sha256: str
    organization_id: str
    role: Role
    namespace_ids: list[str]
    description: str = ""
    created_at: datetime
    revoked_at: datetime | None = None
