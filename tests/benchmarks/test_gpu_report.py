"""What `make gpu-check` leaves behind: each test's outcomes and figures, written as they come."""

import json
import sys
from types import SimpleNamespace

import pytest

from tests.gpu_device import report
from tests.gpu_device.report import BENCHMARKS, Report

MACHINE = {"device": "NVIDIA H200 NVL"}


@pytest.fixture
def usable(monkeypatch):
    """Answer that a GPU is there, and name it."""
    monkeypatch.setattr(report, "gpu_unusable", lambda: None)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import device

    monkeypatch.setattr(device, "device_facts", lambda: MACHINE)
    yield
    for name in ("device", "device_parts", "device_rows", "machine"):
        sys.modules.pop(name, None)


def told(name, outcome, when="call", figures=()):
    return SimpleNamespace(
        nodeid=f"tests/gpu_device/test_memory.py::{name}",
        when=when,
        outcome=outcome,
        passed=outcome == "passed",
        duration=0.5,
        user_properties=figures,
    )


def summary_of(plugin):
    lines = []
    plugin.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    return "\n".join(lines)


def test_each_test_is_written_as_soon_as_it_ends(usable, tmp_path):
    plugin = Report(tmp_path)
    file = tmp_path / "gpu-check-nvidia-h200-nvl.json"
    plugin.pytest_runtest_logreport(told("test_a[kmeans]", "passed", "setup"))
    assert not file.exists()
    plugin.pytest_runtest_logreport(told("test_a[kmeans]", "passed", figures=[("ARI", 0.99)]))
    assert json.loads(file.read_text())["results"][0]["passed"] == 1
    plugin.pytest_runtest_logreport(told("test_a[dbscan]", "failed"))
    plugin.pytest_runtest_logreport(told("test_b", "skipped", "setup"))

    first, second = json.loads(file.read_text())["results"]

    assert (first["passed"], first["failed"], first["seconds"]) == (1, 1, 1.0)
    assert first["figures"] == {"kmeans ARI": 0.99}
    assert second["skipped"] == 1
    assert "kmeans ARI: 0.99" in summary_of(plugin)


def test_without_a_device_one_line_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "gpu_unusable", lambda: "no NVIDIA driver")
    plugin = Report(tmp_path)
    plugin.pytest_runtest_logreport(told("test_a", "skipped", "setup"))

    assert summary_of(plugin).endswith("there is no usable GPU: no NVIDIA driver")
    assert not list(tmp_path.iterdir())
