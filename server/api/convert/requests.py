"""Requests in: what was sent, as the JSON that the application layer checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from clusters.v1 import cluster_requests_pb2, execution_pb2

from server.api.convert.values import json_of
from server.errors import InvalidRequestError, Violation
from server.jobs.clusters import RequestIdentity
from server.jobs.moves import RunOptions

IDEMPOTENCY_HEADER = "idempotency-key"
MAX_REQUEST_ID_CHARACTERS = 128

Repeatable: TypeAlias = (
    cluster_requests_pb2.CreateClusterRequest | execution_pb2.ExecuteClusterRequest
)
"""Requests that carry an id of their own, by which a retry is known."""

_NOT_DEFINITION = ("execute", "request_id")
_NOT_OVERRIDES = ("cluster_id", "mode", "assignment_threshold", "request_id")


def definition_of(request: cluster_requests_pb2.CreateClusterRequest) -> dict[str, Any]:
    """Give the definition in a CreateCluster request."""
    body = json_of(request)
    # Without presence in protobuf, so an empty list and an absent one are the same.
    body.setdefault("collection_ids", [])
    return {name: value for name, value in body.items() if name not in _NOT_DEFINITION}


def changes_of(request: cluster_requests_pb2.PatchClusterRequest) -> dict[str, Any]:
    """Give what a PatchCluster request changes, and nothing else."""
    return {name: value for name, value in json_of(request).items() if name != "cluster_id"}


def overrides_of(request: execution_pb2.ExecuteClusterRequest) -> dict[str, Any]:
    """Give what an ExecuteCluster request sets for its run alone."""
    return {name: value for name, value in json_of(request).items() if name not in _NOT_OVERRIDES}


def options_of(
    request: execution_pb2.ExecuteClusterRequest, metadata: Iterable[tuple[str, str | bytes]]
) -> RunOptions:
    """Give how an ExecuteCluster request wants its run, beside the definition.

    Raises
    ------
    InvalidRequestError
        With every fault: a mode that there is not, or what does not go with it.
    """
    if violations := list(_faults_of_mode(request)):
        raise InvalidRequestError(violations)
    identity = identity_of(request, metadata)
    return RunOptions(
        mode="assign" if request.mode == "assign" else "full",
        assignment_threshold=(
            request.assignment_threshold if request.HasField("assignment_threshold") else None
        ),
        request_id=identity.request_id if identity else None,
        request_sha256=identity.body_sha256 if identity else None,
    )


def _faults_of_mode(request: execution_pb2.ExecuteClusterRequest) -> Iterator[Violation]:
    if request.mode not in ("", "full", "assign"):
        yield Violation("mode", f"sent {request.mode!r}; allowed: full, assign")
    if request.HasField("assignment_threshold"):
        threshold = request.assignment_threshold
        if request.mode != "assign":
            yield Violation("assignment_threshold", "needs mode assign; send that or leave it out")
        if not 0 <= threshold <= 1:
            yield Violation(
                "assignment_threshold", f"sent {threshold:g}; a cosine from 0 to 1 is allowed"
            )
    for name in ("sample_size", "llm_labeling"):
        if request.mode == "assign" and request.HasField(name):
            yield Violation(
                name,
                "does not go with mode assign, which gives every new document to the groups "
                "there are, under the names they have",
            )


def identity_of(
    request: Repeatable,
    metadata: Iterable[tuple[str, str | bytes]],
) -> RequestIdentity | None:
    """Give the name by which a retry of this request is known, and what its body was.

    Raises
    ------
    InvalidRequestError
        If the field and the header name it differently, or the name is too long.
    """
    headers = [value for name, value in metadata if name == IDEMPOTENCY_HEADER]
    sent = {str(name) for name in (*headers, request.request_id) if name}
    if not sent:
        return None
    if len(sent) > 1:
        raise InvalidRequestError(
            [Violation("request_id", f"differs from the metadata {IDEMPOTENCY_HEADER}; send one")]
        )
    (request_id,) = sent
    if len(request_id) > MAX_REQUEST_ID_CHARACTERS:
        raise InvalidRequestError(
            [Violation("request_id", f"longer than {MAX_REQUEST_ID_CHARACTERS} characters")]
        )
    body: Any = type(request)()
    body.CopyFrom(request)
    body.ClearField("request_id")
    sha256 = hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()
    return RequestIdentity(request_id, sha256)
