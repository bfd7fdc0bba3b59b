"""Payload indexes between Qdrant's messages and Edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge
from google.protobuf.descriptor import FieldDescriptor
from qdrant_client import grpc as pb

from server.qdrant.embedded.errors import BadRequestError

_TYPES = ("Keyword", "Integer", "Float", "Geo", "Text", "Bool", "Datetime", "Uuid")
_TOKENIZERS = ("Prefix", "Whitespace", "Word", "Multilingual", "Code")
_MEMORY = ("Cold", "Cached", "Pinned")


def index_schema(request: pb.CreateFieldIndexCollection) -> Any:
    """The type, or the type's parameters, of the index to make."""
    if request.HasField("field_index_params"):
        kind = request.field_index_params.WhichOneof("index_params")
        if kind is None:
            raise BadRequestError("Wrong input: field_index_params are empty")
        arguments = {
            field.name: _ARGUMENTS.get(field.name, _as_is)(value)
            for field, value in getattr(request.field_index_params, kind).ListFields()
        }
        return getattr(edge, _class_name(kind))(**arguments)
    if not request.HasField("field_type"):
        raise BadRequestError("Wrong input: field_type or field_index_params is required")
    return getattr(
        edge.PayloadSchemaType, pb.FieldType.Name(request.field_type).removeprefix("FieldType")
    )


def schema_info(index: edge.PayloadIndexInfo) -> pb.PayloadSchemaInfo:
    """An index as the collection info shows it."""
    name = next(n for n in _TYPES if getattr(edge.PayloadSchemaType, n) == index.data_type)
    info = pb.PayloadSchemaInfo(data_type=pb.PayloadSchemaType.Value(name), points=index.points)
    if index.params is not None:
        _fill(getattr(info.params, f"{name.lower()}_index_params"), index.params)
    return info


def _class_name(kind: str) -> str:
    # "keyword_index_params" is Edge's KeywordIndexParams.
    return "".join(word.title() for word in kind.split("_"))


def _as_is(value: Any) -> Any:
    return value


def _stopwords(message: pb.StopwordsSet) -> edge.StopwordsSet:
    languages = set()
    for name in message.languages:
        if not hasattr(edge.Language, name.title()):
            raise BadRequestError(f"Wrong input: stopwords language {name!r} is not known")
        languages.add(getattr(edge.Language, name.title()))
    return edge.StopwordsSet(languages or None, set(message.custom) or None)


def _stemmer(message: pb.StemmingAlgorithm) -> Any:
    if message.WhichOneof("stemming_params") != "snowball":
        return edge.DisabledStemmer()
    name = message.snowball.language.title()
    if not hasattr(edge.SnowballLanguage, name):
        raise BadRequestError(
            f"Wrong input: stemmer language {message.snowball.language!r} is not known"
        )
    return edge.SnowballParams(getattr(edge.SnowballLanguage, name))


def _tokenizer(value: int) -> Any:
    name = pb.TokenizerType.Name(value)  # type: ignore[arg-type]
    return getattr(edge.TokenizerType, name) if name in _TOKENIZERS else None


_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "memory": lambda value: getattr(edge.Memory, pb.Memory.Name(value)),
    "prefix": lambda _: True,
    "scoring": lambda _: True,
    "tokenizer": _tokenizer,
    "stopwords": _stopwords,
    "stemmer": _stemmer,
}


def _fill(message: Any, params: Any) -> None:
    """Copy the plain settings and the tokenizer back; word lists stay out."""
    # An index without settings must still say of which type its (default) settings are.
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        value = getattr(params, field.name, None)
        if value is None:
            continue
        if field.name == "tokenizer":
            name = next(n for n in _TOKENIZERS if getattr(edge.TokenizerType, n) == value)
            message.tokenizer = pb.TokenizerType.Value(name)
        elif field.name == "memory":
            name = next(n for n in _MEMORY if getattr(edge.Memory, n) == value)
            message.memory = pb.Memory.Value(name)
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(message, field.name, value)
        elif field.name in ("prefix", "scoring") and value:
            getattr(message, field.name).SetInParent()
