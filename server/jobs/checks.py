"""What types cannot say of a request: names, methods, filters, and what goes together.

Works on the JSON as it was sent, so that these faults are told together with those of its
types. Nothing is accepted and then ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from gpu.errors import InvalidParametersError
from gpu.params import METHODS, parse_params
from gpu.steps import parse_steps
from server.errors import InvalidRequestError, Violation
from server.export.filters import parse_filter
from server.export.paths import path_fault, split_path
from server.qdrant.names import COLLECTION_FIELD
from server.requests import shorten

COLLECTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TARGET_FIELD = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAX_COLLECTION_ID_LENGTH = 200  # Qdrant's limit is 255, and a namespace may stand before it.
MAX_NAME_LENGTH = 256
MAX_DESCRIPTION_BYTES = 4 * 1024
MAX_METADATA_BYTES = 64 * 1024
MAX_FREE_FORM_BYTES = 256 * 1024
"""Of filters and of parameters: every run's record keeps a copy."""
RESERVED_FIELDS = (
    "cluster_run_id", "id", "_id", "document_id", "source_bucket_id", COLLECTION_FIELD,
)  # fmt: skip
"""Payload fields that enrichment may not write: what names a document, its source and its run."""
COORDINATES = ("x", "y", "z")
"""Sources of field mappings that only a run by vectors has: places on its map."""


def faults_of(body: Mapping[str, Any]) -> Iterator[Violation]:
    """Give every fault of a definition's JSON that its types do not show."""
    return chain.from_iterable(
        check(body)
        for check in (
            _faults_of_names,
            _faults_of_type,
            _faults_of_method,
            _faults_of_steps,
            _faults_of_attributes,
            _faults_of_features,
            _faults_of_filters,
            _faults_of_enrichment,
        )
    )


def _part(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _faults_of_names(body: Mapping[str, Any]) -> Iterator[Violation]:
    ids = body.get("collection_ids")
    for position, name in enumerate(ids if isinstance(ids, list) else []):
        if isinstance(name, str) and ("__" in name or not COLLECTION_ID.fullmatch(name)):
            yield Violation(
                f"collection_ids[{position}]",
                f"{shorten(name)} is no collection id; letters, digits, '.', '_' and '-' are "
                "allowed, the first a letter or digit, without '__'",
            )
        if isinstance(name, str) and len(name) > MAX_COLLECTION_ID_LENGTH:
            yield Violation(
                f"collection_ids[{position}]",
                f"has {len(name)} characters; {MAX_COLLECTION_ID_LENGTH} are allowed",
            )
        if isinstance(ids, list) and isinstance(name, str) and name in ids[:position]:
            yield Violation(f"collection_ids[{position}]", f"{shorten(name)} is listed twice")
    yield from faults_of_cluster_name(body.get("cluster_name"))
    description = body.get("description")
    if isinstance(description, str) and len(description.encode()) > MAX_DESCRIPTION_BYTES:
        yield Violation("description", f"longer than {MAX_DESCRIPTION_BYTES} bytes")
    vector = _part(body, "vector_config")
    for path, value, most in (
        ("metadata", body.get("metadata"), MAX_METADATA_BYTES),
        ("filters", body.get("filters"), MAX_FREE_FORM_BYTES),
        ("vector_config.algorithm_params", vector.get("algorithm_params"), MAX_FREE_FORM_BYTES),
        (
            "vector_config.preprocessing_steps",
            vector.get("preprocessing_steps"),
            MAX_FREE_FORM_BYTES,
        ),
    ):
        if value and len(json.dumps(value, default=str).encode()) > most:
            yield Violation(path, f"larger than {most} bytes as JSON")


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
    parent, group = body.get("parent_cluster_id"), body.get("parent_group_id")
    if bool(parent) != bool(group):
        missing = "parent_cluster_id" if group else "parent_group_id"
        yield Violation(missing, "required when the other of the two is sent")
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
            f"{shorten(method)} is not a method; allowed: {', '.join(METHODS)}",
        )
    elif isinstance(vector.get("algorithm_params", {}), dict):
        try:
            parse_params(method, vector.get("algorithm_params", {}))
        except InvalidParametersError as error:
            for fault in error.violations:
                yield Violation(
                    f"vector_config.algorithm_params.{fault.path}",
                    f"sent {fault.sent}; allowed: {fault.allowed}",
                )


def _faults_of_steps(body: Mapping[str, Any]) -> Iterator[Violation]:
    steps = _part(body, "vector_config").get("preprocessing_steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return
    try:
        parse_steps(steps)
    except InvalidParametersError as error:
        for fault in error.violations:
            yield Violation(
                f"vector_config.preprocessing_steps{fault.path}",
                f"sent {fault.sent}; allowed: {fault.allowed}",
            )


def _faults_of_attributes(body: Mapping[str, Any]) -> Iterator[Violation]:
    attributes = _part(body, "attribute_config").get("attributes")
    if not isinstance(attributes, list):
        return
    for position, attribute in enumerate(attributes):
        path = f"attribute_config.attributes[{position}]"
        if attribute and (fault := path_fault(attribute)):
            yield Violation(path, fault)
        if attribute in attributes[:position]:
            yield Violation(path, f"{shorten(attribute)} is listed twice")


def _faults_of_features(body: Mapping[str, Any]) -> Iterator[Violation]:
    vector = _part(body, "vector_config")
    features = vector.get("feature_uris") or []
    if not isinstance(features, list):
        return
    for position, feature in enumerate(features):
        if feature in features[:position]:
            yield Violation(
                f"vector_config.feature_uris[{position}]", f"{shorten(feature)} is listed twice"
            )
    strategy = vector.get("multi_feature_strategy", "concatenate")
    if vector.get("output_strategy") == "per_feature" and strategy != "independent":
        yield Violation(
            "vector_config.output_strategy",
            "per_feature needs multi_feature_strategy independent; other strategies find one "
            "set of groups",
        )
    yield from _faults_of_weights(vector, [*features, vector.get("feature_uri")])


def _faults_of_weights(vector: Mapping[str, Any], features: list[Any]) -> Iterator[Violation]:
    weights = vector.get("feature_weights")
    if not isinstance(weights, dict) or not weights:
        return
    for name, weight in weights.items():
        path = f"vector_config.feature_weights.{name}"
        if name not in features:
            listed = ", ".join(str(feature) for feature in features if feature) or "none"
            yield Violation(path, f"is not one of the features that are listed: {listed}")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight < 0:
            yield Violation(path, f"sent {shorten(weight)}; allowed: a number from 0 on")
    if all(weight == 0 for weight in weights.values()):
        yield Violation("vector_config.feature_weights", "all are 0; one must be above")


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
        if source in COORDINATES and body.get("cluster_type") == "attribute":
            yield Violation(
                f"{path}.source_field",
                f"{source} is a place on a map of vectors; cluster_type attribute looks at none",
            )
        if isinstance(target, str):
            if target in seen:
                yield Violation(f"{path}.target_field", f"{shorten(target)} is mapped twice")
            if target in RESERVED_FIELDS or not TARGET_FIELD.fullmatch(target):
                yield Violation(
                    f"{path}.target_field",
                    f"{shorten(target)} cannot be written; a top-level field of letters, digits, "
                    f"'_' and '-' other than {', '.join(RESERVED_FIELDS)} is allowed",
                )
            elif target in _roots_of_attributes(body):
                yield Violation(
                    f"{path}.target_field",
                    f"{shorten(target)} is what the documents are grouped by; the next run would "
                    "group by what this one wrote",
                )
            seen.add(target)


def _roots_of_attributes(body: Mapping[str, Any]) -> set[str]:
    """Give the top-level payload fields that an attribute job reads."""
    attributes = _part(body, "attribute_config").get("attributes")
    if body.get("cluster_type") != "attribute" or not isinstance(attributes, list):
        return set()
    return {split_path(name)[0] for name in attributes if isinstance(name, str)}
