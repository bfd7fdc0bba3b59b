"""One dev server for all tests of the command line, and a collection in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shoal_command import (
    N_GROUPS,
    N_PER_GROUP,
    Ended,
    Served,
    Shoal,
    call_shoal,
    run_shoal,
    serving,
    write_documents,
)


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents") / "documents.parquet")


@pytest.fixture(scope="session")
def dev_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), "--dev") as served:
        yield served


@pytest.fixture(scope="session")
def collection(dev_server: Served, documents: Path) -> str:
    """A collection that was imported beside the running server."""
    words = ("import", documents, "--collection", "docs", "--data-dir", dev_server.data_dir)
    done = run_shoal(*words, "--json")
    assert done.code == 0, done.err
    assert done.json()["points"] == N_GROUPS * N_PER_GROUP
    return "docs"


@pytest.fixture(scope="session")
def shoal(dev_server: Served) -> Shoal:
    """A client command against the session's server."""

    def call(*words: str | Path) -> Ended:
        return call_shoal(*words, SHOAL_SERVER=dev_server.address)

    return call
