"""Names and types in REST requests, judged from the descriptors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from server.api.rest.requests import check_request
from server.api.rest.routes import MethodNotAllowedError, Route, RouteNotFoundError, Routes
from server.errors import InvalidRequestError

ROUTES = Routes()


def path_of(route: Route) -> str:
    return "/" + "/".join("x" if part.startswith("{") else part for part in route.segments)


def refused(route: Route, query: str = "", body: Any = None) -> dict[str, str]:
    """Give what is said of each field of a request that must be refused."""
    raw = b"" if body is None else json.dumps(body).encode()
    with pytest.raises(InvalidRequestError) as caught:
        check_request(route, path_of(route), query, raw)
    return {fault.field: fault.description for fault in caught.value.violations}


def fields(message: Descriptor) -> Iterator[tuple[list[FieldDescriptor], FieldDescriptor]]:
    """Walk a message's fields at any depth, each with those that lead to it."""
    for field in message.fields:
        yield [], field
        if field.message_type is not None and field.message_type.full_name.startswith("clusters."):
            for above, below in fields(field.message_type):
                yield [field, *above], below


def test_every_misspelt_name_is_refused_with_the_right_one() -> None:
    seen = 0
    for route in ROUTES:
        for above, field in fields(route.request) if route.has_body else ():
            body: Any = {field.name[:1] + field.name: None}
            for outer in reversed(above):
                body = {outer.name: [body] if outer.is_repeated else body}
            ((_, words),) = refused(route, body=body).items()
            assert words == f"unknown name; did you mean {field.name}?"
            seen += 1
    assert seen > 100


def test_every_field_may_be_sent_under_both_of_its_names_and_as_null() -> None:
    for route in ROUTES:
        if route.has_body:
            for name in ("name", "camelcase_name"):
                body = {getattr(field, name): None for field in route.request.fields}
                check_request(route, path_of(route), "", json.dumps(body).encode())
        for field in route.request.fields:
            if field.message_type is None and field.name not in route.bound:
                value = "true" if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else "1"
                check_request(route, path_of(route), f"{field.name}={value}", b"")


def test_every_wrong_type_is_refused() -> None:
    for route in ROUTES:
        for field in route.request.fields if route.has_body else ():
            is_text = not field.is_repeated and field.cpp_type == FieldDescriptor.CPPTYPE_STRING
            said = refused(route, body={field.name: 1.5 if is_text else "x"})
            # Where the path has the field too, only the body's value is to blame.
            assert said[field.name].endswith("is allowed") or field.name in route.bound


@pytest.mark.parametrize("value", [True, 1.5, -1, 2**32, "1", [], {}])
def test_counts_are_whole_numbers(value: Any) -> None:
    route = ROUTES.find("POST", "/v1/clusters/list")

    assert "a whole number from 0 to 4294967295" in refused(route, body={"limit": value})["limit"]


def test_all_faults_come_at_once() -> None:
    route = ROUTES.find("PATCH", "/v1/clusters/x")

    said = refused(route, "limt=1", {"cluster_id": "y", "archived": 1, "descripton": ""})

    assert said.keys() == {"limt", "cluster_id", "archived", "descripton"}


def test_the_fitting_route_with_the_fewest_variables_is_meant() -> None:
    assert ROUTES.find("POST", "/v1/clusters/list").rpc.endswith("/ListClusters")
    assert ROUTES.find("GET", "/v1/clusters/list").rpc.endswith("/GetCluster")
    assert ROUTES.find("POST", "/v1/clusters/enrich").rpc.endswith("/EnrichCollection")
    with pytest.raises(MethodNotAllowedError, match="allowed are GET, POST"):
        ROUTES.find("HEAD", "/v1/clusters")
    with pytest.raises(RouteNotFoundError):
        ROUTES.find("GET", "/v1/clusters/a/b")
