"""Every test here needs a CUDA device with RAPIDS, and says what is missing where there is none."""

import importlib.util
from pathlib import Path

import pytest

from gpu.backend import gpu_unusable
from tests.gpu_device.report import Report

HAS_RAPIDS = all(importlib.util.find_spec(name) for name in ("cupy", "cudf", "cuml"))
LAST = ("test_memory", "test_bad_input")
"""Files by the time they take: a run that is cut off has seen the most."""


def pytest_addoption(parser):
    parser.addoption("--results", type=Path, help="folder for a file of what the device did")


def pytest_configure(config):
    if folder := config.getoption("--results", default=None):
        config.pluginmanager.register(Report(folder))


@pytest.fixture(autouse=True)
def device():
    """Skip without a GPU; a GPU whose libraries are there and fail is a failure."""
    why = gpu_unusable()
    if why is None:
        return
    if HAS_RAPIDS and not why.startswith(("no NVIDIA driver", "no CUDA device")):
        pytest.fail(f"the GPU answers and RAPIDS is installed, yet: {why}")
    pytest.skip(f"no usable GPU: {why}")


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu_device" in item.path.parts:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(120))
            # What RAPIDS warns of is not ours to mend.
            item.add_marker(pytest.mark.filterwarnings("default"))
    items.sort(key=lambda item: LAST.index(item.path.stem) + 1 if item.path.stem in LAST else 0)
