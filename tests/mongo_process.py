"""The MongoDB stand-in that `make mongo-server` builds, as a process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent / "mongo_server"


@contextmanager
def mongo_process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run it until the block ends: its address and its process; skips the test without it."""
    jar = _FOLDER / "target" / "mongo-server.jar"
    java = shutil.which("java")
    if java is None or not jar.exists():
        pytest.skip(
            "needs a MongoDB server; set SHOAL_TEST_MONGODB_URI, or run `make mongo-server` "
            "(Java 17, Maven)"
        )
    path = f"{jar}:{_FOLDER / 'target' / 'dependency'}/*"
    with subprocess.Popen(
        [java, "-Xmx256m", "-cp", path, "shoal.Main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        uri = process.stdout.readline().strip()
        assert uri, "the MongoDB test server did not start"
        yield uri, process
        process.terminate()
