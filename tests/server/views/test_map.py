"""The map as data and as a static picture."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

from server.views import page
from server.views.documents import Columns, choose_columns, document_of
from server.views.map import NO_GROUP, map_page
from server.views.names import name_of
from server.views.page import PicturesNotInstalledError
from server.views.png import map_png
from tests.server.views.conftest import map_of, small_map

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_picture_is_drawn_without_a_browser():
    content = map_png(small_map())

    assert content[:8] == PNG
    assert struct.unpack(">II", content[16:24]) == (1920, 1200)


def test_odd_maps_are_drawn_too():
    one_point = map_of(np.zeros((1, 2)), np.full(1, NO_GROUP), ["lonely"], [])
    formula = map_of(np.ones((5, 2)), np.zeros(5), list("abcde"), ["$\\frac{$ <b>"])

    assert map_png(one_point)[:8] == PNG
    assert map_png(formula)[:8] == PNG


def test_a_group_is_seen_in_its_colour_and_a_picture_is_no_blank():
    whole, without = map_png(small_map()), map_png(small_map(titles=["x"] * 80))
    moved = small_map()
    moved = replace(moved, group_of=np.full_like(moved.group_of, NO_GROUP))

    assert whole == without
    assert map_png(moved) != whole


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    page.plotly_script.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(PicturesNotInstalledError, match=r"plotly: pip install 'shoal\[viz\]'"):
        map_page(small_map())
    with pytest.raises(PicturesNotInstalledError, match="matplotlib"):
        map_png(small_map())


def test_plotly_s_bundle_is_put_in_brackets_and_nothing_else_is_changed():
    from plotly.offline import get_plotlyjs

    shipped, used = get_plotlyjs(), page.compiled_at_once(get_plotlyjs())

    assert len(used) == len(shipped) + 2
    assert "(() => {" in used[:999]
    undone = used.replace("(() => {", "() => {", 1).removesuffix("})));") + "}));"
    assert hash(undone) == hash(shipped)  # No difference of megabytes is printed.
    for other in ("var Plotly = 1;", "(function(f) {}(() => {}))", shipped[:-9], ""):
        assert page.compiled_at_once(other) == other


def test_a_group_that_nobody_named_is_told_by_its_words():
    assert name_of("Cluster 7", ["perl", "lang", "module"]) == "perl, lang"
    assert name_of("Cluster 7", []) == "Cluster 7"
    assert name_of("Cluster 7 of Mars", ["perl"]) == "Cluster 7 of Mars"


def test_titles_are_the_usual_field_that_there_is():
    payloads = [{"zeta": "z", "name": "n", "vector": [0.5] * 50}, {"title": "t", "name": "n"}]

    assert choose_columns(payloads).titles == ("title", "name")
    assert choose_columns([{"zeta": "z", "beta": "b"}]).titles == ("beta",)
    assert choose_columns([{"price": 3}]).titles == ()
    assert choose_columns(payloads, "zeta").titles == ("zeta",)


def test_fields_beside_the_title_are_short():
    payload = {
        "title": "t",
        "year": 2001,
        "tags": ["a", "b"],
        "body": "long " * 500,
        "deep": {"a": 1},
    }

    assert choose_columns([payload]).fields == ("year", "tags")
    assert choose_columns([payload], fields=["deep.a"]).fields == ("deep.a",)


@pytest.mark.parametrize(
    ("payload", "title", "values"),
    [
        ({"title": " a\n b ", "year": 1.0}, "a b", ("1", "")),
        ({"title": "", "tags": ["x", 2]}, "7", ("", "x, 2")),
        ({"title": "t" * 500, "year": True}, "t" * 119 + "…", ("yes", "")),
        ({"title": None, "year": {"a": 1}}, "7", ('{"a": 1}', "")),
        (None, "7", ("", "")),
    ],
)
def test_any_payload_can_be_put_into_words(payload, title, values):
    document = document_of("7", payload, Columns(("title",), ("year", "tags")))

    assert (document.title, document.values) == (title, values)
