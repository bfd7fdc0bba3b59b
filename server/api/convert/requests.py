"""Requests in: what was sent, as the JSON that the application layer checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from clusters.v1 import cluster_requests_pb2, execution_pb2

from server.api.convert.values import json_of
from server.errors import InvalidRequestError, Violation
from server.jobs.clusters import RequestIdentity

IDEMPOTENCY_HEADER = "idempotency-key"
MAX_REQUEST_ID_CHARACTERS = 128

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
    """Give what an ExecuteCluster request sets for its run alone.

    Raises
    ------
    InvalidRequestError
        If it asks for what is not built yet: the mode assign, its threshold, a request id.
    """
    violations = []
    if request.mode == "assign":
        violations.append(Violation("mode", "assign is not supported yet; send full"))
    elif request.mode not in ("", "full"):
        violations.append(Violation("mode", f"sent {request.mode!r}; allowed: full, assign"))
    if request.HasField("assignment_threshold"):
        violations.append(Violation("assignment_threshold", "not supported yet; leave it out"))
    if request.request_id:
        violations.append(Violation("request_id", "not supported yet; leave it out"))
    if violations:
        raise InvalidRequestError(violations)
    return {name: value for name, value in json_of(request).items() if name not in _NOT_OVERRIDES}


def identity_of(
    request: cluster_requests_pb2.CreateClusterRequest,
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
    body = cluster_requests_pb2.CreateClusterRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    sha256 = hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()
    return RequestIdentity(request_id, sha256)
