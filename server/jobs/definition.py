"""A clustering job as its caller defines it: the seed's request, typed and checked.

`parse_definition` is the one door: it reports every fault of a request at once. What only
the collections can tell (do they exist, which vectors have they) is checked by `plan.py`.
Values that the contract names but this version does not build are refused as "not
supported yet"; nothing is accepted and then ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gpu.errors import InvalidParametersError
from gpu.params import BUILT_METHODS, METHODS, parse_params
from server.errors import InvalidRequestError, Violation
from server.export.filters import parse_filter

COLLECTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_COLLECTIONS = 64
MAX_NAME_LENGTH = 256
MAX_DESCRIPTION_BYTES = 4 * 1024
MAX_METADATA_BYTES = 64 * 1024

ClusterType = Literal["vector", "attribute"]
CentroidMethod = Literal["mean", "median", "medoid"]
EnrichSource = Literal[
    "cluster_id",
    "cluster_label",
    "distance_to_centroid",
    "member_count",
    "keywords",
    "confidence",
    "x",
    "y",
    "z",
]
NOT_BUILT_ENRICH_SOURCES = frozenset({"keywords", "x", "y", "z"})
Text = Annotated[str, StringConstraints(min_length=1)]


class RequestModel(BaseModel):
    """Base of request parts: strict about types and about names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelingInput(RequestModel):
    """One piece of text that a label is made from."""

    input_key: Text
    path: str = ""
    source_type: Literal["payload", "literal"] = "payload"


class LabelingInputs(RequestModel):
    """Which fields of a document the language model gets to see."""

    input_mappings: list[LabelingInput] = Field(default_factory=list)


class LLMLabeling(RequestModel):
    """How groups are named by a language model (contract, section 6)."""

    enabled: bool = False
    description: str = ""
    provider: str = ""
    model_name: str = ""
    include_summary: bool = True
    include_keywords: bool = True
    labeling_inputs: LabelingInputs = Field(default_factory=LabelingInputs)
    sample_selection_strategy: str = "nearest"
    max_samples_per_cluster: int = Field(default=10, ge=1, le=100)
    sample_text_max_length: int = Field(default=200, ge=1, le=10_000)
    cache_ttl_seconds: int = Field(default=604_800, ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)


class FieldMapping(RequestModel):
    """Which of a run's values is written to which payload field."""

    source_field: EnrichSource
    target_field: Text


def _default_mappings() -> list[FieldMapping]:
    names: tuple[EnrichSource, ...] = ("cluster_id", "cluster_label", "distance_to_centroid")
    return [FieldMapping(source_field=name, target_field=name) for name in names]


class SourceEnrichmentConfig(RequestModel):
    """What enrichment in place writes, and under which names."""

    field_mappings: list[FieldMapping] = Field(default_factory=_default_mappings)


class VectorConfig(RequestModel):
    """Clustering by vectors."""

    clustering_method: str
    feature_uri: Text | None = None
    feature_uris: list[Text] = Field(default_factory=list)
    algorithm_params: dict[str, Any] = Field(default_factory=dict)
    sample_size: int | None = Field(default=None, ge=1)
    assign_rest: bool = True
    effective_feature_method: CentroidMethod = "mean"
    members_with_vectors: bool = False
    description: str = ""

    @property
    def features(self) -> list[str]:
        """The feature URIs asked for; empty means the only vector of the collection."""
        return [self.feature_uri] if self.feature_uri else list(self.feature_uris)


class AttributeConfig(RequestModel):
    """Clustering by payload fields."""

    attributes: list[Text] = Field(min_length=1)
    hierarchical_grouping: bool = False
    aggregation_method: Literal["most_frequent", "first", "last"] = "most_frequent"
    description: str = ""


class ClusterDefinition(RequestModel):
    """What to cluster, how, and where the result goes. Field meanings: contract, section 4."""

    collection_ids: list[str] = Field(min_length=1, max_length=MAX_COLLECTIONS)
    cluster_name: str | None = None
    cluster_type: ClusterType = "vector"
    vector_config: VectorConfig | None = None
    attribute_config: AttributeConfig | None = None
    filters: dict[str, Any] | None = None
    llm_labeling: LLMLabeling | None = None
    enrich_source_collection: bool = False
    source_enrichment_config: SourceEnrichmentConfig | None = None
    description: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def vector(self) -> VectorConfig:
        """The vector configuration of a vector job."""
        if self.vector_config is None:
            raise InvalidRequestError(
                [Violation("vector_config", "required for vector clustering")]
            )
        return self.vector_config

    @property
    def enrichment(self) -> list[FieldMapping]:
        """The field mappings of an enriching job."""
        return (self.source_enrichment_config or SourceEnrichmentConfig()).field_mappings


# Fields of the contract that later versions build: path, and whether a value asks for it.
_NOT_BUILT_VECTOR_FIELDS: dict[str, Any] = {
    "multi_feature_strategy": "concatenate",
    "normalize_features": True,
    "feature_weights": {},
    "output_strategy": "single",
    "preprocessing_steps": [],
    "hierarchical": False,
    "max_hierarchy_depth": None,
}


def parse_definition(raw: Mapping[str, Any]) -> ClusterDefinition:
    """Check a request's JSON and make the definition from it.

    Raises
    ------
    InvalidRequestError
        With one violation for each fault: its path, what was sent, what is allowed.
    """
    body = dict(raw)
    violations = list(_not_built(body))
    definition: ClusterDefinition | None = None
    try:
        definition = ClusterDefinition.model_validate(_without_not_built(body))
    except ValidationError as error:
        violations += violations_of(error)
    violations += _faults_of_names(body)
    violations += _faults_of_type(body)
    violations += _faults_of_method(body)
    violations += _faults_of_filters(body)
    violations += _faults_of_enrichment(body)
    if violations or definition is None:
        raise InvalidRequestError(violations)
    return definition


def violations_of(error: ValidationError, prefix: str = "") -> list[Violation]:
    """Say pydantic's findings in the contract's form: path, what was sent, what is allowed."""
    found = []
    for item in error.errors(include_url=False):
        path = prefix + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]
        ).lstrip(".")
        sent = item.get("input")
        told = "" if item["type"] == "missing" else f" (sent: {_shorten(sent)})"
        found.append(Violation(path or "request", f"{item['msg']}{told}"))
    return found


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else text[:117] + "..."


def _part(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _not_built(body: Mapping[str, Any]) -> Iterator[Violation]:
    vector = _part(body, "vector_config")
    for name, neutral in _NOT_BUILT_VECTOR_FIELDS.items():
        if name in vector and vector[name] != neutral:
            yield Violation(
                f"vector_config.{name}",
                f"not supported yet (sent: {_shorten(vector[name])}); leave it out",
            )
    if len(vector.get("feature_uris") or []) > 1:
        yield Violation("vector_config.feature_uris", "more than one is not supported yet")
    if body.get("cluster_type") == "attribute":
        yield Violation("cluster_type", "attribute clustering is not supported yet; use vector")
    if _part(body, "llm_labeling").get("enabled"):
        yield Violation("llm_labeling.enabled", "true is not supported yet; send false")
    for name in ("parent_cluster_id", "parent_group_id"):
        if body.get(name):
            yield Violation(name, "not supported yet; leave it out")


def _without_not_built(body: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in body.items() if k not in ("parent_cluster_id", "parent_group_id")}
    if isinstance(body.get("vector_config"), dict):
        kept["vector_config"] = {
            k: v for k, v in body["vector_config"].items() if k not in _NOT_BUILT_VECTOR_FIELDS
        }
    return kept


def _faults_of_names(body: Mapping[str, Any]) -> Iterator[Violation]:
    ids = body.get("collection_ids")
    for position, name in enumerate(ids if isinstance(ids, list) else []):
        if isinstance(name, str) and ("__" in name or not COLLECTION_ID.fullmatch(name)):
            yield Violation(
                f"collection_ids[{position}]",
                f"{_shorten(name)} is no collection id; letters, digits, '.', '_' and '-' are "
                "allowed, the first a letter or digit, without '__'",
            )
        if isinstance(ids, list) and isinstance(name, str) and name in ids[:position]:
            yield Violation(f"collection_ids[{position}]", f"{_shorten(name)} is listed twice")
    yield from faults_of_cluster_name(body.get("cluster_name"))
    description = body.get("description")
    if isinstance(description, str) and len(description.encode()) > MAX_DESCRIPTION_BYTES:
        yield Violation("description", f"longer than {MAX_DESCRIPTION_BYTES} bytes")
    if len(json.dumps(body.get("metadata") or {}, default=str).encode()) > MAX_METADATA_BYTES:
        yield Violation("metadata", f"larger than {MAX_METADATA_BYTES} bytes as JSON")


def faults_of_cluster_name(name: Any) -> Iterator[Violation]:
    """Check a cluster's name, where one was sent."""
    if not isinstance(name, str):
        return
    if not name.strip():
        yield Violation("cluster_name", "is empty; send a name or leave it out")
    if name.startswith("clust_"):
        yield Violation("cluster_name", "may not start with 'clust_', which marks ids")
    if len(name) > MAX_NAME_LENGTH:
        yield Violation("cluster_name", f"longer than {MAX_NAME_LENGTH} characters")
    if any(ord(character) < 32 for character in name):
        yield Violation("cluster_name", "holds a control character")


def _faults_of_type(body: Mapping[str, Any]) -> Iterator[Violation]:
    kind = body.get("cluster_type", "vector")
    if kind in ("vector", "attribute") and not body.get(f"{kind}_config"):
        yield Violation(f"{kind}_config", f"required when cluster_type is {kind!r}")
    vector = _part(body, "vector_config")
    if vector.get("feature_uri") and vector.get("feature_uris") not in (
        None,
        [],
        [vector["feature_uri"]],
    ):
        yield Violation("vector_config.feature_uri", "send feature_uri or feature_uris, not both")


def _faults_of_method(body: Mapping[str, Any]) -> Iterator[Violation]:
    vector = _part(body, "vector_config")
    method = vector.get("clustering_method")
    if not isinstance(method, str):
        return
    if method not in METHODS:
        yield Violation(
            "vector_config.clustering_method",
            f"{_shorten(method)} is not a method; allowed: {', '.join(METHODS)}",
        )
    elif method not in BUILT_METHODS:
        yield Violation(
            "vector_config.clustering_method",
            f"{method} is not supported yet; this version has {', '.join(BUILT_METHODS)}",
        )
    elif isinstance(vector.get("algorithm_params", {}), dict):
        try:
            parse_params(method, vector.get("algorithm_params", {}))
        except InvalidParametersError as error:
            for fault in error.violations:
                yield Violation(
                    f"vector_config.algorithm_params.{fault.path}",
                    f"sent {_shorten(fault.sent)}; allowed: {fault.allowed}",
                )


def _faults_of_filters(body: Mapping[str, Any]) -> Iterator[Violation]:
    if isinstance(body.get("filters"), dict):
        try:
            parse_filter(body["filters"])
        except InvalidRequestError as error:
            yield from error.violations


def _faults_of_enrichment(body: Mapping[str, Any]) -> Iterator[Violation]:
    mappings = _part(body, "source_enrichment_config").get("field_mappings")
    seen: set[str] = set()
    for position, mapping in enumerate(mappings if isinstance(mappings, list) else []):
        if not isinstance(mapping, dict):
            continue
        path = f"source_enrichment_config.field_mappings[{position}]"
        source, target = mapping.get("source_field"), mapping.get("target_field")
        if source in NOT_BUILT_ENRICH_SOURCES:
            yield Violation(f"{path}.source_field", f"{source} is not supported yet")
        if isinstance(target, str):
            if target in seen:
                yield Violation(f"{path}.target_field", f"{_shorten(target)} is mapped twice")
            if "." in target or target == "cluster_run_id":
                yield Violation(
                    f"{path}.target_field",
                    f"{_shorten(target)} cannot be written; a top-level field other than "
                    "cluster_run_id is allowed",
                )
            seen.add(target)
