"""The GPU benchmark's frame: parts go on when one fails, and their figures are kept."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MACHINE = {"device": "NVIDIA H200 NVL"}


@pytest.fixture
def device(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import device

    yield device
    for name in ("device", "device_parts", "device_rows", "machine"):
        sys.modules.pop(name, None)


def row(device, what, **figures):
    return device.Row(what=what, who="shoal", n_points=10, n_dims=2, **figures)


def test_a_part_that_fails_keeps_its_rows_and_the_others_go_on(
    device, monkeypatch, tmp_path, capsys
):
    def breaks(_sizes):
        yield row(device, "first", median_s=1.0)
        raise RuntimeError("the device is on fire")

    def works(_sizes):
        yield row(device, "second", median_s=2.0, target="at most 1 s", met=False)

    monkeypatch.setattr(device, "PARTS", {"a": breaks, "b": works})

    rows, failed = device.run_parts(["a", "b"], None, MACHINE, tmp_path / "gpu.json")

    assert [(each.part, each.what) for each in rows] == [("a", "first"), ("b", "second")]
    assert failed == ["a: RuntimeError: the device is on fire"]
    printed = capsys.readouterr().out
    assert "Traceback" in printed
    assert "NO" in printed
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [each["what"] for each in written["results"]] == ["first", "second"]
    assert written["machine"] == MACHINE


def test_when_the_time_is_over_what_was_measured_is_kept(device, monkeypatch, tmp_path):
    def endless(_sizes):
        yield row(device, "first", median_s=1.0)
        while True:
            pass

    monkeypatch.setattr(device, "PARTS", {"a": endless, "b": endless})

    _, failed = device.run_parts(["a", "b"], None, MACHINE, tmp_path / "gpu.json", seconds=0.1)

    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [each["what"] for each in written["results"]] == ["first"]
    assert [line.partition(",")[0] for line in failed] == [
        "a: TimeoutError: the time given with --seconds is over",
        "b: not begun",
    ]


def test_one_part_measured_anew_leaves_the_figures_of_the_others(device, monkeypatch, tmp_path):
    path = tmp_path / "gpu.json"
    for part, median_s in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        found = [row(device, part, median_s=median_s)]
        monkeypatch.setitem(device.PARTS, part, lambda _sizes, found=found: iter(found))
        device.run_parts([part], None, MACHINE, path)

    results = json.loads(path.read_text())["results"]

    assert [(each["part"], each["median_s"]) for each in results] == [("b", 2.0), ("a", 3.0)]


def test_the_result_file_is_named_after_the_device(device):
    assert device.file_name("NVIDIA H200 NVL") == "gpu-nvidia-h200-nvl.json"


def test_without_a_device_it_ends_with_the_reason(device, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["device.py", "--only", "kmeans"])
    monkeypatch.setattr(device, "gpu_unusable", lambda: "no NVIDIA driver")

    with pytest.raises(SystemExit, match=r"no usable GPU: no NVIDIA driver"):
        device.main()


@pytest.mark.parametrize(("ours", "met"), [(1.04, True), (1.06, False), (0.5, True)])
def test_overhead_is_judged_against_cuml_alone(device, ours, met):
    from device_rows import overhead

    said = overhead(row(device, "k-means", median_s=ours), row(device, "k-means", median_s=1.0))

    assert said.value == pytest.approx(100 * (ours - 1))
    assert said.met == met
