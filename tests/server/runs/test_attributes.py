"""Groups by payload fields: no vectors needed."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from app_runs import run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.errors import InvalidRequestError
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTS: list[dict[str, Any]] = [
    {"shop": {"aisle": "shoes"}, "brand": "Nord", "sizes": [42, 43], "price": 10},
    {"shop": {"aisle": "shoes"}, "brand": "Nord", "sizes": [42], "price": 10},
    {"shop": {"aisle": "shoes"}, "brand": "Süd", "sizes": [], "price": 20},
    {"shop": {"aisle": "hats"}, "brand": "Nord", "sizes": ["42"], "price": 30},
    {"brand": "Nord", "price": 10},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(qdrant: AsyncQdrantClient) -> str:
    await qdrant.create_collection("shop", vectors_config={})
    await qdrant.upsert(
        "shop",
        [models.PointStruct(id=n, vector={}, payload=doc) for n, doc in enumerate(DOCUMENTS)],
        wait=True,
    )
    return "shop"


def by(*attributes: str, **more: Any) -> dict[str, Any]:
    return {
        "collection_ids": ["shop"],
        "cluster_type": "attribute",
        "attribute_config": {"attributes": list(attributes), **more},
    }


async def groups_of(app: App, caller: Caller, raw: dict[str, Any]) -> dict[str, Any]:
    cluster = await run(app, caller, raw)
    assert cluster.status == "COMPLETED", cluster.runs[-1].error
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    found = {}
    for group in groups:
        members = app.findings.members(caller, cluster.cluster_id, group.cluster_id)
        ids = [int(member.row["source_document_id"]) async for member in members]
        found[group.label] = (group, sorted(ids))
    return found


async def test_each_value_is_a_group_and_so_is_a_missing_one(
    app: App, caller: Caller, shop: str
) -> None:
    found = await groups_of(app, caller, by("shop.aisle"))
    members = {label: ids for label, (_, ids) in found.items()}
    assert members == {
        "shop.aisle: shoes": [0, 1, 2],
        "shop.aisle: hats": [3],
        "shop.aisle: (missing)": [4],
    }


async def test_a_list_gives_a_membership_for_each_value(
    app: App, caller: Caller, shop: str
) -> None:
    found = await groups_of(app, caller, by("sizes"))
    members = sorted(ids for _, ids in found.values())
    assert members == [[0], [0, 1], [2, 4], [3]]  # 43; 42; missing; the text "42".


async def test_the_first_attribute_makes_parents(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, shop: str
) -> None:
    cluster = await run(app, caller, by("brand", "shop.aisle", hierarchical_grouping=True))
    result = cluster.runs[-1].result
    assert result is not None
    assert result.num_clusters == 4
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    parents = {group.label for group in groups if group.parent_cluster_id is None}
    assert parents == {"brand: Nord", "brand: Süd"}
    nord = next(group for group in groups if group.label == "brand: Nord")
    assert nord.member_count == 4
    assert nord.fields["price"] == 10
    assert len(result.hierarchy_relationships) == 4
    below = app.findings.members(caller, cluster.cluster_id, nord.cluster_id)
    assert sum([1 async for _ in below]) == 4
    documents, _ = await qdrant.scroll(result.outputs[0].name, limit=100)
    assert sum(1 for point in documents if point.payload and point.payload["is_centroid"]) == 6


async def test_attributes_that_no_document_has_are_refused_by_name(
    app: App, caller: Caller, shop: str
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await app.clusters.create(caller, by("brand", "colour", "shop.aisel"))
    told = {fault.field: fault.description for fault in raised.value.violations}
    assert set(told) == {"attribute_config.attributes[1]", "attribute_config.attributes[2]"}
    assert "'shop.aisel'" in told["attribute_config.attributes[2]"].replace('"', "'")


async def test_an_attribute_that_no_document_of_the_filter_has_fails_with_its_name(
    app: App, caller: Caller, shop: str
) -> None:
    without = {"AND": [{"field": "shop.aisle", "operator": "exists", "value": False}]}
    cluster = await run(app, caller, by("shop.aisle", "brand") | {"filters": without})
    error = cluster.runs[-1].error
    assert cluster.status == "FAILED"
    assert error is not None
    assert "shop.aisle" in error.message
