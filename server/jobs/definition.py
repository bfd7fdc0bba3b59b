"""A clustering job as its caller defines it: the seed's request, typed.

`parse_definition` is the one door. What types cannot say is in `checks.py`; what only the
collections can tell (do they exist, which vectors have they) in `sources.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from server.errors import InvalidRequestError, Violation
from server.jobs.checks import COORDINATES, faults_of
from server.labeling.checks import check_config
from server.labeling.request import LLMLabeling
from server.requests import RequestModel, Text, violations_of

MAX_COLLECTIONS = 64
MAX_HIERARCHY_DEPTH = 8

ClusterType = Literal["vector", "attribute"]
CentroidMethod = Literal["mean", "median", "medoid"]
FeatureStrategy = Literal["concatenate", "weighted", "independent"]
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
    multi_feature_strategy: FeatureStrategy = "concatenate"
    normalize_features: bool = True
    feature_weights: dict[str, float] = Field(default_factory=dict)
    effective_feature_method: CentroidMethod = "mean"
    output_strategy: Literal["single", "per_feature"] = "single"
    preprocessing_steps: list[dict[str, Any]] = Field(default_factory=list)
    hierarchical: bool = False
    max_hierarchy_depth: int = Field(default=3, ge=1, le=MAX_HIERARCHY_DEPTH)
    members_with_vectors: bool = False
    description: str = ""

    @property
    def features(self) -> list[str]:
        """The feature URIs asked for; empty means the only vector of the collection."""
        return [self.feature_uri] if self.feature_uri else list(self.feature_uris)

    @property
    def has_output_per_feature(self) -> bool:
        """Whether each feature's groups go to an output collection of their own."""
        independent = self.multi_feature_strategy == "independent"
        return independent and len(self.features) > 1 and self.output_strategy == "per_feature"


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
    parent_cluster_id: Text | None = None
    parent_group_id: Text | None = None

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

    @property
    def map_dimensions(self) -> int | None:
        """Dimensions of the map that a run itself lays out; None where it needs none."""
        return dimensions_of(self.enrichment) if self.enrich_source_collection else None


def dimensions_of(mappings: Iterable[FieldMapping]) -> int | None:
    """Give the dimensions of the map that has what is mapped: three for z, else two; or None."""
    asked = {mapping.source_field for mapping in mappings}.intersection(COORDINATES)
    if not asked:
        return None
    return 3 if "z" in asked else 2


def parse_definition(raw: Mapping[str, Any]) -> ClusterDefinition:
    """Check a request's JSON and make the definition from it.

    Raises
    ------
    InvalidRequestError
        With one violation for each fault: its path, what was sent, what is allowed.
    """
    violations = list(faults_of(raw))
    definition: ClusterDefinition | None = None
    try:
        definition = ClusterDefinition.model_validate(dict(raw))
        if definition.llm_labeling is not None:
            violations += check_config(definition.llm_labeling)
    except ValidationError as error:
        violations += violations_of(error)
    if violations or definition is None:
        raise InvalidRequestError(violations)
    return definition


def patched(definition: ClusterDefinition, changes: dict[str, Any]) -> dict[str, Any]:
    """Give the definition's JSON with the changes laid over it."""
    body = definition.model_dump(mode="json", exclude_unset=True)
    for name in ("description", "metadata"):
        if name in changes:
            body[name] = changes[name]
    for name in ("filters", "llm_labeling"):
        if name in changes:
            body[name] = changes[name] or None
    vector = dict(body.get("vector_config") or {})
    if "algorithm_params" in changes:
        vector["algorithm_params"] = changes["algorithm_params"]
    if "sample_size" in changes:
        vector["sample_size"] = changes["sample_size"] or None
    if vector:
        body["vector_config"] = vector
    return body
