"""Runs whose groups a language model names: a real HTTP server speaks its protocol."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from app_runs import N_GROUPS, N_PER_GROUP, add_colors, definition, run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.config import Settings
from server.errors import InvalidRequestError
from server.qdrant.client import connect
from server.tenancy import Caller
from tests.server.labeling.chat_server import (
    ChatServer,
    Received,
    Response,
    failure,
    name_by_first_text,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    settings = Settings(
        dev=True,
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        shutdown_grace_s=0,
        llm_base_url=chat.base_url,
        llm_max_attempts=1,
    )
    async with App(settings) as app:
        yield app


def labeled(**more: Any) -> dict[str, Any]:
    return definition(
        llm_labeling={
            "enabled": True,
            "provider": "openai_compatible",
            "model_name": "test-model",
            "labeling_inputs": {
                "input_mappings": [
                    {"input_key": "color", "path": "color", "source_type": "payload"}
                ]
            },
            "cache_ttl_seconds": 0,
        },
        **more,
    )


async def test_groups_get_the_model_s_names_everywhere(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, chat: ChatServer
) -> None:
    chat.answering = name_by_first_text
    cluster = await run(app, caller, labeled())

    assert cluster.status == "COMPLETED"
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    labels = {group.label for group in groups}
    assert len(labels) == N_GROUPS
    assert all(
        any(color in label.lower() for color in ("red", "green", "blue", "gold"))
        for label in labels
    )
    result = cluster.runs[-1].result
    assert result is not None
    assert result.labeling_usage["requests"] == N_GROUPS
    members, _ = await qdrant.scroll(
        result.outputs[0].name,
        scroll_filter=models.Filter(
            must=[models.FieldCondition(key="is_centroid", match=models.MatchValue(value=False))]
        ),
        limit=1000,
    )
    assert {point.payload["cluster_label"] for point in members if point.payload} == labels


async def test_outputs_are_filled_while_the_model_is_thinking(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, chat: ChatServer
) -> None:
    """The model answers once all members are written, under names that they do not keep."""
    client = connect(app.qdrant_address)
    before = {found.name for found in client.get_collections().collections}
    n_members = N_GROUPS * N_PER_GROUP
    seen: list[set[str]] = []

    def once_members_are_there(request: Received) -> Response:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            new = {found.name for found in client.get_collections().collections} - before
            for name in new:
                points, _ = client.scroll(name, limit=1000)
                if len(points) == n_members:
                    seen.append({point.payload["cluster_label"] for point in points})
                    return name_by_first_text(request)
            time.sleep(0.02)
        return failure(500)

    chat.answering = once_members_are_there
    cluster = await run(app, caller, labeled())
    client.close()

    assert cluster.status == "COMPLETED"
    assert seen[0] == {f"Cluster {n}" for n in range(N_GROUPS)}
    result = cluster.runs[-1].result
    assert result is not None
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    label_of = {group.cluster_id: group.label for group in groups}
    assert not set(label_of.values()) & seen[0]
    points, _ = await qdrant.scroll(result.outputs[0].name, limit=1000)
    payloads = [point.payload or {} for point in points]
    assert len(payloads) == n_members + N_GROUPS
    for payload in payloads:
        label = payload["label"] if payload["is_centroid"] else payload["cluster_label"]
        assert label == label_of[payload["cluster_id"]]


async def test_a_model_that_fails_leaves_a_run_with_errors_and_names(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, chat: ChatServer
) -> None:
    chat.answering = lambda request: failure(500)
    cluster = await run(app, caller, labeled())

    assert cluster.status == "COMPLETED_WITH_ERRORS"
    result = cluster.runs[-1].result
    assert result is not None
    assert result.labeling_errors
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    assert len({group.label for group in groups}) == N_GROUPS
    assert all(group.label for group in groups)


async def test_without_a_model_groups_have_their_own_words(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition())
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    assert [group.label for group in groups] == [f"Cluster {n}" for n in range(N_GROUPS)]
    assert {group.keywords[0] for group in groups} == {"red", "green", "blue", "gold"}


async def test_enrichment_s_own_fields_are_no_keywords(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "twice")
    raw = definition(collection_ids=["twice"], enrich_source_collection=True)
    cluster = await run(app, caller, raw)
    await app.clusters.execute(caller, cluster.cluster_id, {})
    cluster = await run_again(app, caller, cluster.cluster_id)
    _, _, groups = await app.findings.groups(caller, cluster)
    assert not any("cluster" in word for group in groups for word in group.keywords)


async def run_again(app: App, caller: Caller, cluster_id: str) -> str:
    async for _ in app.clusters.follow(caller, cluster_id, None, 0):
        pass
    return cluster_id


async def test_a_provider_that_is_not_configured_is_refused_at_once(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    raw = definition(llm_labeling={"enabled": True, "model_name": "gpt-4o-mini-2024-07-18"})
    with pytest.raises(InvalidRequestError, match="no API key for 'openai'"):
        await app.clusters.create(caller, raw)
