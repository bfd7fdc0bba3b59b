"""Compiled loops call each other, and work where their code cannot be kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from gpu.compiled import compiled

ROOT = Path(__file__).parents[2]


@compiled
def _half(value):
    return value / 2


@compiled
def halves(values, out):
    """Halve every value."""
    for at in range(len(values)):
        out[at] = _half(values[at])


def test_a_loop_calls_other_loops_and_keeps_its_name():
    out = np.empty(3)

    halves(np.array([2.0, 4.0, -6.0]), out)

    assert out.tolist() == [1, 2, -3]
    assert (halves.__name__, halves.__doc__) == ("halves", "Halve every value.")


SCRIPT = """
import numpy as np
from gpu.smallest import nth_smallest
print(nth_smallest(np.array([[3, 1, 2]], dtype=np.float32), 2))
"""


def test_a_place_that_cannot_be_written_is_no_obstacle(tmp_path):
    # A file where the folder of the cache would be: nothing can be kept, not even by root.
    source = tmp_path / "gpu"
    shutil.copytree(ROOT / "gpu", source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.stdout == "[2.]\n"
