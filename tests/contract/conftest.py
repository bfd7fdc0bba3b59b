"""Both stores, each on an empty database. `open_store` opens one more on the same database."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from mongo_process import mongo_process
from store_records import OpenStore

from server.stores.base import JobStore
from server.stores.mongo import MongoStore
from server.stores.sqlite import SqliteStore


@pytest.fixture(scope="session")
def mongodb_uri() -> Iterator[str]:
    """A MongoDB: the one that is named, else the one that was built, else none."""
    named = os.environ.get("SHOAL_TEST_MONGODB_URI")
    if named:
        yield named
        return
    with mongo_process() as (uri, _):
        yield uri


@pytest.fixture(params=["sqlite", "mongo"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Open a store on this test's own database, as often as it is called."""
    if request.param == "sqlite":

        def make() -> JobStore:
            return SqliteStore(tmp_path / "jobs.db")
    else:
        uri, name = request.getfixturevalue("mongodb_uri"), f"shoal_test_{uuid.uuid4().hex[:12]}"

        def make() -> JobStore:
            return MongoStore(uri, name)

    opened: list[JobStore] = []

    async def open_another() -> JobStore:
        store = make()
        await store.open()
        opened.append(store)
        return store

    yield open_another
    if opened and isinstance(opened[0], MongoStore):
        await opened[0].open()
        await opened[0]._client.drop_database(opened[0]._name)
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> JobStore:
    """An open store on an empty database."""
    return await open_store()
