"""A real browser to look at pages with, and maps to look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import *  # noqa: F403
from browser import Opened, Opener

from server.views.documents import Columns, Document
from server.views.map import NO_GROUP, MapData, MapGroup

DEBIAN = Path(os.environ.get("SHOAL_TEST_DATA", "../shared/data")) / "debian_packages.parquet"
READY = "document.documentElement.dataset.ready === 'true'"


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def open_page(open_file: Opener, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Open a page from a file of its own and wait until it is drawn."""

    def open_it(html: str, scheme: str = "light") -> Opened:
        path = tmp_path_factory.mktemp("page") / "page.html"
        path.write_text(html)
        opened = open_file(path, scheme)
        opened.page.wait_for_function(READY)
        return opened

    return open_it


def map_of(
    places: np.ndarray, group_of: np.ndarray, titles: list[str], labels: list[str], **more: Any
) -> MapData:
    """A map with one field, where every group's first members are its nearest."""
    documents = [
        Document(str(row), title, (f"kind {group}",))
        for row, (title, group) in enumerate(zip(titles, group_of.tolist(), strict=True))
    ]
    groups = [
        MapGroup(
            cluster_id=f"cl_{number}",
            label=label,
            member_count=int((group_of == number).sum()),
            keywords=(f"word{number}", "common"),
            place=tuple(np.median(places[group_of == number], axis=0).tolist()),
            nearest=[documents[row] for row in np.flatnonzero(group_of == number)[:10]],
        )
        for number, label in enumerate(labels)
    ]
    return MapData(
        cluster_name="packages",
        run_id="run_1",
        groups=groups,
        places=places.astype(np.float32),
        group_of=group_of.astype(np.int32),
        documents=documents,
        n_documents=len(places),
        columns=Columns(("name",), ("kind",)),
        **more,
    )


def small_map(n_groups: int = 3, titles: list[str] | None = None) -> MapData:
    """Twenty documents in each group and of noise, far apart from the others."""
    rng = np.random.default_rng(3)
    group_of = np.repeat([*range(n_groups), NO_GROUP], 20)
    angles = 2 * np.pi * (group_of + 1) / (n_groups + 1)
    places = 10 * np.column_stack([np.cos(angles), np.sin(angles)])
    places += rng.normal(scale=0.6, size=places.shape)
    names = titles or [f"document {row}" for row in range(len(group_of))]
    return map_of(places, group_of, names, [f"Group {number}" for number in range(n_groups)])


@pytest.fixture(scope="session")
def debian_map() -> MapData:
    """20 000 real documents in groups by section, laid out by their two strongest directions."""
    if not DEBIAN.exists():
        pytest.skip(f"{DEBIAN} is not there; SHOAL_TEST_DATA names its folder")
    table = pq.read_table(DEBIAN)
    vectors = np.array(table["text_embedding"].combine_chunks().flatten(), dtype=np.float32)
    vectors = vectors.reshape(len(table), -1)
    vectors -= vectors.mean(axis=0)
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    sections = table["section"].to_pylist()
    names, counts = np.unique(sections, return_counts=True)
    labels = names[np.argsort(-counts)].tolist()
    number = {name: at for at, name in enumerate(labels)}
    group_of = np.array([number[section] for section in sections])
    group_of[::10] = NO_GROUP
    places = vectors @ directions[:, -2:]
    titles = [
        f"{n}: {d}"
        for n, d in zip(table["name"].to_pylist(), table["description"].to_pylist(), strict=True)
    ]
    return map_of(places, group_of, titles, labels)
