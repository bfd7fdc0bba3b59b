"""The site: whole, strict about links, and readable without a network."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Opener

from tests.docs.conftest import DOCS, build

ASSETS = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    """What a page loads, where it leads, and what in it can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if address := values.get(ASSETS.get(tag, "")):
            self.loaded.append(address)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.name: Page(path) for path in site.glob("*.html")}


def test_every_page_of_the_folder_is_in_the_site_and_in_its_contents(site: Path, pages):
    written = {path.stem for path in DOCS.glob("*.md")} - {"README"}

    assert written <= {name.removesuffix(".html") for name in pages}
    linked = {link.partition("#")[0] for link in pages["index.html"].links}
    assert {f"{name}.html" for name in written - {"index"}} <= linked
    assert "clusters.v1.ClusterService" in (site / "changelog.html").read_text()


def test_every_link_within_the_site_leads_somewhere(site: Path, pages):
    broken = []
    for name, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = unquote(parts.path) or name
            known = pages[target].ids if target in pages else set()
            is_there = (site / target).is_file()
            if not is_there or (parts.fragment and known and parts.fragment not in known):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages):
    loaded = {address for page in pages.values() for address in page.loaded}
    styles = "".join(path.read_text() for path in site.rglob("*.css"))

    assert loaded
    assert [address for address in loaded if urlsplit(address).netloc] == []
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"';]*", styles) == []


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path):
    shutil.copy(DOCS / "conf.py", tmp_path)
    (tmp_path / "static").mkdir()
    page = tmp_path / "index.md"

    for link in ("no-such-page.md", "#no-such-heading", "index.md#nor-here"):
        page.write_text(f"# Title\n\n[a link]({link})\n")
        done = build(tmp_path, tmp_path / "built")
        assert done.returncode != 0
        assert link.rpartition("#")[2] in done.stderr
    page.write_text("# Title\n\n![a picture](images/none.png)\n")
    assert "none.png" in build(tmp_path, tmp_path / "built").stderr


def test_the_site_is_read_and_searched_from_a_disk(site: Path, open_file: Opener):
    opened = open_file(site / "index.html")
    page = opened.page

    page.get_by_role("link", name="The contract", exact=True).first.click()
    page.wait_for_selector("h1:has-text('The contract')")
    page.fill("input[name=q] >> visible=true", "heartbeat")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_inner_texts()

    assert any("contract" in title.lower() for title in found)
    assert opened.complaints == []
    assert {urlsplit(url).scheme for url in opened.requests} <= {"file", "data"}
    missing = page.evaluate("[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)")
    assert missing == []
