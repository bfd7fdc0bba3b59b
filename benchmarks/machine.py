"""What every benchmark needs: facts of the machine, timing, one form of result file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

RESULTS = Path(__file__).parent / "results"
DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one thing done several times.

    Attributes
    ----------
    median_s, best_s : float
        Seconds.
    repeats : int
        How often it ran.
    cpu_s : float
        Median of the seconds that this process computed meanwhile, in all its threads.
    """

    median_s: float
    best_s: float
    repeats: int
    cpu_s: float = 0.0


@dataclass(frozen=True)
class About:
    """How `benchmarks/render.py` shows a result file.

    Attributes
    ----------
    title, note : str
        Heading, and a sentence on what was done.
    value : str
        The column that is drawn.
    labels : tuple of str
        The columns that name a bar; bars whose labels but the last agree stand together.
    """

    title: str
    note: str
    value: str
    labels: tuple[str, ...]


def timed(run: Callable[[], T], *, repeats: int) -> tuple[T, Timing]:
    """Run `repeats` times; give the last result and the times.

    Warm up before calling where a first run compiles or loads something.
    """
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, Timing(statistics.median(seconds), min(seconds), repeats)


def taking_turns(
    contestants: Mapping[str, Callable[[], object]], *, repeats: int
) -> dict[str, Timing]:
    """Time several things that do the same, one after the other, round by round.

    What else the machine does then falls on all of them alike. The first round warms up and
    is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for counts in [False] + [True] * repeats:
        for name, run in contestants.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            if counts:
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    return {
        name: Timing(
            statistics.median(taken), min(taken), repeats, statistics.median(cpu_seconds[name])
        )
        for name, taken in seconds.items()
    }


def machine_facts(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the machine, the floor it sets, and the versions of `packages`.

    ``matmul_gflops`` is the float32 matrix-product rate measured now, so that figures taken on a
    busy machine show it.
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "matmul_gflops": round(_matmul_gflops()),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_result(
    path: Path,
    *,
    name: str,
    machine: dict[str, Any],
    results: list[Any],
    about: About | None = None,
) -> None:
    """Write one benchmark's figures as JSON; dataclasses become objects."""
    body = {
        "benchmark": name,
        **({} if about is None else {"about": asdict(about)}),
        "machine": machine,
        "results": [
            asdict(row) if hasattr(row, "__dataclass_fields__") else row for row in results
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=2) + "\n")


def debian_rows(folder: Path) -> int:
    """Say how many embeddings the file has."""
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(folder / "debian_packages.parquet").metadata.num_rows)


def debian_vectors(folder: Path, n_rows: int) -> np.ndarray:
    """Read the first sentence embeddings of the Debian catalogue.

    Returns
    -------
    array of shape (n_rows, 384), float32
        Rows of length 1.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "debian_packages.parquet", columns=["text_embedding"])
    column = table["text_embedding"].combine_chunks()
    halves = column.flatten().to_numpy(zero_copy_only=False)
    vectors: np.ndarray = halves.reshape(len(column), -1)[:n_rows].astype(np.float32)
    if len(vectors) < n_rows:
        raise SystemExit(f"{n_rows:,} rows were asked for, the file has {len(vectors):,}")
    return vectors


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # Not Linux; the platform module knows less but answers everywhere.
    return platform.processor() or platform.machine()


def _matmul_gflops(side: int = 2048) -> float:
    left = np.ones((side, side), dtype=np.float32)
    left @ left
    _, timing = timed(lambda: left @ left, repeats=3)
    return 2 * side**3 / timing.best_s / 1e9


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
