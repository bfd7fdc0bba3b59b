"""Jobs inside a group of another job."""

from __future__ import annotations

from typing import Any

import pytest
from app_runs import N_PER_GROUP, definition, run
from qdrant_client import AsyncQdrantClient

from server.app import App
from server.errors import InvalidRequestError
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")


def inside(cluster_id: str, group_id: str, **more: Any) -> dict[str, Any]:
    return definition(
        parent_cluster_id=cluster_id,
        parent_group_id=group_id,
        vector_config={"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 3}},
        **more,
    )


async def test_a_group_is_clustered_again_and_both_jobs_know(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    parent = await run(app, caller, definition())
    members = {
        member.row["source_document_id"]
        async for member in app.findings.members(caller, parent.cluster_id, "cl_1")
    }

    child = await run(app, caller, inside(parent.cluster_id, "cl_1"))

    result = child.runs[-1].result
    assert result is not None
    assert result.num_documents == N_PER_GROUP
    found = set()
    for group_id in ("cl_0", "cl_1", "cl_2"):
        async for member in app.findings.members(caller, child.cluster_id, group_id):
            found.add(member.row["source_document_id"])
    assert found == members
    assert child.definition.parent_cluster_id == parent.cluster_id
    again = await app.clusters.get(caller, parent.cluster_id)
    assert again.child_cluster_ids == [child.cluster_id]


async def test_what_is_wrong_with_a_parent_is_told(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    parent = await run(app, caller, definition())
    draft = await app.clusters.create(caller, definition(), execute=False)

    for raw, says in (
        (inside("clust_unknown", "cl_0"), "does not exist"),
        (inside(parent.cluster_id, "cl_9"), "it has cl_0, cl_1, cl_2, cl_3"),
        (inside(draft.cluster_id, "cl_0"), "its status is DRAFT"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            await app.clusters.create(caller, raw)
