"""A real `shoal serve` that wants keys, a real Envoy before it, and documents to cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from shoal_command import Served, call_shoal, serving, write_documents

from tests.gateway.models import Cluster, Event
from tests.gateway.rest import Rest, running_gateway
from tests.server.api.conftest import (  # noqa: F401
    async_client,
    body,
    caller,
    client,
    finished,
    heartbeat_s,
    is_embedded,
    products,
    qdrant_address,
    recheck_s,
    world,
)
from tests.server.api.world import World

NAMESPACE = "shop"
DOCS = "docs"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that wants keys; its language model is away."""
    data_dir = tmp_path_factory.mktemp("served")
    model = {"SHOAL_OPENAI_API_KEY": "sk-test", "SHOAL_OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    made = call_shoal("namespaces", "create", NAMESPACE, "--data-dir", data_dir)
    assert made.code == 0, made.err
    with serving(data_dir, **model, SHOAL_LLM_MAX_ATTEMPTS="1") as server:
        documents = write_documents(data_dir / "documents.parquet")
        done = call_shoal("import", documents, "--collection", DOCS, "--data-dir", data_dir)
        assert done.code == 0, done.err
        yield server


@pytest.fixture(scope="session")
def address(served: Served) -> Iterator[str]:
    """Where the gateway answers."""
    with running_gateway(served.address, served.data_dir / "envoy.log") as listening:
        yield listening


def key_of(served: Served, role: str) -> str:
    """Make a key."""
    words = ("keys", "create", "--namespace", NAMESPACE, "--role", role, "--json")
    made = call_shoal(*words, "--data-dir", served.data_dir)
    assert made.code == 0, made.err
    secret: str = made.json()["secret"]
    return secret


@pytest.fixture(scope="session")
def headers(served: Served) -> dict[str, str]:
    """What a caller that may write sends with each call."""
    return {"Authorization": f"Bearer {key_of(served, 'write')}", "X-Namespace": NAMESPACE}


@pytest.fixture(scope="session")
def rest(address: str, headers: dict[str, str]) -> Iterator[Rest]:
    """A caller that may write."""
    opened = Rest(address, **headers)
    yield opened
    opened.http.close()


@pytest.fixture(scope="session")
def done(rest: Rest) -> Cluster:
    """A cluster with a finished run, whose name needs care in a path."""
    definition = {
        "collection_ids": [DOCS],
        "cluster_name": "Möbel & Töpfe/2026 50%+",
        "vector_config": {
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": 4},
        },
    }
    cluster = rest.get(Cluster, "POST", "/v1/clusters", json=definition)
    (*_, final) = rest.stream(Event, f"/v1/clusters/{cluster.cluster_id}/watch")
    assert final.cluster is not None
    assert final.cluster.status == "COMPLETED"
    return final.cluster


@pytest.fixture
async def world_rest(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:  # noqa: F811
    """A REST caller of a server whose runs the test moves by hand."""
    headers = {"Authorization": f"Bearer {world.key}", "X-Namespace": world.namespace.name}
    # Envoy is waited for in a thread: the server that it asks runs in this one.
    gateway = running_gateway(f"127.0.0.1:{world.served.port}", tmp_path / "envoy.log")
    address = await asyncio.to_thread(gateway.__enter__)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{address}", headers=headers, timeout=30
        ) as opened:
            yield opened
    finally:
        await asyncio.to_thread(gateway.__exit__, None, None, None)
