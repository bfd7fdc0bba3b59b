"""Fixtures that need a Qdrant: the embedded one, or a real one.

A session starts one embedded Qdrant on a temporary folder. When `SHOAL_TEST_QDRANT_URL`
names a server (gRPC), the same tests run against that one instead; collections made
through `collection_name` are deleted afterwards either way.

Use from a test module with ``from qdrant_fixtures import *`` in its `conftest.py`, or
as a plugin with ``pytest_plugins = ["qdrant_fixtures"]`` in the root conftest.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from server.qdrant.client import QdrantAddress, connect, connect_async
from server.qdrant.embedded import start_embedded

__all__ = [
    "async_client",
    "client",
    "collection_name",
    "is_embedded",
    "qdrant_address",
]


@pytest.fixture(scope="session")
def is_embedded() -> bool:
    """Whether the tests run against the embedded Qdrant."""
    return not os.environ.get("SHOAL_TEST_QDRANT_URL")


@pytest.fixture(scope="session")
def qdrant_address(
    is_embedded: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[QdrantAddress]:
    """The address of the session's Qdrant."""
    if not is_embedded:
        yield QdrantAddress.from_url(
            os.environ["SHOAL_TEST_QDRANT_URL"], api_key=os.environ.get("SHOAL_TEST_QDRANT_API_KEY")
        )
        return
    with start_embedded(tmp_path_factory.mktemp("embedded-qdrant")) as embedded:
        yield embedded.address


@pytest.fixture(scope="session")
def client(qdrant_address: QdrantAddress) -> Iterator[QdrantClient]:
    """A blocking client, shared by the session."""
    opened = connect(qdrant_address)
    yield opened
    opened.close()


@pytest.fixture
async def async_client(qdrant_address: QdrantAddress) -> AsyncIterator[AsyncQdrantClient]:
    """An asyncio client of this test's own loop."""
    opened = connect_async(qdrant_address)
    yield opened
    await opened.close()


@pytest.fixture
def collection_name(client: QdrantClient) -> Iterator[Callable[[], str]]:
    """A factory of collection names that nobody else uses; they are deleted at the end."""
    names: list[str] = []

    def unique() -> str:
        names.append(f"test_{uuid.uuid4().hex[:12]}")
        return names[-1]

    yield unique
    for name in names:
        client.delete_collection(name)
