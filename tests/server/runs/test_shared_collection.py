"""Runs where a namespace's collections share one Qdrant collection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from app_runs import run

from server.app import App
from server.config import Settings
from server.errors import InvalidRequestError
from server.jobs.enriching import parse_enrichment
from server.qdrant.client import connect
from server.qdrant.errors import ImportFileError
from server.qdrant.importer import import_parquet
from server.qdrant.shared import SharingClient
from server.tenancy import DEV_ORGANIZATION, Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 40


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    settings = Settings(
        dev=True, data_dir=tmp_path_factory.mktemp("data"), device="cpu", shutdown_grace_s=0,
        collection_template="{namespace_id}/{collection_id}",
    )  # fmt: skip
    async with App(settings) as app:
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caller(app: App) -> Caller:
    return await app.tenancy.authenticate(None, None)


@pytest.fixture(scope="module")
def client(app: App, caller: Caller, tmp_path_factory: pytest.TempPathFactory) -> SharingClient:
    """A client; `docs` and `mail` have documents of two groups each, in one Qdrant collection."""
    client = connect(app.qdrant_address)
    folder = tmp_path_factory.mktemp("files")
    for name, first in (("docs", 0), ("mail", 1000)):
        import_parquet(client, caller.qdrant_name(name), [file_of(folder, name, first)])
    return client


def file_of(folder: Path, name: str, first: int) -> Path:
    rng = np.random.default_rng(first)
    rows = np.eye(2, 4)[np.arange(N_POINTS) % 2] + rng.normal(0, 0.05, (N_POINTS, 4))
    path = folder / f"{name}-{first}.parquet"
    table = {
        "id": np.arange(first, first + N_POINTS),
        "text": rows.astype(np.float32).tolist(),
        "kind": [f"{name} {number % 2}" for number in range(N_POINTS)],
    }
    pq.write_table(
        pa.table({**table, "text": pa.array(table["text"], pa.list_(pa.float32()))}), path
    )
    return path


def definition(**changes: Any) -> dict[str, Any]:
    return {
        "collection_ids": ["docs"],
        "vector_config": {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 2}},
        **changes,
    }


def enriched(client: SharingClient, caller: Caller, field: str = "cluster_id") -> set[Any]:
    """Give the ids of the documents, of any collection, that have a field."""
    points, _ = client.scroll(caller.namespace_id, limit=1000)
    return {point.id for point in points if field in (point.payload or {})}


async def test_a_run_reads_and_writes_its_own_collections_alone(
    app: App, caller: Caller, client: SharingClient
) -> None:
    cluster = await run(app, caller, definition(enrich_source_collection=True))
    assert cluster.status == "COMPLETED", cluster.runs[-1].error
    assert cluster.runs[-1].result is not None
    assert cluster.runs[-1].result.num_documents == N_POINTS
    assert enriched(client, caller) == set(range(N_POINTS))

    both = await run(app, caller, definition(collection_ids=["docs", "mail"]))
    assert both.runs[-1].result is not None
    assert both.runs[-1].result.num_documents == 2 * N_POINTS
    output = both.runs[-1].result.outputs[0]
    assert output.name == f"{caller.namespace_id}__{output.collection_id}"
    assert client.count(output.name).count == 2 * N_POINTS + 2
    members = app.findings.members(caller, both.cluster_id, "cl_0", with_payload=True)
    payloads = [(m.row["source_collection_id"], m.payload) async for m in members]
    assert {name for name, _ in payloads} == {"docs", "mail"}
    assert all(payload and payload["collection_id"] == name for name, payload in payloads)


async def test_what_is_not_there_is_not_seen(
    app: App, caller: Caller, client: SharingClient
) -> None:
    await app.tenancy.create_namespace(DEV_ORGANIZATION, "other")
    stranger = await app.tenancy.authenticate(None, "other")
    for who, name in ((caller, "letters"), (stranger, "docs")):
        with pytest.raises(InvalidRequestError, match="does not exist"):
            await app.clusters.create(who, definition(collection_ids=[name]))


async def test_fields_are_written_into_one_collection_alone(
    app: App, caller: Caller, client: SharingClient
) -> None:
    by_kind = {"cluster_type": "attribute", "attribute_config": {"attributes": ["kind"]}}
    cluster = await run(app, caller, definition(collection_ids=["mail"]) | by_kind)
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    assert {group.label for group in groups} == {"kind: mail 0", "kind: mail 1"}
    wanted = {
        "cluster_id": cluster.cluster_id,
        "collection_id": "mail",
        "filters": {"AND": [{"field": "kind", "operator": "eq", "value": "mail 0"}]},
        "source_enrichment_config": {
            "field_mappings": [{"source_field": "cluster_label", "target_field": "shelf"}]
        },
    }
    done = await app.results.enrichments.enrich(caller, parse_enrichment(wanted))
    assert done.report.enriched == N_POINTS // 2
    assert enriched(client, caller, "shelf") == set(range(1000, 1000 + N_POINTS, 2))


async def test_an_id_of_another_collection_is_not_taken_over(
    app: App, caller: Caller, client: SharingClient, tmp_path: Path
) -> None:
    with pytest.raises(ImportFileError, match="is a document of docs"):
        import_parquet(client, caller.qdrant_name("letters"), [file_of(tmp_path, "letters", 20)])
    assert client.count(caller.qdrant_name("docs")).count == N_POINTS
