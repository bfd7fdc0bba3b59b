"""The page of figures: every result file has its section, whatever its columns."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def render(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import render

    yield render
    for name in ("render", "machine"):
        sys.modules.pop(name, None)


MACHINE = {"processor": "a <chip>", "cores": 2, "load_average_1m": 0.5, "packages": {"numpy": "2"}}


def test_a_result_becomes_a_table_and_a_plot(render, tmp_path):
    body = {
        "machine": MACHINE,
        "about": {
            "title": "Reading",
            "note": "All take turns.",
            "value": "per_s",
            "labels": ["what", "who"],
        },
        "results": [
            {"what": "ids", "who": "peer & co", "per_s": 20_123.4, "is_exact": True},
            {"what": "ids", "who": "shoal", "per_s": 400_000.0, "is_exact": None},
        ],
    }
    results = tmp_path / "results"
    results.mkdir()
    (results / "reading.json").write_text(json.dumps(body))
    (results / "plain.json").write_text(json.dumps({"machine": {}, "results": [{"a": 0.01234}]}))

    page = render.render(results, tmp_path / "docs").read_text()

    assert "## Reading\n\nAll take turns.\n\na <chip>, 2 cores; load average 0.5; numpy 2." in page
    assert "| ids | peer & co | 20,123 | yes |" in page
    assert "| ids | shoal | 400,000 |  |" in page
    assert "## plain" in page
    assert "| 0.0123 |" in page
    svg = ET.fromstring((tmp_path / "docs" / "performance" / "reading.svg").read_text())
    widths = [float(r.get("width")) for r in svg.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] / widths[1] == pytest.approx(20_123.4 / 400_000, rel=0.01)
    assert not (tmp_path / "docs" / "performance" / "plain.svg").exists()


def test_every_stored_result_can_be_shown(render, tmp_path):
    page = render.render(docs=tmp_path).read_text()
    for path in (BENCHMARKS / "results").glob("*.json"):
        title = json.loads(path.read_text()).get("about", {}).get("title") or path.stem
        assert f"## {title}\n" in page
