"""The device is chosen by asking it, late, and the answer comes with a reason."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpu.backend import array_module, choose_backend, device_errors, gpu_unusable
from gpu.errors import DeviceFailedError, DeviceUnavailableError

ROOT = Path(__file__).parents[2]
MODULES = sorted(f"gpu.{path.stem}" for path in (ROOT / "gpu").glob("[!_]*.py"))
LATE = ("cupy", "cuml", "cudf", "sklearn", "scipy", "pyarrow", "numba", "threadpoolctl")

without_gpu = pytest.mark.skipif(gpu_unusable() is None, reason="this machine has a usable GPU")


def imported_with(modules):
    script = "import importlib, sys\n"
    script += f"for name in {modules!r}: importlib.import_module(name)\n"
    script += "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_gpu_loads_no_cuda_and_no_heavy_package():
    assert MODULES
    # Grouping by attributes is Arrow from its first line, and has no use without it.
    loaded = imported_with([name for name in MODULES if not name.startswith("gpu.attribute")])

    assert "numpy" in loaded
    assert not loaded & set(LATE)


def test_params_and_errors_load_no_array_library():
    assert "numpy" not in imported_with(["gpu", "gpu.params", "gpu.errors"])


def test_the_cpu_is_taken_when_asked_for():
    backend = choose_backend("cpu")

    assert backend.device == "cpu"
    assert "asked for" in backend.reason


@without_gpu
def test_auto_without_a_gpu_takes_the_cpu_and_says_why():
    backend = choose_backend("auto")

    assert backend.device == "cpu"
    assert backend.reason == f"no usable GPU: {gpu_unusable()}"


@without_gpu
def test_demanding_a_gpu_without_one_fails_with_the_reason():
    with pytest.raises(DeviceUnavailableError) as caught:
        choose_backend("gpu")

    assert caught.value.why == gpu_unusable()


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="'tpu'"):
        choose_backend("tpu")


def test_what_is_not_about_memory_is_told_as_a_failure_of_the_device():
    said = "RuntimeError: illegal instruction; use"
    with pytest.raises(DeviceFailedError, match=said), device_errors(10):
        raise RuntimeError("illegal instruction\nat address 0")


def test_mistakes_of_our_own_pass_through():
    with pytest.raises(TypeError), device_errors(10):
        raise TypeError("fit() takes no such argument")


def test_numpy_arrays_belong_to_numpy():
    assert array_module(np.zeros(1)) is np
