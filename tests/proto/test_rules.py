"""Rules that every message and call of the contract keeps, read from the descriptor set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
)

Files = list[FileDescriptorProto]

LIST_FIELDS = {"limit", "page_size", "offset", "page", "cursor", "search", "include_total"}

CLUSTER = "/v1/clusters/{cluster_id}"
RUN = f"{CLUSTER}/executions/{{run_id}}"
PATHS = {
    "CreateCluster": {"POST /v1/clusters"},
    "GetCluster": {f"GET {CLUSTER}"},
    "ListClusters": {"POST /v1/clusters/list", "GET /v1/clusters"},
    "PatchCluster": {f"PATCH {CLUSTER}"},
    "DeleteCluster": {f"DELETE {CLUSTER}"},
    "ExecuteCluster": {f"POST {CLUSTER}/execute"},
    "GetLatestExecution": {f"GET {CLUSTER}/executions"},
    "GetExecution": {f"GET {RUN}"},
    "ListExecutions": {f"POST {CLUSTER}/executions/list"},
    "CancelExecution": {f"POST {RUN}/cancel"},
    "PatchExecutionLabels": {f"PATCH {RUN}/labels"},
    "ListGroups": {f"GET {CLUSTER}/groups"},
    "ListMembers": {f"GET {CLUSTER}/groups/{{group_id}}/members"},
    "GetVisualization": {f"GET {CLUSTER}/visualization"},
    "ExportExecution": {f"GET {RUN}/export"},
    "WatchExecution": {f"GET {CLUSTER}/watch"},
    "EnrichCollection": {"POST /v1/clusters/enrich"},
    "GetTask": {"GET /v1/tasks/{task_id}"},
    "ListTasks": {"POST /v1/tasks/list"},
    "KillTask": {"DELETE /v1/tasks/{task_id}"},
}


def messages(files: Files) -> Iterator[DescriptorProto]:
    """Walk the messages; the entry messages that protoc makes for maps are its own."""
    for file in files:
        yield from file.message_type


def fields(files: Files) -> Iterator[tuple[str, FieldDescriptorProto]]:
    """Walk the fields, map entries included, each with its full name."""
    for message in messages(files):
        for holder in [message, *message.nested_type]:
            for field in holder.field:
                yield f"{holder.name}.{field.name}", field


def methods(files: Files) -> dict[str, MethodDescriptorProto]:
    """Return the calls by name."""
    return {m.name: m for file in files for service in file.service for m in service.method}


def bindings(method: MethodDescriptorProto) -> Iterator[tuple[str, str, str]]:
    """Walk a call's REST bindings as verb, path and body."""
    rule: http_pb2.HttpRule = method.options.Extensions[annotations_pb2.http]
    for one in [rule, *rule.additional_bindings]:
        verb = one.WhichOneof("pattern") or ""
        yield verb.upper(), getattr(one, verb), one.body


def uncommented(file: FileDescriptorProto) -> Iterator[str]:
    """Name what lacks a leading comment: messages, fields, services and calls."""
    commented = {
        tuple(place.path)
        for place in file.source_code_info.location
        if place.leading_comments.strip()
    }
    for i, message in enumerate(file.message_type):
        if (4, i) not in commented:
            yield message.name
        for j, field in enumerate(message.field):
            if (4, i, 2, j) not in commented:
                yield f"{message.name}.{field.name}"
    for i, service in enumerate(file.service):
        if (6, i) not in commented:
            yield service.name
        for j, method in enumerate(service.method):
            if (6, i, 2, j) not in commented:
                yield f"{service.name}.{method.name}"


def test_everything_is_commented(own_files: Files) -> None:
    assert [name for file in own_files for name in uncommented(file)] == []


def test_no_number_prints_as_a_string_and_no_word_as_an_enum(own_files: Files) -> None:
    T = FieldDescriptorProto
    refused = {
        T.TYPE_INT64,
        T.TYPE_UINT64,
        T.TYPE_SINT64,
        T.TYPE_FIXED64,
        T.TYPE_SFIXED64,
        T.TYPE_ENUM,
    }

    assert [name for name, field in fields(own_files) if field.type in refused] == []
    assert not any(file.enum_type for file in own_files)


def test_json_names_are_the_field_names(own_files: Files) -> None:
    # protoc derives lowerCamel json_names; the gateway prints original names. Both must be
    # read back, so no field may hide another one's derived name.
    for message in messages(own_files):
        derived = [field.json_name for field in message.field]
        assert len(set(derived)) == len(derived), message.name


def test_every_list_call_declares_the_list_fields(own_files: Files) -> None:
    by_name = {message.name: message for message in messages(own_files)}
    lists = [method for name, method in methods(own_files).items() if name.startswith("List")]

    assert len(lists) == 5
    for method in lists:
        request = by_name[method.input_type.rpartition(".")[2]]
        missing = LIST_FIELDS - {field.name for field in request.field}
        assert not missing, f"{request.name} lacks {missing}"


def test_the_calls_are_those_of_the_contract(own_files: Files) -> None:
    assert set(methods(own_files)) == set(PATHS)


@pytest.mark.parametrize("name", PATHS)
def test_each_call_is_bound_to_its_rest_paths(own_files: Files, name: str) -> None:
    bound = list(bindings(methods(own_files)[name]))

    assert {f"{verb} {path}" for verb, path, _ in bound} == PATHS[name]
    assert {body for verb, _, body in bound if verb in {"POST", "PATCH"}} <= {"*"}
    assert {body for verb, _, body in bound if verb in {"GET", "DELETE"}} <= {""}


def test_watching_and_members_are_streams_and_nothing_else_is(own_files: Files) -> None:
    calls = methods(own_files).values()

    streams = {call.name for call in calls if call.server_streaming}
    assert streams == {"WatchExecution", "ListMembers"}
    assert not any(call.client_streaming for call in calls)


def test_error_details_are_known_to_the_gateway(all_files: Files) -> None:
    assert "google/rpc/error_details.proto" in {file.name for file in all_files}


def test_imports_come_before_the_files_that_use_them(all_files: Files) -> None:
    seen: set[str] = set()
    for file in all_files:
        assert set(file.dependency) <= seen, file.name
        seen.add(file.name)
