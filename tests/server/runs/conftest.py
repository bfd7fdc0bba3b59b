"""One app for each file of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from app_runs import add_colors
from qdrant_client import AsyncQdrantClient

from server.app import App
from server.config import Settings
from server.qdrant.client import connect_async
from server.tenancy import Caller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    settings = Settings(
        dev=True, data_dir=tmp_path_factory.mktemp("data"), device="cpu", shutdown_grace_s=0
    )
    async with App(settings) as app:
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def qdrant(app: App) -> AsyncIterator[AsyncQdrantClient]:
    client = connect_async(app.qdrant_address)
    await add_colors(client, "colors")
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caller(app: App) -> Caller:
    return await app.tenancy.authenticate(None, None)
