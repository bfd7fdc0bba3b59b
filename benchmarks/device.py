"""The GPU back end against its targets: whole fits, each step after them, Parquet to the device.

    python benchmarks/device.py                        # the sizes of a large card
    python benchmarks/device.py --only kmeans --only umap
    python benchmarks/device.py --points 100000 --dims 384 --clusters 100 --cpu

Times are wall clock around calls that end in results on the host (or a synchronized device), in
a warm process: a small fit of the same kind comes first. A part that fails is told, with the rows
it had measured, and the others go on. Each part's rows are written as soon as it ends, to a file
with the device's name, where those of parts that were not run again stay.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from device_parts import PARTS
from device_rows import Row, Sizes
from machine import RESULTS, About, machine_facts, write_result
from rich.console import Console
from rich.table import Table

from gpu.backend import gpu_unusable

PACKAGES = ("cuml-cu13", "cudf-cu13", "cupy-cuda13x", "numpy", "pyarrow")
ALLOCATORS = ("default", "async")
CONSOLE = Console(width=150)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeoutError` in the block after so long, or as soon as a library's call returns."""
    if seconds is None:
        yield
        return

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError("the time given with --seconds is over")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(part: str, sizes: Sizes, left_s: float | None = None) -> tuple[list[Row], str | None]:
    """Run one part; give its rows, and why it ended early if it did."""
    rows: list[Row] = []
    try:
        with time_limit(left_s):
            for row in PARTS[part](sizes):
                rows.append(replace(row, part=part))
    except Exception as error:
        # Whatever went wrong here, the other parts may still be measured.
        CONSOLE.print_exception(max_frames=12)
        return rows, f"{type(error).__name__}: {error}"
    finally:
        gc.collect()
    return rows, None


def show(rows: Sequence[Row]) -> None:
    """Print figures as a table."""
    table = Table("what", "who", "points", "dims", "median s", "best s", "value", "target", "met")
    for row in rows:
        table.add_row(
            row.what,
            row.who,
            f"{row.n_points:,}",
            str(row.n_dims),
            "" if row.median_s is None else f"{row.median_s:.3f}",
            "" if row.best_s is None else f"{row.best_s:.3f}",
            "" if row.value is None else f"{row.value:g} {row.unit}",
            row.target,
            {None: "", True: "yes", False: "NO"}[row.met],
        )
    CONSOLE.print(table)
    for row in rows:
        if row.outcome:
            CONSOLE.print(f"{row.what}, {row.who}: {row.outcome}", style="dim")


def kept_rows(path: Path, renewed: str) -> list[dict[str, Any]]:
    """Give the rows that a result file has of other parts."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    return [row for row in rows if row.get("part") != renewed]


def write(path: Path, part: str, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Put one part's rows into the result file."""
    about = About(
        title=f"On a GPU: {machine['device']}",
        note="Beside cuML alone on the same points; `make gpu-bench` measures anew.",
        value="median_s",
        labels=("what", "who"),
    )
    results = [*kept_rows(path, part), *(asdict(row) for row in rows)]
    write_result(path, name="gpu", machine=machine, results=results, about=about)


def use_allocator(name: str) -> None:
    """Choose how cuML, cuDF and CuPy get device memory: cudaMalloc, or CUDA's own pool."""
    if name == "async":
        rmm = import_module("rmm")
        rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource())


def device_facts() -> dict[str, Any]:
    """Name the device and its driver."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "device": properties["name"].decode(),
        "device_memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }


def file_name(device: str, kind: str = "gpu") -> str:
    """Give the name of a device's result file."""
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(PARTS), action="append", help="may be repeated")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--exact-points", type=int, default=100_000, help="of exact HDBSCAN")
    parser.add_argument("--parity-points", type=int, default=20_000, help="both back ends get")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="the CPU back end too, which is slow")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="default")
    parser.add_argument("--json", type=Path, help="result file [by the device's name]")
    parser.add_argument("--seconds", type=float, help="end with what is measured after so long")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark from the command line."""
    asked = options()
    if why := gpu_unusable():
        raise SystemExit(f"nothing measured, there is no usable GPU: {why}")
    use_allocator(asked.allocator)
    sizes = Sizes(
        points=asked.points,
        dims=asked.dims,
        clusters=asked.clusters,
        exact_points=asked.exact_points,
        parity_points=asked.parity_points,
        repeats=asked.repeats,
        with_cpu=asked.cpu,
    )
    machine = machine_facts(PACKAGES) | device_facts() | {"allocator": asked.allocator}
    path = asked.json or RESULTS / file_name(machine["device"])
    rows, failed = run_parts(asked.only or list(PARTS), sizes, machine, path, asked.seconds)
    CONSOLE.rule(f"{machine['device']}, allocator {asked.allocator}: {path}")
    show(rows)
    if failed:
        raise SystemExit("\n".join(["not measured to the end:", *failed]))


def run_parts(
    parts: Sequence[str],
    sizes: Sizes,
    machine: dict[str, Any],
    path: Path,
    seconds: float | None = None,
) -> tuple[list[Row], list[str]]:
    """Run parts one after the other; give all rows, and a line for each part that failed."""
    rows: list[Row] = []
    failed: list[str] = []
    start = time.monotonic()
    for part in parts:
        left_s = None if seconds is None else start + seconds - time.monotonic()
        if left_s is not None and left_s <= 0:
            failed.append(f"{part}: not begun, the time given with --seconds is over")
            continue
        CONSOLE.rule(part)
        found, why = measure(part, sizes, left_s)
        show(found)
        write(path, part, found, machine)
        rows += found
        if why is not None:
            failed.append(f"{part}: {why}")
    return rows, failed


if __name__ == "__main__":
    main()
