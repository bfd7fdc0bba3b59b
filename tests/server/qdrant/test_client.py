"""Addresses, connections and the translation of errors."""

import pickle
import socket

import pytest
from qdrant_client.models import PointStruct, VectorParams

from server.errors import InvalidRequestError
from server.qdrant.client import QdrantAddress, channel, connect, connect_async, qdrant_errors
from server.qdrant.errors import (
    CollectionNotFoundError,
    QdrantRefusedError,
    QdrantUnavailableError,
)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("http://qdrant:6334", "qdrant", 6334, False),
        ("http://qdrant", "qdrant", 6334, False),
        ("http://qdrant:6333", "qdrant", 6334, False),  # The REST port stands for its neighbour.
        ("https://x.cloud.qdrant.io:6333/", "x.cloud.qdrant.io", 6334, True),
        ("grpcs://qdrant:7000", "qdrant", 7000, True),
        ("localhost:9000", "localhost", 9000, False),
        ("http://[::1]:9000", "::1", 9000, False),
    ],
)
def test_urls_are_read(url, host, port, tls):
    address = QdrantAddress.from_url(url)
    assert (address.host, address.grpc_port, address.tls) == (host, port, tls)


def test_an_explicit_grpc_port_wins():
    assert QdrantAddress.from_url("http://q:6333", grpc_port=6333).grpc_port == 6333


@pytest.mark.parametrize("url", ["ftp://q", "http://", "http://q:99999", "http://q:abc"])
def test_bad_urls_are_refused(url):
    with pytest.raises(InvalidRequestError) as caught:
        QdrantAddress.from_url(url)
    assert caught.value.violations[0].field == "qdrant_url"


def test_an_address_travels_but_never_shows_its_key():
    address = QdrantAddress.from_url("http://q", api_key="secret-key", timeout_s=7)
    assert pickle.loads(pickle.dumps(address)) == address
    assert "secret" not in repr(address)
    assert address.metadata() == [("api-key", "secret-key")]
    assert QdrantAddress("::1", 5).target == "[::1]:5"


@pytest.fixture
def dead_address():
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield QdrantAddress("127.0.0.1", held.getsockname()[1], timeout_s=5)


def test_no_answer_is_unavailable(dead_address):
    client = connect(dead_address)
    with pytest.raises(QdrantUnavailableError, match="does not answer"), qdrant_errors():
        client.get_collections()
    client.close()


async def test_no_answer_is_unavailable_in_coroutines_too(dead_address):
    client = connect_async(dead_address)
    with pytest.raises(QdrantUnavailableError), qdrant_errors():
        await client.get_collections()
    await client.close()


def test_a_missing_collection_is_named_and_other_refusals_keep_their_words(client, collection_name):
    with pytest.raises(CollectionNotFoundError, match="'nowhere'"), qdrant_errors("nowhere"):
        client.count("nowhere")
    name = collection_name()
    client.create_collection(name, vectors_config=VectorParams(size=2, distance="Dot"))
    with (
        pytest.raises(QdrantRefusedError, match=r"INVALID_ARGUMENT.*expected dim: 2, got 1"),
        qdrant_errors(name),
    ):
        client.upsert(name, [PointStruct(id=1, vector=[1.0])])
    with pytest.raises(QdrantRefusedError, match=r"NOT_FOUND.*404"), qdrant_errors(name):
        client.set_payload(name, {"a": 1}, points=[404])


def test_messages_above_four_megabytes_pass(client, collection_name):
    name = collection_name()
    client.create_collection(name, vectors_config=VectorParams(size=3000, distance="Dot"))
    client.upsert(name, [PointStruct(id=i, vector=[0.5] * 3000) for i in range(500)])
    records, _ = client.scroll(name, limit=500, with_vectors=True)
    assert len(records) == 500


def test_a_raw_channel_carries_bytes(qdrant_address):
    with channel(qdrant_address) as opened:
        call = opened.unary_unary("/qdrant.Collections/List")
        assert isinstance(call(b"", timeout=5, metadata=qdrant_address.metadata()), bytes)
