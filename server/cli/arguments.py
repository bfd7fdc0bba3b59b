"""From the words of a command to a request: parameters, filters and mappings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from clusters.v1 import cluster_requests_pb2, definition_pb2, enrichment_pb2

from server.api.convert.values import struct_of
from server.errors import InvalidRequestError, Violation


@dataclass(frozen=True)
class RunWords:
    """What `shoal run` was told; empty and None mean not told."""

    collections: list[str]
    method: str
    name: str | None = None
    description: str | None = None
    features: list[str] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    filter_text: str | None = None
    sample_size: int | None = None
    centroid: str | None = None
    enrich: bool = False
    mappings: list[str] = field(default_factory=list)


def create_request(words: RunWords) -> cluster_requests_pb2.CreateClusterRequest:
    """Build the request.

    Raises
    ------
    InvalidRequestError
        With every argument that cannot be read; what they mean is the server's to check.
    """
    violations: list[Violation] = []
    params = _params(words.params, violations)
    filters = None if words.filter_text is None else _filter(words.filter_text, violations)
    mappings = _mappings(words, violations)
    if violations:
        raise InvalidRequestError(violations)
    return cluster_requests_pb2.CreateClusterRequest(
        collection_ids=words.collections,
        cluster_name=words.name,
        description=words.description,
        cluster_type="vector",
        vector_config=definition_pb2.VectorConfig(
            feature_uris=words.features,
            clustering_method=words.method,
            algorithm_params=struct_of(params) if params else None,
            sample_size=words.sample_size,
            effective_feature_method=words.centroid,
        ),
        filters=None if filters is None else struct_of(filters),
        enrich_source_collection=words.enrich,
        source_enrichment_config=(
            enrichment_pb2.SourceEnrichmentConfig(field_mappings=mappings) if mappings else None
        ),
    )


def enrich_request(
    cluster: str,
    collection: str,
    *,
    run_id: str | None,
    mapping_texts: Iterable[str],
    filter_text: str | None,
) -> enrichment_pb2.EnrichCollectionRequest:
    """Build the request of `shoal enrich`.

    Raises
    ------
    InvalidRequestError
        With every argument that cannot be read.
    """
    violations: list[Violation] = []
    filters = None if filter_text is None else _filter(filter_text, violations)
    mappings = _field_mappings(mapping_texts, violations)
    if violations:
        raise InvalidRequestError(violations)
    return enrichment_pb2.EnrichCollectionRequest(
        cluster_id=cluster,
        run_id=run_id,
        collection_id=collection,
        source_enrichment_config=(
            enrichment_pb2.SourceEnrichmentConfig(field_mappings=mappings) if mappings else None
        ),
        filters=None if filters is None else struct_of(filters),
    )


def _params(texts: Iterable[str], violations: list[Violation]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            violations.append(Violation("--param", f"{text!r} is not NAME=VALUE"))
        elif name in params:
            violations.append(Violation("--param", f"{name!r} is given twice"))
        else:
            params[name] = _value(value)
    return params


def _value(text: str) -> Any:
    """Read JSON, so that 8 is a number and true a boolean; anything else is a word."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _filter(text: str, violations: list[Violation]) -> dict[str, Any] | None:
    source = "--filter"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            violations.append(Violation("--filter", f"{source!r} cannot be read: {error}"))
            return None
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        violations.append(Violation("--filter", f"{source} is not JSON: {error}"))
        return None
    if not isinstance(found, dict):
        violations.append(
            Violation("--filter", f'{source} is no JSON object, such as {{"section": "python"}}')
        )
        return None
    return found


def _mappings(words: RunWords, violations: list[Violation]) -> list[enrichment_pb2.FieldMapping]:
    if words.mappings and not words.enrich:
        violations.append(Violation("--map", "only with --enrich"))
    return _field_mappings(words.mappings, violations)


def _field_mappings(
    texts: Iterable[str], violations: list[Violation]
) -> list[enrichment_pb2.FieldMapping]:
    mappings = []
    for text in texts:
        source, equals, target = text.partition("=")
        if not (source and equals and target):
            violations.append(Violation("--map", f"{text!r} is not SOURCE=TARGET"))
        else:
            mappings.append(enrichment_pb2.FieldMapping(source_field=source, target_field=target))
    return mappings


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
