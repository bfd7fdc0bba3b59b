"""The site as `make docs` builds it, and a browser to read it with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from browser import *  # noqa: F403

DOCS = Path(__file__).resolve().parents[2] / "docs"


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as `make docs` does: a warning is an error."""
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(source), str(target)]
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the built site."""
    target = tmp_path_factory.mktemp("site")
    done = build(DOCS, target)
    assert done.returncode == 0, done.stderr
    return target
