"""The session's Qdrant, and a small run's results to keep."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient
from qdrant_fixtures import *  # noqa: F403

from server.jobs.model import OutputCollection
from server.results.outputs import remove_outputs


@pytest.fixture
def output(client: QdrantClient) -> Iterator[OutputCollection]:
    """An output collection that nobody else uses; all of it is removed at the end."""
    name = f"out-{uuid.uuid4().hex[:12]}"
    planned = OutputCollection(collection_id=name, name=name, generation=f"{name}.run_1")
    yield planned
    remove_outputs(client, planned)
