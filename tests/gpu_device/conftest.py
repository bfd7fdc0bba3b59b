"""Every test here needs a CUDA device with RAPIDS, and says what is missing where there is none."""

import importlib.util

import pytest

from gpu.backend import gpu_unusable

HAS_RAPIDS = all(importlib.util.find_spec(name) for name in ("cupy", "cudf", "cuml"))


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
            item.add_marker(pytest.mark.timeout(600))
            # What RAPIDS warns of is not ours to mend.
            item.add_marker(pytest.mark.filterwarnings("default"))
