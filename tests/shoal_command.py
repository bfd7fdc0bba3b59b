"""The command as a user runs it, against a server in a process of its own.

`run_shoal` starts a process, which takes seconds to load; `call_shoal` runs the same program
in the test's process, and is what most cases need.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from server.cli.main import app

COMMAND = [sys.executable, "-m", "server.cli"]
ROOT = Path(__file__).parents[1]
N_GROUPS = 4
N_PER_GROUP = 50
N_DIMS = 8


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Shoal = Callable[..., Ended]


def environment(**settings: str) -> dict[str, str]:
    """Give an environment with these settings and none of the tester's own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
    return clean | {"PYTHONPATH": paths, "COLUMNS": "100"} | settings


def run_shoal(*words: str | Path, timeout_s: float = 90, **settings: str) -> Ended:
    """Run a command to its end; keyword arguments are SHOAL_ variables."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def call_shoal(*words: str | Path, **settings: str) -> Ended:
    """Run a command to its end in this process; keyword arguments are SHOAL_ variables."""
    unset = {name: None for name in os.environ if name.startswith("SHOAL_")}
    # Without the option the command replaces this process's hook for exceptions.
    done = CliRunner().invoke(
        app,
        ["--traceback", *map(str, words)],
        env={**unset, "COLUMNS": "100", **settings},
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


@dataclass
class Served:
    """A running `shoal serve`."""

    process: subprocess.Popen[str]
    facts: dict[str, str]
    data_dir: Path

    @property
    def address(self) -> str:
        return self.facts["address"]


@contextmanager
def serving(data_dir: Path, *flags: str, **settings: str) -> Iterator[Served]:
    """Run a server on a free port until the block ends; settings are SHOAL_ variables."""
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [*COMMAND, "serve", "--json", "--listen", "127.0.0.1:0", "--device", "cpu"]
    with (data_dir / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(**settings),
        )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], 90)[0], "the server said nothing"
        line = process.stdout.readline()
        assert line, (data_dir / "server.log").read_text()
        yield Served(process, json.loads(line), data_dir)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(90)
        process.stdout.close()


def write_documents(path: Path) -> Path:
    """Write four far groups of documents with vectors, names and a kind."""
    rng = np.random.default_rng(7)
    centers = np.eye(N_GROUPS, N_DIMS) * 10
    vectors = np.repeat(centers, N_PER_GROUP, axis=0) + rng.normal(
        size=(N_GROUPS * N_PER_GROUP, N_DIMS), scale=0.5
    )
    kinds = [f"kind {i // N_PER_GROUP}" for i in range(len(vectors))]
    flat = pa.array(vectors.astype(np.float32).ravel())
    pq.write_table(
        pa.table(
            {
                "id": pa.array(range(len(vectors)), pa.uint64()),
                "name": [f"{kind} number {i}" for i, kind in enumerate(kinds)],
                "kind": kinds,
                "embedding": pa.FixedSizeListArray.from_arrays(flat, N_DIMS),
            }
        ),
        path,
    )
    return path
