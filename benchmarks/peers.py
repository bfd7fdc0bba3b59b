"""Peers side by side: what reading and writing share, from the servers to the table."""

from __future__ import annotations

import argparse
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import RESULTS, About, machine_facts, taking_turns, write_result
from qdrant_client import grpc as pb
from rich.console import Console
from rich.table import Table

from server.qdrant.client import QdrantAddress, connect
from server.qdrant.embedded import start_embedded
from server.qdrant.shared import SharingClient

PACKAGES = ("grpcio", "numpy", "pandas", "protobuf", "pyarrow", "qdrant-client", "qdrant-edge-py")
UPSERTED_AT_ONCE = 500


@dataclass(frozen=True)
class Row:
    """One line of a table: how many a second, and that as a multiple of the first contestant's.

    A CPU second is one that the client's process computes, whatever else the machine does.
    """

    server: str
    what: str
    who: str
    per_s: float
    per_cpu_s: float
    median_s: float
    best_s: float
    repeats: int
    times_peer: float
    times_peer_cpu: float


def contest(
    server: str,
    what: str,
    contestants: Mapping[str, Callable[[], object]],
    *,
    n_items: int,
    repeats: int,
    peer: str,
) -> Iterator[Row]:
    """Let all take turns with `n_items` points or documents, and compare them with one."""
    timings = taking_turns(contestants, repeats=repeats)
    for who, timing in timings.items():
        yield Row(
            server,
            what,
            who,
            n_items / timing.median_s,
            n_items / timing.cpu_s,
            timing.median_s,
            timing.best_s,
            repeats,
            timings[peer].median_s / timing.median_s,
            timings[peer].cpu_s / timing.cpu_s,
        )


@contextmanager
def engines() -> Iterator[Iterator[tuple[str, QdrantAddress]]]:
    """Give the Qdrants that store: the embedded one, and a real one where its URL is set."""
    with (
        tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder,
        start_embedded(Path(folder)) as embedded,
    ):
        found = [("embedded Qdrant", embedded.address)]
        url = os.environ.get("SHOAL_BENCH_QDRANT_URL")
        if url:
            key = os.environ.get("SHOAL_BENCH_QDRANT_API_KEY")
            found.append(("Qdrant", QdrantAddress.from_url(url, api_key=key)))
        yield iter(found)


@contextmanager
def filled(
    address: QdrantAddress, vectors_config: Any, points: Iterable[pb.PointStruct]
) -> Iterator[tuple[SharingClient, str]]:
    """Make a collection of some points for the length of the block."""
    client = connect(address)
    name = f"shoal_bench_{uuid.uuid4().hex[:8]}"
    client.create_collection(name, vectors_config=vectors_config)
    try:
        waiting: list[pb.PointStruct] = []
        for point in points:
            waiting.append(point)
            if len(waiting) == UPSERTED_AT_ONCE:
                _upsert(client, name, waiting)
                waiting = []
        if waiting:
            _upsert(client, name, waiting)
        yield client, name
    finally:
        client.delete_collection(name)
        client.close()


def _upsert(client: SharingClient, name: str, points: Sequence[pb.PointStruct]) -> None:
    client.grpc_points.Upsert(pb.UpsertPoints(collection_name=name, points=points, wait=True))


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add what every contest takes from the command line."""
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / f"{name}.json", help="where the figures go"
    )


def report(rows: Iterable[Row], path: Path, name: str, title: str, note: str) -> None:
    """Measure, print, and write the result."""
    machine = machine_facts(PACKAGES)
    done = list(rows)
    caption = f"{machine['processor']}, {machine['cores']} cores, medians"
    table = Table(title=title, caption=caption)
    for heading in ("server", "what", "who"):
        table.add_column(heading)
    for heading in ("per second", "x peer", "per CPU second", "x peer"):
        table.add_column(heading, justify="right")
    for row in done:
        table.add_row(
            row.server, row.what, row.who, f"{row.per_s:,.0f}", f"{row.times_peer:.2f}",
            f"{row.per_cpu_s:,.0f}", f"{row.times_peer_cpu:.2f}",
        )  # fmt: skip
    Console(width=130).print(table)
    about = About(title, note, value="per_s", labels=("server", "what", "who"))
    write_result(path, name=name, machine=machine, results=done, about=about)
