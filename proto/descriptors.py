"""What the descriptor set says of a call or a field beyond its type: REST paths and comments."""

from __future__ import annotations

from collections.abc import Iterator

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)


def bindings_of(method: MethodDescriptorProto) -> Iterator[tuple[str, str, bool]]:
    """Give the verb and path of each REST form of a call, and whether it has a body."""
    rule: http_pb2.HttpRule = method.options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb is not None:
            yield verb, getattr(each, verb), each.body == "*"


def comments_of(files: FileDescriptorSet) -> Iterator[tuple[str, str]]:
    """Give the comment before each message, field, service and call, by its full name."""
    for file in files.file:
        for location in file.source_code_info.location:
            if name := _name_at(file, list(location.path)):
                text = " ".join(location.leading_comments.split())
                yield f".{file.package}.{name}", text


def _name_at(file: FileDescriptorProto, path: list[int]) -> str | None:
    # Field numbers of descriptor.proto: 4 messages (2 fields), 6 services (2 methods).
    match path:
        case [4, i]:
            return file.message_type[i].name
        case [4, i, 2, j]:
            return f"{file.message_type[i].name}.{file.message_type[i].field[j].name}"
        case [6, i]:
            return file.service[i].name
        case [6, i, 2, j]:
            return f"{file.service[i].name}.{file.service[i].method[j].name}"
    return None
