"""What a collection holds, and which vector a feature URI means."""

import pytest
from qdrant_client.models import SparseVectorParams, VectorParams

from server.qdrant.errors import CollectionNotFoundError, VectorNotFoundError
from server.qdrant.schema import (
    CollectionSchema,
    VectorSpec,
    describe,
    describe_async,
    resolve_feature,
)

URI = "mixpeek://text_extractor@v1/text_embedding"


def schema(*names):
    return CollectionSchema("docs", 0, {name: VectorSpec(384, "Cosine") for name in names})


@pytest.mark.parametrize(
    ("names", "uri", "expected"),
    [
        (("text_extractor_v1_text_embedding", "text_embedding"), URI, None),
        (("text_embedding", "other"), URI, "text_embedding"),
        (("text", "other"), "text", "text"),
        (("anything",), URI, "anything"),
        (("",), URI, ""),
        ((URI, "other"), URI, URI),
    ],
)
def test_the_first_fit_wins(names, uri, expected):
    found = resolve_feature(schema(*names), uri)
    assert found == (names[0] if expected is None else expected)


def test_no_fit_lists_what_there_is():
    with pytest.raises(VectorNotFoundError) as caught:
        resolve_feature(schema("image", "sound"), URI)
    assert "image (384 dimensions), sound (384 dimensions)" in str(caught.value)
    with pytest.raises(VectorNotFoundError, match="no dense vectors"):
        resolve_feature(schema(), URI)


async def test_a_collection_is_described(client, async_client, collection_name):
    name = collection_name()
    client.create_collection(
        name,
        vectors_config={"a": VectorParams(size=3, distance="Dot")},
        sparse_vectors_config={"words": SparseVectorParams()},
    )
    client.create_payload_index(name, "s", "keyword")
    expected = CollectionSchema(name, 0, {"a": VectorSpec(3, "Dot")}, {"s": "keyword"}, ("words",))
    assert describe(client, name) == expected
    assert await describe_async(async_client, name) == expected


async def test_an_unnamed_vector_has_the_empty_name(client, collection_name):
    name = collection_name()
    client.create_collection(name, vectors_config=VectorParams(size=3, distance="Dot"))
    assert describe(client, name).sizes() == {"": 3}


async def test_a_missing_collection_is_not_found(client, async_client):
    with pytest.raises(CollectionNotFoundError, match="'nowhere'"):
        describe(client, "nowhere")
    with pytest.raises(CollectionNotFoundError):
        await describe_async(async_client, "nowhere")
