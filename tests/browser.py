"""A real browser to look at pages with; a `conftest.py` takes the fixtures from here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WAIT_MS = 100_000
"""A busy machine draws slowly without a graphics card."""

# Text and what it stands on, for everything that is shown.
CONTRASTS = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => parse(c).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parse(c)[3] !== 0) return c;
    }
  };
  const found = [];
  for (const e of document.querySelectorAll("body *:not(script):not(style):not(noscript)")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const { color, fill } = getComputedStyle(e);
    const [a, b] = [light(e.closest("svg") ? fill : color), light(ground(e))].sort((p, q) => q - p);
    found.push([(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""
AA = 4.5
"""Least contrast of a text by WCAG 2, level AA."""


@dataclass
class Opened:
    """A page that was opened, and what went wrong or went out on it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())


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


Opener = Callable[..., Opened]


@pytest.fixture(scope="module")
def open_file(browser: Any) -> Iterator[Opener]:
    """Open a file offline, as a reader does, and note what goes wrong and what goes out."""
    contexts = []

    def open_it(path: Path, scheme: str = "light") -> Opened:
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
        return opened

    yield open_it
    for context in contexts:
        context.close()


def _note(opened: Opened, message: Any) -> None:
    # What a driver without a graphics card says about itself is no fault of the page.
    if message.type in ("error", "warning") and "GPU stall" not in message.text:
        opened.complaints.append(message.text)
