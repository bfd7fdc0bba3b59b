"""The pictures of docs/: taken of a real server with real documents by `make screenshots`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Opened, Opener
from shoal_command import Served, run_shoal, serving
from terminal import frames_of, picture_of

from tests.docs.conftest import DOCS
from tests.server.views.conftest import DEBIAN, READY

IMAGES = DOCS / "images"
RUN = "run --collection packages --method auto --name topics --top 12"
OTHER_RUN = "run --collection packages --method kmeans --param n_clusters=40 --name forty --json"

taken_by_hand = pytest.mark.screenshots
pytestmark = pytest.mark.timeout(3000)


def test_every_picture_is_shown_and_every_shown_picture_is_there():
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
    shown = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    }
    kept = {path for path in IMAGES.iterdir() if path.suffix in (".jpg", ".svg", ".png")}

    assert kept - shown == set()
    assert [path for path in shown if not path.is_file()] == []


def test_terminal_pictures_name_no_font_of_elsewhere():
    picture = picture_of("\x1b[1mbold\x1b[0m <b>\n", "shoal x")

    assert "&lt;b&gt;" in picture
    assert "url(" not in picture.replace("url(#", "")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the Debian catalogue."""
    if not DEBIAN.exists():
        pytest.skip(f"{DEBIAN} is not there; SHOAL_TEST_DATA names its folder")
    with serving(tmp_path_factory.mktemp("served"), "--dev") as server:
        words = ("import", DEBIAN, "--collection", "packages", "--data-dir", server.data_dir)
        done = run_shoal(*words)
        assert done.code == 0, done.err
        yield server


@pytest.fixture(scope="module")
def clustered(served: Served) -> Served:
    """The same with two finished runs, the first of them watched on a terminal."""
    frames = frames_of(*shlex.split(RUN), SHOAL_SERVER=served.address)
    running = [frame for frame in frames if re.search(r"cluster .*[1-9]\d? %", frame)] or frames
    (IMAGES / "terminal-running.svg").write_text(picture_of(running[0], f"shoal {RUN}"))
    # What follows the groups names this machine's folders.
    ending = re.split(r"\n(?:\x1b\[[\d;]*m)*cluster ", frames[-1])[0]
    (IMAGES / "terminal.svg").write_text(picture_of(ending, f"shoal {RUN}"))
    assert "most typical documents" in frames[-1]
    done = run_shoal(*shlex.split(OTHER_RUN), SHOAL_SERVER=served.address)
    assert done.code == 0, done.err
    return served


def written(served: Served, folder: Path, *words: str) -> Path:
    page = folder / f"{words[0]}.html"
    done = run_shoal(*words, "-o", page, SHOAL_SERVER=served.address, timeout_s=1200)
    assert done.code == 0, done.err
    return page


def opened_page(open_file: Opener, page: Path, scheme: str = "light") -> Opened:
    opened = open_file(page, scheme)
    opened.page.wait_for_function(READY)
    assert opened.complaints == []
    return opened


def take(opened: Opened, name: str, **options: Any) -> None:
    opened.page.screenshot(path=IMAGES / name, type="jpeg", quality=80, **options)


@taken_by_hand
def test_the_map_light_and_dark(clustered: Served, open_file: Opener, tmp_path: Path):
    page = written(clustered, tmp_path, "map", "topics", "--field", "description")

    light = opened_page(open_file, page)
    assert "20,000 documents" in light.text("header")
    take(light, "map.jpg")
    dark = opened_page(open_file, page, "dark")
    dark.page.click("#group-list li:nth-child(2) button")
    dark.page.wait_for_selector("#chosen", state="visible")
    take(dark, "map-group.jpg")


@taken_by_hand
def test_the_report(clustered: Served, open_file: Opener, tmp_path: Path):
    opened = opened_page(open_file, written(clustered, tmp_path, "report", "topics"))

    take(opened, "report.jpg")
    assert opened.page.locator(".chart").count() >= 3
    heading = opened.page.locator("h2:has-text('Quality')")
    heading.evaluate("heading => heading.scrollIntoView()")
    take(opened, "report-quality.jpg")


@taken_by_hand
def test_two_runs_compared(clustered: Served, open_file: Opener, tmp_path: Path):
    opened = opened_page(open_file, written(clustered, tmp_path, "compare", "topics", "forty"))

    take(opened, "compare.jpg")
