"""What a definition means against the collections there are: checked before a run is queued.

Everything that can be known at create time is refused here, all faults at once; the worker
resolves again when it starts, because collections change in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from qdrant_client import AsyncQdrantClient, QdrantClient

from gpu.params import Metric
from server.errors import InvalidRequestError, Violation
from server.jobs.definition import ClusterDefinition
from server.qdrant.errors import CollectionNotFoundError, VectorNotFoundError
from server.qdrant.schema import (
    CollectionSchema,
    VectorSpec,
    describe,
    describe_async,
    resolve_feature,
)

METRIC_OF_DISTANCE: dict[str, Metric] = {
    "Cosine": "cosine",
    "Euclid": "euclidean",
    "Dot": "dot",
    "Manhattan": "manhattan",
}


@dataclass(frozen=True)
class SourceCollection:
    """One input: the caller's id, its Qdrant name, and the vector to cluster.

    `payload_indexes` maps field paths to Qdrant index types: what the filter may use.
    """

    collection_id: str
    qdrant_name: str
    vector_name: str
    payload_indexes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SourcePlan:
    """All inputs of a run, which agree in size and distance."""

    sources: tuple[SourceCollection, ...]
    n_dims: int
    distance: str
    n_points: int

    @property
    def metric(self) -> Metric:
        """The metric that the vectors' Qdrant distance stands for."""
        return METRIC_OF_DISTANCE[self.distance]


async def plan_sources(
    client: AsyncQdrantClient, qdrant_name: Callable[[str], str], definition: ClusterDefinition
) -> SourcePlan:
    """Look the definition's collections up.

    Raises
    ------
    InvalidRequestError
        Unknown collections or vectors, sizes or distances that differ, a distance that the
        method lacks; one violation for each.
    QdrantUnavailableError
        If Qdrant does not answer.
    """

    async def look(name: str) -> CollectionSchema:
        return await describe_async(client, name)

    names = [qdrant_name(collection_id) for collection_id in definition.collection_ids]
    found = await asyncio.gather(*(_or_missing(look(name)) for name in names))
    return _plan(definition, names, found)


def plan_sources_now(
    client: QdrantClient, qdrant_names: list[str], definition: ClusterDefinition
) -> SourcePlan:
    """`plan_sources` with the blocking client of a worker, names already resolved."""
    found: list[CollectionSchema | None] = []
    for name in qdrant_names:
        try:
            found.append(describe(client, name))
        except CollectionNotFoundError:
            found.append(None)
    return _plan(definition, qdrant_names, found)


async def _or_missing(schema: Awaitable[CollectionSchema]) -> CollectionSchema | None:
    try:
        return await schema
    except CollectionNotFoundError:
        return None


def _plan(
    definition: ClusterDefinition, names: list[str], schemas: list[CollectionSchema | None]
) -> SourcePlan:
    violations: list[Violation] = []
    chosen: list[tuple[SourceCollection, VectorSpec]] = []
    n_points = 0
    for position, (collection_id, name, schema) in enumerate(
        zip(definition.collection_ids, names, schemas, strict=True)
    ):
        path = f"collection_ids[{position}]"
        if schema is None:
            violations.append(Violation(path, f"collection {collection_id!r} does not exist"))
            continue
        try:
            vector = _vector_of(schema, definition, collection_id)
        except VectorNotFoundError as error:
            violations.append(Violation(_feature_path(definition), error.message))
            continue
        n_points += schema.points_count
        indexes = tuple(sorted(schema.payload_indexes.items()))
        source = SourceCollection(collection_id, name, vector, indexes)
        chosen.append((source, schema.vectors[vector]))
    violations += _disagreements(chosen)
    if any(spec.distance == "Manhattan" for _, spec in chosen):
        method = definition.vector.clustering_method
        violations.append(
            Violation(
                "vector_config.clustering_method",
                f"{method} cannot cluster by Manhattan distance; collections with Cosine, Euclid "
                "or Dot vectors can be clustered",
            )
        )
    if violations:
        raise InvalidRequestError(violations)
    spec = chosen[0][1]
    return SourcePlan(tuple(source for source, _ in chosen), spec.size, spec.distance, n_points)


def _vector_of(schema: CollectionSchema, definition: ClusterDefinition, collection_id: str) -> str:
    features = definition.vector.features
    if features:
        return resolve_feature(schema, features[0])
    if len(schema.vectors) == 1:
        return next(iter(schema.vectors))
    raise VectorNotFoundError(collection_id, "(none named)", schema.sizes())


def _feature_path(definition: ClusterDefinition) -> str:
    one = definition.vector.feature_uri is not None
    return "vector_config.feature_uri" if one else "vector_config.feature_uris"


def _disagreements(chosen: list[tuple[SourceCollection, VectorSpec]]) -> list[Violation]:
    """Say which collections differ in size or distance from the first."""
    if len({(spec.size, spec.distance) for _, spec in chosen}) < 2:
        return []
    told = ", ".join(
        f"{source.collection_id}: {spec.size} dimensions, {spec.distance}"
        for source, spec in chosen
    )
    return [
        Violation(
            "collection_ids",
            f"vectors clustered together must have one size and one distance; sent: {told}",
        )
    ]
