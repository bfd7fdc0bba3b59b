"""The session's Qdrant for these tests, and small collections in it."""

import pytest
from qdrant_client.models import Distance, VectorParams
from qdrant_fixtures import *  # noqa: F403


@pytest.fixture
def plain(client, collection_name):
    """A collection with one unnamed vector of two dimensions."""
    name = collection_name()
    client.create_collection(name, vectors_config=VectorParams(size=2, distance=Distance.EUCLID))
    return name


@pytest.fixture
def named(client, collection_name):
    """A collection with vectors `text` (3) and `image` (2)."""
    name = collection_name()
    client.create_collection(
        name,
        vectors_config={
            "text": VectorParams(size=3, distance=Distance.DOT),
            "image": VectorParams(size=2, distance=Distance.MANHATTAN),
        },
    )
    return name
