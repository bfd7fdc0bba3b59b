"""A real browser to look at pages with, and maps to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from server.views.documents import Columns, Document
from server.views.map import NO_GROUP, MapData, MapGroup

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
DEBIAN = Path(os.environ.get("SHOAL_TEST_DATA", "../shared/data")) / "debian_packages.parquet"
WAIT_MS = 100_000
"""A busy machine draws slowly without a graphics card."""

READY = "document.documentElement.dataset.ready === 'true'"


@dataclass
class Opened:
    """A page that was opened, and what went wrong or went out on it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())


Open = Callable[..., Opened]


# Not for the session: while it is there, its loop runs in this thread, and no async test could.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def open_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Open a page from a file, as a reader does, and wait until it is drawn."""
    contexts = []

    def open_it(html: str, scheme: str = "light") -> Opened:
        path = tmp_path_factory.mktemp("page") / "page.html"
        path.write_text(html)
        context = browser.new_context(
            viewport={"width": 1280, "height": 800}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.set_default_timeout(WAIT_MS)
        opened.page.on("console", lambda message: _note(opened, message))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri(), wait_until="commit")
        opened.page.wait_for_function(READY)
        return opened

    yield open_it
    for context in contexts:
        context.close()


def _note(opened: Opened, message: Any) -> None:
    # What a driver without a graphics card says about itself is no fault of the page.
    if message.type in ("error", "warning") and "GPU stall" not in message.text:
        opened.complaints.append(message.text)


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
