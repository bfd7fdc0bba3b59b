"""The contract as a page, made from the descriptor set: every call, message and field."""

from __future__ import annotations

import re
from collections.abc import Iterator

from descriptors import bindings_of, comments_of
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

PACKAGE = "clusters.v1"
INTRODUCTION = """# The contract

Every call of package `clusters.v1`, every message and field, by gRPC and by REST; names are the
same in both. Made from the comments of `proto/clusters/v1/*.proto` by `make proto`.

Each call carries the metadata (REST: headers) `authorization: Bearer sk_…` and `x-namespace`.
[Errors](errors.md) says what each refusal means, [Fields](fields.md) when a field of an answer is
set, [Clients](clients.md) how to call from Python, Go and curl. A REST path takes the fields that
are named in it, a GET the others as query parameters, and everything else a JSON body.

How types read: `optional` fields are absent where they are not set, others print as their zero;
`repeated` is a list; `Struct` is any JSON object; `Timestamp` is RFC 3339 in JSON; a `stream` is
server-sent events over REST. JSON null means absent.
"""


def reference_of(descriptor_set: bytes) -> str:
    """Write the page, as Markdown that is the same for the same protos."""
    files = FileDescriptorSet.FromString(descriptor_set)
    comments = dict(comments_of(files))
    own = [file for file in files.file if file.package == PACKAGE]
    lines = [INTRODUCTION]
    for file in own:
        for service in file.service:
            name = f".{PACKAGE}.{service.name}"
            lines += [f"## {service.name}", "", escaped(comments[name]), ""]
            for method in service.method:
                lines += _call(method, comments[f"{name}.{method.name}"])
    lines += ["## Messages", ""]
    messages = sorted((m for file in own for m in file.message_type), key=lambda m: m.name)
    for message in messages:
        lines += _message(message, comments)
    return "\n".join(lines).rstrip() + "\n"


def _call(method: MethodDescriptorProto, comment: str) -> Iterator[str]:
    rest = [f"`{verb.upper()} {path}`" for verb, path, _ in bindings_of(method)]
    answer = ("stream of " if method.server_streaming else "") + _link(method.output_type)
    facts = f"Takes {_link(method.input_type)}, answers with {answer}."
    yield from (f"### {method.name}", "", " or ".join(rest), "", f"{escaped(comment)} {facts}", "")


def _message(message: DescriptorProto, comments: dict[str, str]) -> Iterator[str]:
    name = f".{PACKAGE}.{message.name}"
    yield from (f"### {message.name}", "", escaped(comments[name]), "")
    if not message.field:
        return
    yield from ("| field | type | what |", "|---|---|---|")
    for field in message.field:
        comment = escaped(comments[f"{name}.{field.name}"])
        yield f"| `{field.name}` | {_type(field, message)} | {comment} |"
    yield ""


def _type(field: FieldDescriptorProto, holder: DescriptorProto) -> str:
    for entry in holder.nested_type:
        if field.type_name.endswith(f".{holder.name}.{entry.name}"):  # Only maps nest here.
            key, value = (_plain_type(part) for part in entry.field)
            return f"map of {key} to {value}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {_plain_type(field)}"
    return f"optional {_plain_type(field)}" if field.proto3_optional else _plain_type(field)


def _plain_type(field: FieldDescriptorProto) -> str:
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        return _link(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if type_name.startswith(f".{PACKAGE}.") else name


def escaped(comment: str) -> str:
    """Keep Markdown from reading more into a comment than its `code`."""
    parts = comment.split("`")
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"[\\*\[\]<>]|(?<!\w)_|_(?!\w)", r"\\\g<0>", parts[at])
    return "`".join(parts).replace("|", r"\|")  # In code, too.
