"""A run that does not fit into its worker: the one number that is made up is the free memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from app_runs import run
from dask_processes import dask_processes
from gpu_mixtures import mixture

from server.app import App
from server.config import Settings
from server.engine.model import NoWorkerError
from server.qdrant.client import connect
from server.qdrant.importer import import_parquet

N_DOCUMENTS, N_DIMS, N_GROUPS = 3_000, 8, 5
FREE_BYTES = 22 << 20
"""Enough for some 2 000 of the documents."""

WITHIN_S = 90

LITTLE_MEMORY = f"""
import gpu.clustering
from server.jobs.stages import loading

gpu.clustering.free_bytes = loading.free_bytes = lambda device: {FREE_BYTES}
loading.MEMORY_SHARE = 0
"""
"""Run in the worker before its first function; the vectors then lie on the disk."""


async def started(settings: Settings) -> App:
    """Start an app once its cluster has a worker."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await App(settings).__aenter__()
            except NoWorkerError:
                await asyncio.sleep(0.2)


def import_documents(app: App, folder: Path) -> None:
    points, _ = mixture(N_DOCUMENTS, N_DIMS, n_groups=N_GROUPS, spread=0.3, seed=2)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(points.ravel()), N_DIMS)
    pq.write_table(pa.table({"text": lists}), folder / "docs.parquet")
    client = connect(app.qdrant_address)
    try:
        import_parquet(client, "docs", [folder / "docs.parquet"], distance="Euclid")
    finally:
        client.close()


@pytest.mark.timeout(240)
async def test_hdbscan_clusters_a_sample_and_assigns_the_rest(tmp_path: Path) -> None:
    preload = tmp_path / "little_memory.py"
    preload.write_text(LITTLE_MEMORY)
    with dask_processes(tmp_path, 1, "--preload", str(preload)) as processes:
        app = await started(
            Settings(
                dev=True, data_dir=tmp_path / "data", device="cpu", shutdown_grace_s=0,
                dask_address=processes.address,
            )
        )  # fmt: skip
        try:
            await asyncio.to_thread(import_documents, app, tmp_path)
            cluster = await run(
                app,
                await app.tenancy.authenticate(None, None),
                {"collection_ids": ["docs"], "vector_config": {"clustering_method": "hdbscan"}},
            )
        finally:
            await app.__aexit__()

    assert cluster.status == "COMPLETED"
    (warning,) = (told for told in cluster.runs[-1].warnings if told.startswith("hdbscan on "))
    assert f"hdbscan on {N_DOCUMENTS:,} documents needs about " in warning
    assert "is clustered, and every other document goes to its nearest group" in warning
    result = cluster.runs[-1].result
    assert result is not None
    assert result.num_clusters == N_GROUPS
    assert result.num_documents == N_DOCUMENTS
    # A group's radius is the 95th percentile of its members in the sample.
    assert result.num_noise < 0.15 * N_DOCUMENTS
    assert list((tmp_path / "data" / "artifacts").rglob(".shoal-*")) == []
    assert sum(result.quality_metrics["sizes"]["all"]) == N_DOCUMENTS - result.num_noise
