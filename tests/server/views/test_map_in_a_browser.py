"""The map as a reader meets it: opened from a file, in a real browser that is offline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import AA, CONTRASTS

from server.results.maps import thin
from server.views.colors import DARK, LIGHT
from server.views.map import NO_GROUP, MapData, map_page
from tests.server.views.conftest import Open, Opened, map_of, small_map

FOCUSED = "document.activeElement.id || document.activeElement.textContent"


def at_point(opened: Opened, data: MapData, row: int) -> tuple[float, float]:
    """Where a document is on the screen."""
    x, y = data.places[row].tolist()
    place = opened.page.evaluate(
        """([x, y]) => {
          const { xaxis, yaxis, _size } = document.getElementById("plot")._fullLayout;
          const box = document.getElementById("plot").getBoundingClientRect();
          return [box.x + _size.l + xaxis.l2p(x), box.y + _size.t + yaxis.l2p(y)];
        }""",
        [x, y],
    )
    return place[0], place[1]


SMALL = small_map()


@pytest.fixture(scope="module")
def opened_once(open_page: Open) -> Opened:
    return open_page(map_page(SMALL))


@pytest.fixture
def opened(opened_once: Opened) -> Iterator[Opened]:
    """The small map, as it is when it has just been opened."""
    yield opened_once
    opened_once.page.keyboard.press("Escape")
    opened_once.page.evaluate("document.activeElement.blur()")
    opened_once.page.mouse.move(1, 1)


def test_twenty_thousand_real_documents_open_offline(
    debian_map: MapData, open_page: Open, record_property: Any
):
    begun = time.perf_counter()
    opened = open_page(map_page(debian_map))
    record_property("seconds_to_open", time.perf_counter() - begun)

    assert opened.complaints == []
    assert [url.split("/")[-1] for url in opened.requests] == ["page.html"]
    assert "20,000 documents in 58 groups" in opened.text("header")
    opened.page.fill("#search", "python")
    opened.page.wait_for_selector("#hit-list button")
    expected = sum("python" in d.title.lower() for d in debian_map.documents)
    assert f"{expected:,} documents" in opened.text("#found")
    opened.page.click("#theme")
    assert opened.complaints == []


def test_pointing_at_a_document_tells_about_it(opened: Opened):
    opened.page.mouse.move(*at_point(opened, SMALL, 25))

    opened.page.wait_for_selector("#tip", state="visible")
    words = opened.text("#tip")
    near = {d.title for d, g in zip(SMALL.documents, SMALL.group_of, strict=True) if g == 1}
    assert words.splitlines()[0] in near
    assert "Group 1" in words
    assert "kind 1" in words


def test_a_click_on_a_document_tells_about_its_group(opened: Opened):
    opened.page.mouse.click(*at_point(opened, SMALL, 45))

    opened.page.wait_for_selector("#chosen", state="visible")
    words = opened.text("#chosen")
    assert "Group 2" in words
    assert "word2, common" in words
    assert opened.page.locator("#chosen li").all_inner_texts() == [
        f"document {row}" for row in range(40, 50)
    ]
    opened.page.keyboard.press("Escape")
    assert opened.page.locator("#chosen").is_hidden()


def test_a_search_marks_what_it_finds(opened: Opened):
    marked = "document.getElementById('plot').data.at(-1).x.length"

    opened.page.fill("#search", "document 1")
    opened.page.wait_for_selector("#hit-list button")

    assert opened.text("#found") == "11 documents and 0 groups found"
    assert opened.page.evaluate(marked) == 11
    opened.page.fill("#search", "word2")
    opened.page.wait_for_function("document.getElementById('found').textContent.startsWith('0 ')")
    assert opened.text("#found") == "0 documents and 1 groups found"
    assert opened.page.locator("#group-list li:visible").count() == 1
    opened.page.fill("#search", "")
    opened.page.wait_for_function(f"{marked} === 0")


def test_noise_is_grey_and_can_be_left_out(opened: Opened):
    noise = "document.getElementById('plot').data[0]"
    red, green, blue = (
        int(opened.page.evaluate(f"{noise}.marker.color")[i : i + 2], 16) for i in (1, 3, 5)
    )

    assert red == green == blue
    opened.page.click("#noise")
    assert opened.page.evaluate(f"{noise}.visible") is False
    opened.page.click("#noise")
    assert opened.page.evaluate(f"{noise}.visible") is True


def contrasts_of(opened: Opened) -> list[tuple[float, str]]:
    """Every text's contrast while a group is chosen and a search is shown."""
    opened.page.click("#group-list button")
    opened.page.fill("#search", "document")
    opened.page.wait_for_selector("#hit-list button")
    opened.page.click("#hit-list button")
    found = [(ratio, text) for ratio, text in opened.page.evaluate(CONTRASTS)]
    assert len(found) > 40
    return found


def test_every_text_has_contrast(opened: Opened):
    assert [each for each in contrasts_of(opened) if each[0] < AA] == []


def test_dark_follows_the_system_and_the_button(open_page: Open):
    opened = open_page(map_page(SMALL), "dark")
    color = "document.getElementById('plot').data[1].marker.color"

    assert [each for each in contrasts_of(opened) if each[0] < AA] == []
    assert opened.page.evaluate(color) == DARK[0]
    opened.page.click("#theme")
    assert opened.page.evaluate(color) == LIGHT[0]
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"


def test_the_keyboard_reaches_everything(opened: Opened):
    keyboard, page = opened.page.keyboard, opened.page
    page.focus("#search")
    reached = ["search"]
    for _ in range(11):
        keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))

    assert reached[:9] == [
        "search", "noise", "names", "zoom-in", "zoom-out", "whole", "picture", "theme", "plot",
    ]  # fmt: skip
    assert [text[:7] for text in reached[9:]] == ["Group 0", "Group 1", "Group 2"]
    keyboard.press("Enter")
    assert "Group 2" in opened.text("#chosen")
    page.focus("#plot")
    before = page.evaluate("document.getElementById('plot')._fullLayout.xaxis.range")
    keyboard.press("ArrowRight")
    after = page.evaluate("document.getElementById('plot')._fullLayout.xaxis.range")
    assert after[0] > before[0]
    keyboard.press("/")
    assert page.evaluate(FOCUSED) == "search"


def test_html_in_documents_and_names_is_shown_and_never_run(open_page: Open):
    evil = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'></script>"
    data = map_of(
        np.random.default_rng(0).normal(size=(30, 2)),
        np.repeat([0, 1, NO_GROUP], 10),
        [f"{evil} {row}" for row in range(30)],
        [f"<b>{evil}</b>", "$a$ & </script>"],
    )
    opened = open_page(map_page(data))

    opened.page.mouse.move(*at_point(opened, data, 3))
    opened.page.wait_for_selector("#tip", state="visible")
    opened.page.click("#group-list button")
    opened.page.fill("#search", "onerror")
    opened.page.wait_for_selector("#hit-list button")

    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("#hit-list button").first.inner_text() == f"{evil} 0"
    assert opened.page.locator("img").count() == 0
    names = opened.page.locator(".annotation-text").all_text_contents()
    assert "$a$ & </script>" in names
    assert opened.complaints == []
    assert [url.split("/")[-1] for url in opened.requests] == ["page.html"]


def test_one_group_and_only_noise_are_maps_too(open_page: Open):
    alone = map_of(
        np.random.default_rng(0).normal(size=(9, 2)), np.zeros(9), list("abcdefghi"), ["All"]
    )
    noise = map_of(np.zeros((1, 2)), np.full(1, NO_GROUP), ["lonely"], [])

    one = open_page(map_page(alone))
    nothing = open_page(map_page(noise))

    assert "9 documents in 1 groups" in one.text("header")
    assert one.page.locator("#noise").is_disabled()
    assert "every document is noise" in nothing.text("aside")
    assert one.complaints == nothing.complaints == []


def test_a_few_documents_far_away_do_not_spoil_the_opening_view(open_page: Open):
    rng = np.random.default_rng(4)
    places = np.vstack([rng.normal(size=(998, 2)), [[90, 0], [0, -70]]])
    opened = open_page(
        map_page(map_of(places, np.zeros(1000), [f"document {row}" for row in range(1000)], ["A"]))
    )
    width = (
        "Math.abs(document.getElementById('plot')._fullLayout.xaxis.range.reduce((a, b) => a - b))"
    )

    assert opened.page.evaluate(width) < 30
    assert "lie far from all others" in opened.text("#found")
    opened.page.click("#whole")
    opened.page.wait_for_function(f"{width} > 90")
    assert opened.complaints == []


def test_a_million_documents_are_thinned_fairly_and_open(open_page: Open):
    n_documents, n_shown, n_groups = 1_000_000, 200_000, 40
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.ones(n_groups))
    group_of = np.sort(rng.choice(n_groups, size=n_documents, p=shares))
    table = pa.table(
        {
            "source_collection_id": pa.repeat("docs", n_documents),
            "source_document_id": pa.array(np.arange(n_documents)).cast(pa.string()),
            "cluster_id": pa.array([f"cl_{group}" for group in range(n_groups)]).take(group_of),
        }
    )
    thinned = thin(table, n_shown)
    rows = thinned["source_document_id"].cast(pa.int64()).to_numpy()
    shown = group_of[rows]

    opened = open_page(
        map_page(
            replace(
                map_of(
                    rng.normal(size=(n_shown, 2)) + shown[:, None],
                    shown,
                    thinned["source_document_id"].to_pylist(),
                    [f"Group {group}" for group in range(n_groups)],
                ),
                n_documents=n_documents,
            )
        )
    )

    assert len(rows) == n_shown
    expected = np.bincount(group_of, minlength=n_groups) * n_shown / n_documents
    assert np.abs(np.bincount(shown, minlength=n_groups) - expected).max() < 3
    assert "1,000,000 documents in 40 groups; 200,000 of them shown" in opened.text("header")
    assert opened.complaints == []
