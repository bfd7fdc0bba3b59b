"""What a definition means against the collections there are: checked before a run is queued.

Everything that can be known at create time is refused here, all faults at once; the worker
resolves again when it starts, because collections change in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from qdrant_client import AsyncQdrantClient, QdrantClient

from gpu.params import METHODS, Metric, metric_violations, parse_params, supports_metric
from gpu.steps import metric_after, parse_steps
from server.errors import InvalidRequestError, Violation
from server.jobs.definition import ClusterDefinition
from server.qdrant.errors import CollectionNotFoundError, VectorNotFoundError
from server.qdrant.schema import (
    SCHEME,
    CollectionSchema,
    VectorSpec,
    describe,
    describe_async,
    output_of,
    resolve_feature,
)

METRIC_OF_DISTANCE: dict[str, Metric] = {
    "Cosine": "cosine",
    "Euclid": "euclidean",
    "Dot": "dot",
    "Manhattan": "manhattan",
}

ANGULAR = frozenset({"Cosine", "Dot"})
"""Distances between directions."""


def joined_distance(distances: Sequence[str], *, normalize: bool) -> str:
    """Give the distance, in Qdrant's word, of several features laid side by side.

    Parameters
    ----------
    distances : sequence of str
        Theirs, in Qdrant's words.
    normalize : bool
        Whether each is scaled to length 1 first. Rows of unit blocks all have one length, so
        their angles order as their distances do.
    """
    if normalize and ANGULAR.issuperset(distances):
        return "Cosine"
    return "Manhattan" if set(distances) == {"Manhattan"} else "Euclid"


@dataclass(frozen=True)
class Feature:
    """One vector that a run clusters: how the caller calls it, and what it is.

    Attributes
    ----------
    name : str
        The feature URI as sent, or the vector's name where none was.
    n_dims : int
        Dimensions, the same in all collections.
    distance : str
        Qdrant's word for its distance, the same in all collections.
    word : str
        Its short name, of letters, digits, ``_`` and ``-``, unlike any other of the run: what
        the ids of its own groups begin with.
    """

    name: str
    n_dims: int
    distance: str
    word: str

    @property
    def metric(self) -> Metric:
        """The metric that the Qdrant distance stands for."""
        return METRIC_OF_DISTANCE[self.distance]


def group_prefix(feature: Feature | None) -> str:
    """Give what stands before the ids of a feature's own groups: ``text_embedding.``."""
    return "" if feature is None else f"{feature.word}."


def feature_words(names: Sequence[str]) -> list[str]:
    """Give each feature a short name: what its URI calls the output, where no other does.

    Those that share one are told apart by extractor and version, or else by a digest. No name
    has a dot or a slash, so that ids made with it can be taken apart and stand in a URL.
    """
    words = [_plain(output_of(name)) for name in names]
    long = [_plain(name.removeprefix(SCHEME)) for name in names]
    words = [long[i] if words.count(word) > 1 else word for i, word in enumerate(words)]
    return [
        f"{word}-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if words.count(word) > 1 else word
        for name, word in zip(names, words, strict=True)
    ]


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


@dataclass(frozen=True)
class SourceCollection:
    """One input: the caller's id, its Qdrant name, and its vector for each feature."""

    collection_id: str
    qdrant_name: str
    vector_names: tuple[str, ...]


@dataclass(frozen=True)
class SourcePlan:
    """All inputs of a run, which agree in the size and distance of every feature."""

    sources: tuple[SourceCollection, ...]
    features: tuple[Feature, ...]
    n_points: int


async def plan_sources(
    client: AsyncQdrantClient, qdrant_name: Callable[[str], str], definition: ClusterDefinition
) -> SourcePlan:
    """Look the definition's collections up.

    Raises
    ------
    InvalidRequestError
        Unknown collections or vectors, sizes or distances that differ, a distance that the
        method lacks, alone or with its parameters; one violation for each.
    QdrantUnavailableError
        If Qdrant does not answer.
    """

    async def look(name: str) -> CollectionSchema:
        return await describe_async(client, name)

    names = [qdrant_name(collection_id) for collection_id in definition.collection_ids]
    found = await asyncio.gather(*(_or_missing(look(name)) for name in names))
    return _Planner(definition).plan(names, found)


def plan_sources_now(
    client: QdrantClient, qdrant_names: Sequence[str], definition: ClusterDefinition
) -> SourcePlan:
    """`plan_sources` with the blocking client of a worker, names already resolved."""
    found: list[CollectionSchema | None] = []
    for name in qdrant_names:
        try:
            found.append(describe(client, name))
        except CollectionNotFoundError:
            found.append(None)
    return _Planner(definition).plan(qdrant_names, found)


async def _or_missing(schema: Awaitable[CollectionSchema]) -> CollectionSchema | None:
    try:
        return await schema
    except CollectionNotFoundError:
        return None


class _Planner:
    """Matches a definition with the schemas of its collections, keeping every fault."""

    def __init__(self, definition: ClusterDefinition) -> None:
        self._definition = definition
        self._violations: list[Violation] = []

    def plan(self, names: Sequence[str], schemas: Sequence[CollectionSchema | None]) -> SourcePlan:
        """Give the plan, or raise with all faults."""
        sources: list[SourceCollection] = []
        specs: list[tuple[VectorSpec, ...]] = []
        n_points = 0
        for position, (collection_id, name, schema) in enumerate(
            zip(self._definition.collection_ids, names, schemas, strict=True)
        ):
            if schema is None:
                self._refuse(
                    f"collection_ids[{position}]", f"collection {collection_id!r} does not exist"
                )
                continue
            n_points += schema.points_count
            vectors = self._vectors_of(schema, collection_id)
            if vectors is not None:
                sources.append(SourceCollection(collection_id, name, vectors))
                specs.append(tuple(schema.vectors[vector] for vector in vectors))
        features = self._features(sources, specs)
        self._check_outputs(features)
        if self._violations:
            raise InvalidRequestError(self._violations)
        return SourcePlan(tuple(sources), features, n_points)

    def _refuse(self, field: str, description: str) -> None:
        self._violations.append(Violation(field, description))

    def _vectors_of(self, schema: CollectionSchema, collection_id: str) -> tuple[str, ...] | None:
        if self._definition.cluster_type == "attribute":
            return ()
        wanted = self._definition.vector.features
        if not wanted and len(schema.vectors) == 1:
            return tuple(schema.vectors)
        found = []
        for position, feature in enumerate(wanted or ["(none named)"]):
            try:
                if not wanted:
                    raise VectorNotFoundError(collection_id, feature, schema.sizes())
                found.append(resolve_feature(schema, feature))
            except VectorNotFoundError as error:
                self._refuse(self._feature_path(position), error.message)
        return tuple(found) if len(found) == len(wanted or [""]) else None

    def _feature_path(self, position: int) -> str:
        if self._definition.vector.feature_uri is not None:
            return "vector_config.feature_uri"
        several = len(self._definition.vector.feature_uris) > 0
        return "vector_config.feature_uris" + (f"[{position}]" if several else "")

    def _check_outputs(self, features: tuple[Feature, ...]) -> None:
        """Refuse one output collection for centroids of several sizes or distances."""
        config = self._definition.vector_config
        if config is None or config.multi_feature_strategy != "independent":
            return
        if config.has_output_per_feature or len({(f.n_dims, f.distance) for f in features}) < 2:
            return
        told = ", ".join(f"{f.name}: {f.n_dims} dimensions, {f.distance}" for f in features)
        self._refuse(
            "vector_config.output_strategy",
            "single needs features of one size and one distance, for their centroids stand in "
            f"one collection; sent: {told}; per_feature takes them",
        )

    def _features(
        self, sources: list[SourceCollection], specs: list[tuple[VectorSpec, ...]]
    ) -> tuple[Feature, ...]:
        """Describe each feature by the first collection, and refuse those that differ."""
        if not specs:
            return ()
        names = self._definition.vector.features if specs[0] else []
        names = names or list(sources[0].vector_names)
        words = feature_words(names)
        features = []
        for position, spec in enumerate(specs[0]):
            name = names[position]
            columns = [row[position] for row in specs]
            if len({(each.size, each.distance) for each in columns}) > 1:
                told = ", ".join(
                    f"{source.collection_id}: {each.size} dimensions, {each.distance}"
                    for source, each in zip(sources, columns, strict=True)
                )
                self._refuse(
                    "collection_ids",
                    "vectors clustered together must have one size and one distance; "
                    f"sent for {name or 'the unnamed vector'}: {told}",
                )
            for source, row in zip(sources, specs, strict=True):
                if row[position].multivector:
                    self._refuse(
                        self._feature_path(position),
                        f"{source.vector_names[position] or 'the unnamed vector'} of "
                        f"{source.collection_id} holds several vectors for each document; "
                        "name one that holds one",
                    )
            features.append(Feature(name, spec.size, spec.distance, words[position]))
        if features:
            self._check_distances([feature.distance for feature in features])
        return tuple(features)

    def _check_distances(self, distances: list[str]) -> None:
        """Refuse a method that cannot compare what the features and the steps leave it."""
        config = self._definition.vector
        if len(distances) > 1 and config.multi_feature_strategy != "independent":
            distances = [joined_distance(distances, normalize=config.normalize_features)]
        steps = parse_steps(config.preprocessing_steps)
        for distance in dict.fromkeys(distances):
            before = METRIC_OF_DISTANCE[distance]
            after = metric_after(steps, before)
            words = f"{distance} distance"
            if after != before and {after, before} != {"cosine", "dot"}:
                words = "Euclid distance, which the preprocessing steps end in"
            self._check_metric(after, words)

    def _check_metric(self, metric: Metric, words: str) -> None:
        method = self._definition.vector.clustering_method
        if not supports_metric(method, metric):
            able = ", ".join(each for each in METHODS if supports_metric(each, metric))
            told = f"{method} cannot cluster by {words}; these can: {able}"
            self._refuse("vector_config.clustering_method", told)
            return
        params = parse_params(method, self._definition.vector.algorithm_params).params
        for fault in metric_violations(method, params, metric):
            self._refuse(f"vector_config.algorithm_params.{fault.path}", fault.allowed)
