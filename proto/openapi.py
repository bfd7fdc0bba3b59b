"""The OpenAPI document of the REST calls, made from the descriptor set by `generate.py`.

It says what the gateway does with the protos: names as they are spelled there, lists and plain
scalars always printed (so required in answers), `optional` ones and messages only when set,
Struct as any object, Timestamp as RFC 3339, streams as server-sent events. Names that a request
does not know are refused, so requests are closed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from descriptors import bindings_of, comments_of
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from openapi_errors import ERROR_RESPONSES, ERROR_SCHEMA, error_responses

Json = dict[str, Any]

PACKAGE = "clusters.v1"
REPEATABLE = ("CreateCluster", "ExecuteCluster")
"""Calls that take an Idempotency-Key."""

_MESSAGE, _STRING, _BOOL = (
    FieldDescriptorProto.TYPE_MESSAGE,
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BOOL,
)
SCALARS: dict[int, Json] = {
    _STRING: {"type": "string"},
    _BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_UINT32: {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "maximum": 2**32 - 1,
    },
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptorProto.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "format": "byte"},
}
WELL_KNOWN: dict[str, Json] = {
    ".google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}


def openapi_of(descriptor_set: bytes) -> str:
    """Make the document, as JSON text that is the same for the same protos."""
    files = FileDescriptorSet.FromString(descriptor_set)
    document = _Document(files).build()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


class _Document:
    def __init__(self, files: FileDescriptorSet) -> None:
        self._files = files
        self._messages = {
            f".{file.package}.{message.name}": message
            for file in files.file
            for message in file.message_type
        }
        self._comments = dict(comments_of(files))
        self._schemas: Json = {"Error": ERROR_SCHEMA}

    def build(self) -> Json:
        """Walk the services; schemas are made as they are met."""
        paths: Json = {}
        tags = []
        for file in self._files.file:
            for service in file.service if file.package == PACKAGE else ():
                name = f".{PACKAGE}.{service.name}"
                tags.append({"name": service.name, "description": self._comments[name]})
                for method in service.method:
                    for i, (verb, path, has_body) in enumerate(bindings_of(method)):
                        operation = self._operation(method, path, has_body, f"{name}.{method.name}")
                        operation["tags"] = [service.name]
                        if i:
                            operation["operationId"] += verb.title()
                        paths.setdefault(path, {})[verb] = operation
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "shoal",
                "summary": "Finds the groups in Qdrant collections.",
                "description": "The REST face of the gRPC package clusters.v1. Errors carry a "
                "`code` that never changes.",
                "version": version("shoal"),
            },
            "servers": [{"url": "/"}],
            "security": [{"key": []}],
            "tags": tags,
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "responses": ERROR_RESPONSES,
                "parameters": _HEADERS,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _operation(
        self, method: MethodDescriptorProto, path: str, has_body: bool, name: str
    ) -> Json:
        request = self._messages[method.input_type]
        in_path = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        comment = self._comments[name]
        operation: Json = {
            "operationId": method.name,
            "summary": comment.partition(". ")[0].rstrip("."),
            "description": comment,
            "parameters": [{"$ref": "#/components/parameters/Namespace"}],
        }
        for field in request.field:
            if field.name in in_path:
                place = f"{method.input_type}.{field.name}"
                operation["parameters"].append(
                    self._parameter(field, place, "path") | {"required": True}
                )
        if has_body:
            schema = self._request(request, method.input_type, leave_out=in_path)
            operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        else:
            operation["parameters"] += self._in_query(request, method.input_type, in_path)
        if method.name in REPEATABLE:
            operation["parameters"].append({"$ref": "#/components/parameters/IdempotencyKey"})
        operation["responses"] = {
            "200": self._answer(method),
            **error_responses(has_body=has_body),
        }
        return operation

    def _in_query(
        self, message: DescriptorProto, name: str, leave_out: set[str], prefix: str = ""
    ) -> Iterator[Json]:
        for field in message.field:
            if field.name in leave_out:
                continue
            if field.type != _MESSAGE:
                place = f"{name}.{field.name}"
                yield self._parameter(field, place, "query", prefix + field.name)
            elif field.type_name not in WELL_KNOWN:
                inner = self._messages[field.type_name]
                yield from self._in_query(inner, field.type_name, set(), f"{prefix}{field.name}.")

    def _parameter(
        self, field: FieldDescriptorProto, place: str, where: str, name: str = ""
    ) -> Json:
        schema = dict(SCALARS[field.type])
        if where == "path":
            schema["minLength"] = 1
        return {
            "name": name or field.name,
            "in": where,
            "description": self._comments[place],
            "schema": schema,
        }

    def _answer(self, method: MethodDescriptorProto) -> Json:
        schema = self._schema_of(method.output_type, is_request=False)
        if not method.server_streaming:
            return {"description": "OK.", "content": {"application/json": {"schema": schema}}}
        return {
            "description": "Server-sent events; the `data` of each is one item in JSON. One with "
            "`error` set says why the stream ends before it is complete.",
            "content": {"text/event-stream": {"schema": _event_of(schema)}},
        }

    def _request(self, message: DescriptorProto, name: str, leave_out: set[str]) -> Json:
        self._schemas[message.name] = self._object(
            message, name, is_request=True, leave_out=leave_out
        )
        return {"$ref": f"#/components/schemas/{message.name}"}

    def _schema_of(self, type_name: str, *, is_request: bool) -> Json:
        if type_name in WELL_KNOWN:
            return dict(WELL_KNOWN[type_name])
        message = self._messages[type_name]
        name = message.name + ("Input" if is_request else "")
        if name not in self._schemas:
            self._schemas[name] = {}  # Known from here on, should it hold itself.
            self._schemas[name] = self._object(message, type_name, is_request=is_request)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(
        self,
        message: DescriptorProto,
        name: str,
        *,
        is_request: bool,
        leave_out: set[str] | frozenset[str] = frozenset(),
    ) -> Json:
        fields = [field for field in message.field if field.name not in leave_out]
        schema: Json = {
            "type": "object",
            "description": self._comments.get(name, message.name),
            "additionalProperties": False,
            "properties": {
                field.name: self._property(field, name, message, is_request) for field in fields
            },
        }
        always = [field.name for field in fields if _is_always_printed(field)]
        if always and not is_request:
            schema["required"] = always
        return schema

    def _property(
        self,
        field: FieldDescriptorProto,
        name: str,
        holder: DescriptorProto,
        is_request: bool,
    ) -> Json:
        entries = {f"{name}.{entry.name}": entry for entry in holder.nested_type}
        if field.type_name in entries:
            value = entries[field.type_name].field[1]
            part: Json = {"type": "object", "additionalProperties": dict(SCALARS[value.type])}
        elif field.type == _MESSAGE:
            part = self._schema_of(field.type_name, is_request=is_request)
        else:
            part = dict(SCALARS[field.type])
        if field.label == FieldDescriptorProto.LABEL_REPEATED and field.type_name not in entries:
            part = {"type": "array", "items": part}
        if is_request:  # JSON null means absent, whatever the type.
            part = _nullable(part)
        comment = self._comments.get(f"{name}.{field.name}")
        return part | ({"description": comment} if comment else {})


_HEADERS: Json = {
    "Namespace": {
        "name": "X-Namespace",
        "in": "header",
        "description": "Name or id (ns_…) of the namespace. Only `shoal serve --dev` does without.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes a retry safe, as the field request_id does; send one of them.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
}


def _nullable(schema: Json) -> Json:
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _event_of(schema: Json) -> Json:
    """Give the schema of a server-sent event whose data is JSON."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _is_always_printed(field: FieldDescriptorProto) -> bool:
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return True
    return field.type != _MESSAGE and not field.proto3_optional
