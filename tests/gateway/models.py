"""The answers as a strictly typed client declares them, from the page and the contract.

Written by hand in the manner of a generated SDK: a list that is not marked optional must be
there, a nullable scalar may be absent but is never null, and nothing is converted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Struct = dict[str, Any]
RunStatus = Literal["pending", "processing", "completed", "failed", "canceled"]
Status = Literal[
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
]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class Cluster(Strict):
    cluster_name: str
    namespace_id: str
    organization_id: str
    input_collections: list[str]
    cluster_type: Literal["vector", "attribute"]
    cluster_id: str
    source_bucket_ids: list[str]
    filters: Struct = {}
    feature_uris: list[str]
    multi_feature_strategy: str = ""
    learned_weights: Struct = {}
    learning_quality_score: float = 0.0
    effective_feature_method: str = ""
    clustered_attributes: list[str]
    hierarchical_grouping: bool = False
    aggregation_method: str = ""
    output_collection_ids: list[str]
    output_collection_names: list[str]
    algorithm: str = ""
    algorithm_params: Struct = {}
    enrich_source: bool
    source_enrichment_config: Struct = {}
    llm_labeling: Struct = {}
    num_clusters: int = 0
    num_documents_clustered: int = 0
    execution_time_seconds: float = 0.0
    hierarchy_detected: bool
    parent_cluster_id: str = ""
    child_cluster_ids: list[str]
    hierarchy_relationships: list[Struct]
    status: Status
    last_execution_task_id: str = ""
    created_at: datetime
    updated_at: datetime
    last_executed_at: datetime | None = None
    completed_at: datetime | None = None
    llm_labeling_errors: list[str]
    metadata: Struct = {}
    last_run_id: str = ""
    warnings: list[str]


class Task(Strict):
    task_id: str
    task_type: Literal["engine_cluster_build"]
    status: Status
    inputs: list[str]
    outputs: list[str]
    additional_data: Struct
    error: str = ""
    namespace_id: str
    created_at: datetime


class Group(Strict):
    cluster_id: str
    label: str
    summary: str = ""
    keywords: list[str]
    member_count: int
    parent_cluster_id: str = ""
    vector: list[float]


class ErrorInfo(Strict):
    reason: str
    domain: str


NO_ERROR = ErrorInfo(reason="", domain="")


class Member(Strict):
    rank: int
    cluster_id: str
    cluster_label: str
    source_collection_id: str
    source_document_id: str
    distance_to_centroid: float = 0.0
    confidence: float = 0.0
    error: str = ""
    error_info: ErrorInfo = NO_ERROR


class Execution(Strict):
    run_id: str
    cluster_id: str
    task_id: str
    status: RunStatus
    mode: Literal["full", "assign"]
    created_at: datetime
    num_clusters: int = 0
    num_documents: int = 0
    warnings: list[str]
    llm_labeling_errors: list[str]
    output_collection_ids: list[str]
    output_collection_names: list[str]
    hierarchy_relationships: list[Struct]
    centroids: list[Group]


class Event(Strict):
    sequence: int
    run_id: str
    status: RunStatus
    stage: str = ""
    stage_progress: float = 0.0
    message: str
    occurred_at: datetime
    warnings: list[str]
    error: str = ""
    error_info: ErrorInfo = NO_ERROR
    heartbeat: bool
    cluster: Cluster | None = None


class Pagination(Strict):
    total: int = 0
    page: int
    page_size: int
    total_pages: int = 0
    next_cursor: str = ""
    has_next: bool


class Stats(Strict):
    total: int
    by_status: dict[str, int]


T = TypeVar("T")


class Page(Strict, Generic[T]):
    results: list[T]
    pagination: Pagination
    total_count: int


class PageWithStats(Page[T], Generic[T]):
    stats: Stats


class Groups(Strict):
    groups: list[Group]
    pagination: Pagination
    total_count: int
    run_id: str


class RenamedGroups(Strict):
    cluster_id: str
    run_id: str
    groups: list[Group]


class Deleted(Strict):
    cluster_id: str
    deleted_output_collection_ids: list[str]
    deleted_run_ids: list[str]
    artifacts_deleted: bool
    canceled_run_id: str = ""


class Artifact(Strict):
    name: str
    url: str
    size_bytes: float
    sha256: str
    rows: int = 0


class Exported(Strict):
    cluster_id: str
    run_id: str
    format: Literal["parquet", "csv", "jsonl"]
    artifacts_url: str
    artifacts: list[Artifact]


class Enriched(Strict):
    cluster_id: str
    run_id: str
    collection_id: str
    processed: int
    enriched: int
    failed: int
    batches: int
    warnings: list[str]


class Point(Strict):
    x: float
    y: float
    cluster_id: str
    source_collection_id: str
    source_document_id: str


class Visualization(Strict):
    cluster_id: str
    run_id: str
    points: list[Point]
    centroids: list[Group]
    total_points: int
    dimensions: int
    html: str | None = None


class Violation(Strict):
    field: str
    description: str


class ErrorDetails(Strict):
    model_config = ConfigDict(extra="allow")
    violations: list[Violation] = []
    retry_after_s: float = 0.0


class ErrorBody(Strict):
    model_config = ConfigDict(extra="forbid")
    message: str
    type: Literal[
        "ValidationError",
        "UnauthorizedError",
        "ForbiddenError",
        "NotFoundError",
        "MethodNotAllowedError",
        "ConflictError",
        "TooManyRequestsError",
        "ServiceUnavailableError",
        "InternalError",
    ]
    code: str
    details: ErrorDetails


class Error(Strict):
    model_config = ConfigDict(extra="forbid")
    success: Literal[False]
    status: int
    error: ErrorBody
