"""A Qdrant with documents, and the table that ends `make faults`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from fleet import Fleet, fill, fleet_of
from qdrant_client import QdrantClient

from server.qdrant.client import connect
from server.qdrant.embedded.process import EmbeddedQdrant, start_embedded

COLUMNS = ("fault", "where", "end", "tries", "seconds", "what it said")
Tell = Callable[..., None]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedQdrant]:
    """A Qdrant of its own, with four groups of documents in `docs`."""
    with start_embedded(tmp_path_factory.mktemp("qdrant")) as started:
        with closing(connect(started.address)) as client:
            fill(client)
        yield started


@pytest.fixture(scope="module")
def qdrant(embedded: EmbeddedQdrant) -> Iterator[QdrantClient]:
    client = connect(embedded.address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def replicas(embedded: EmbeddedQdrant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Servers on one store that are killed and replaced from test to test."""
    fleet = fleet_of(embedded.address, tmp_path_factory.mktemp("replicas"))
    yield fleet
    fleet.close()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Write a row of the table."""

    def write(fault: str, where: str, end: str, tries: int, seconds: float, said: str) -> None:
        record_property("row", [fault, where, end, tries, round(seconds, 1), said])

    return write


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the matrix, in whatever processes its tests ran."""
    rows = [
        [str(cell) for cell in value]
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(report, "user_properties", [])
        if name == "row" and report.when == "call"
    ]
    if not rows:
        return
    table = [list(COLUMNS), *sorted(rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS) - 1)]
    terminalreporter.section("faults")
    for row in table:
        start = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines = textwrap.wrap(row[-1], 70) or [""]
        terminalreporter.write_line(f"{start}  {lines[0]}")
        for line in lines[1:]:
            terminalreporter.write_line(" " * (len(start) + 2) + line)
