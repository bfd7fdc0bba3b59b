"""What the gateway refuses, and in which words: keys, paths, names at any depth, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from shoal_command import Served

from server.gateway.config import Address
from server.gateway.envoy import free
from tests.gateway.conftest import DOCS, key_of
from tests.gateway.models import Cluster
from tests.gateway.rest import Rest, envoy, error_of

MIB = 1024 * 1024
VECTORS: dict[str, Any] = {"clustering_method": "kmeans"}
BODY = {"collection_ids": [DOCS], "execute": False, "vector_config": VECTORS}


@pytest.mark.parametrize(
    ("changed", "status", "kind"),
    [
        ({"Authorization": ""}, 401, "UnauthorizedError"),
        ({"Authorization": "Bearer sk_wrong"}, 401, "UnauthorizedError"),
        ({"Authorization": "Basic eDp5"}, 401, "UnauthorizedError"),
        ({"X-Namespace": "elsewhere"}, 403, "ForbiddenError"),
        ({"X-Namespace": ""}, 403, "ForbiddenError"),
        ({"X-Namespace": "ä"}, 403, "ForbiddenError"),
    ],
)
def test_who_may_not_call_is_told_so_before_anything_else(
    rest: Rest, changed: dict[str, str], status: int, kind: str
) -> None:
    headers = {name: value.encode() for name, value in changed.items()}

    answer = rest.send("POST", "/v1/clusters", json={"tpyo": 1}, headers=headers)

    assert answer.status_code == status, answer.text
    assert error_of(answer).error.type == kind
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_key_that_only_reads_cannot_write(address: str, served: Served) -> None:
    reader = Rest(
        address, **{"Authorization": f"Bearer {key_of(served, 'read')}", "X-Namespace": "shop"}
    )

    with reader.http:
        assert reader.send("GET", "/v1/clusters").status_code == 200
        assert reader.fail(403, "POST", "/v1/clusters", json=BODY).error.type == "ForbiddenError"


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/v1/cluster", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/v1/clusters/", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/v1/clusters//watch", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/clusters.v1.ClusterService/ListClusters", 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/v1/clusters", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/clusters", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/v1/tasks/list", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/clusters/nope", 404, "CLUSTER_NOT_FOUND"),
        ("GET", "/v1/clusters/nope/watch", 404, "CLUSTER_NOT_FOUND"),
        ("GET", "/v1/clusters/nope/groups/cl_0/members", 404, "CLUSTER_NOT_FOUND"),
        ("DELETE", "/v1/tasks/nope", 404, "TASK_NOT_FOUND"),
    ],
)
def test_what_is_not_there(rest: Rest, verb: str, path: str, status: int, code: str) -> None:
    assert rest.fail(status, verb, path).error.code == code


def test_a_refused_method_says_which_there_are(rest: Rest) -> None:
    assert rest.send("PUT", "/v1/clusters").headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("limt=3", "limt", "did you mean limit?"),
        ("limit=three", "limit", 'sent "three"; a whole number'),
        ("limit=-1", "limit", 'sent "-1"; a whole number'),
        ("limit=99999999999", "limit", "sent 99999999999; a whole number"),
        ("limit=1&limit=2", "limit", 'sent twice: "1", "2"'),
        ("include_total=yes", "include_total", "true or false"),
        ("filters=x", "filters", "which only a body can hold"),
        ("sort.feild=status", "sort.feild", "did you mean field?"),
        ("sort=status", "sort", "which only a body can hold"),
        ("search.x=1", "search.x", "unknown name"),
        ("search=%FF", "query.search", "UTF-8 is allowed"),
        ("cluster_type=%C3%A4", "cluster_type", "allowed: vector, attribute"),
    ],
)
def test_query_parameters_are_judged(rest: Rest, query: str, field: str, words: str) -> None:
    error = rest.fail(422, "GET", f"/v1/clusters?{query}").error

    assert error.type == "ValidationError"
    (violation,) = error.details.violations
    assert violation.field == field
    assert words in violation.description


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({**BODY, "cluster_nam": "x"}, {"cluster_nam": "did you mean cluster_name?"}),
        (
            {**BODY, "vector_config": {**VECTORS, "algorithm_parms": {}, "sample_sise": 1}},
            {
                "vector_config.algorithm_parms": "did you mean algorithm_params?",
                "vector_config.sample_sise": "did you mean sample_size?",
            },
        ),
        (
            {**BODY, "llm_labeling": {"labeling_inputs": {"input_mappings": [{"input_kye": "t"}]}}},
            {"llm_labeling.labeling_inputs.input_mappings[0].input_kye": "did you mean input_key"},
        ),
        (
            {
                **BODY,
                "source_enrichment_config": {"field_mappings": [{}, {"source": 1}]},
                "sampel": {},
            },
            {
                "source_enrichment_config.field_mappings[1].source": "did you mean source_field?",
                "sampel": "unknown name",
            },
        ),
        ({**BODY, "vector_config": []}, {"vector_config": "sent []; a JSON object is allowed"}),
        ({**BODY, "collection_ids": "a"}, {"collection_ids": "a JSON array is allowed"}),
        ({**BODY, "collection_ids": [1]}, {"collection_ids[0]": "sent 1; a string is allowed"}),
        ({**BODY, "execute": "no"}, {"execute": 'sent "no"; true or false is allowed'}),
        ({**BODY, "filters": 3}, {"filters": "sent 3; a JSON object is allowed"}),
        ([BODY], {"request": "a JSON object is allowed"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_body_is_judged_at_any_depth(rest: Rest, body: Any, faults: dict[str, str]) -> None:
    error = rest.fail(422, "POST", "/v1/clusters", json=body).error

    found = {violation.field: violation.description for violation in error.details.violations}
    assert found.keys() == faults.keys()
    for field, words in faults.items():
        assert words in found[field]


def test_inside_free_form_objects_the_server_judges(rest: Rest) -> None:
    config = {**VECTORS, "algorithm_params": {"n_cluster": 3}}
    error = rest.fail(422, "POST", "/v1/clusters", json={**BODY, "vector_config": config}).error

    assert error.details.violations[0].field.startswith("vector_config.algorithm_params")
    assert "n_clusters" in error.message


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "is no JSON"),
        (b'{"limit": 1} x', "is no JSON"),
        (b'{"limit": NaN}', "NaN is no JSON number"),
        (b'{"limit": 1, "limit": 2}', '"limit" stands twice'),
        (b'{"search": "\xff"}', "is no JSON"),
        (b'{"filters": {"a": ' + b"[" * 50_000, "nested too deep"),
        # These only Envoy cannot read.
        (b'{"search": "\\ud800"}', "surrogate"),
        (b'{"filters": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}", "too deep"),
    ],
)
def test_what_is_no_json_is_refused(rest: Rest, raw: bytes, words: str) -> None:
    error = rest.fail(422, "POST", "/v1/clusters/list", content=raw).error

    assert error.type == "ValidationError"
    assert error.code == "INVALID_REQUEST"
    assert words in error.message


def test_path_and_body_may_not_differ(rest: Rest) -> None:
    made = rest.get(Cluster, "POST", "/v1/clusters", json=BODY)
    path = f"/v1/clusters/{made.cluster_id}"

    error = rest.fail(422, "PATCH", path, json={"cluster_id": "other", "description": "x"}).error
    query = rest.fail(422, "GET", f"{path}?cluster_id=other").error
    same = rest.get(Cluster, "PATCH", path, json={"cluster_id": made.cluster_id})

    assert [violation.field for violation in error.details.violations] == ["cluster_id"]
    assert "stands in the path already" in query.message
    assert same.cluster_id == made.cluster_id
    assert rest.fail(422, "DELETE", path, json={"a": 1}).error.details.violations[0].field == "body"


def test_a_body_of_fifteen_mib_passes_and_one_of_seventeen_does_not(rest: Rest) -> None:
    taken = rest.fail(
        422, "POST", "/v1/clusters/list", json={"search": "x" * 15 * MIB}
    ).error  # The server has seen it: only it knows that this is too long to search for.
    error = rest.fail(413, "POST", "/v1/clusters/list", content=b" " * 17 * MIB).error
    # Smaller as JSON than as protobuf.
    grown = b'{"filters": {"AND": [' + b"1," * 1_600_000 + b"1]}}"
    as_protobuf = rest.fail(413, "POST", "/v1/clusters/list", content=grown).error

    assert taken.details.violations[0].field == "search"
    assert error.code == as_protobuf.code == "REQUEST_TOO_LARGE"
    assert "bytes" in error.message
    assert "protobuf" in as_protobuf.message


def test_headers_that_grpc_cannot_carry_do_not_end_the_call(rest: Rest) -> None:
    headers = {"X'Odd%": "1", "X-Note": "ä".encode(), "X-Trace-Bin": "no base64!"}
    taken = rest.send("GET", "/v1/clusters", headers=headers)
    key = rest.fail(422, "POST", "/v1/clusters", headers={"Idempotency-Key": "ä".encode()})

    assert taken.status_code == 200
    assert [fault.field for fault in key.error.details.violations] == ["idempotency-key"]


def test_too_long_headers_are_refused_in_the_same_form(rest: Rest) -> None:
    answer = rest.http.get("/v1/clusters", headers={"X-Long": "x" * 100_000})

    assert answer.status_code == 431
    assert json.loads(answer.content)["error"]["code"] == "GATEWAY"


def test_without_a_server_behind_it_the_gateway_says_when_to_try_again(tmp_path: Path) -> None:
    nobody = free(Address("127.0.0.1", 0))
    transport = httpx.HTTPTransport(retries=8)
    with (
        envoy(nobody, tmp_path / "envoy.log") as (address, _),
        httpx.Client(transport=transport, base_url=f"http://{address}") as http,
    ):
        answer, health = http.get("/v1/clusters"), http.get("/healthz")

    assert answer.status_code == health.status_code == 503
    error = error_of(answer)
    assert (error.error.type, error.error.code) == ("ServiceUnavailableError", "UNAVAILABLE")
