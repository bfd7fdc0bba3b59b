"""How long the map of 20 000 real documents takes to open in a fresh Chromium.

    python benchmarks/map.py [--data FOLDER] [--repeats 7] [--json FILE]

The page is opened from a disk, without a network and without a graphics card, by a browser that
has just been started; the time ends when the names stand at their groups. In turn with it opens
a page that draws nothing by WebGL: less than that no map can take.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from machine import (
    DEFAULT_DATA,
    RESULTS,
    About,
    Timing,
    debian_vectors,
    machine_facts,
    write_result,
)

from server.views.documents import Columns, Document
from server.views.map import MapData, MapGroup, map_page

N_DOCUMENTS = 20_000
FIELDS = ("description", "section", "priority", "architecture")
READY = "document.documentElement.dataset.ready === 'true'"
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FLOOR = """<!doctype html><canvas></canvas><script>
const gl = document.querySelector("canvas").getContext("webgl");
gl.clear(gl.COLOR_BUFFER_BIT); gl.finish();
document.documentElement.dataset.ready = "true";</script>"""


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, default=RESULTS / "map.json")
    wanted = parser.parse_args()
    pages = {"map": map_page(debian_map(wanted.data)), "an empty WebGL canvas": FLOOR}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{at}.html" for at, name in enumerate(pages)}
        for name, path in paths.items():
            path.write_text(pages[name], encoding="utf-8")
        timings = opened(paths, wanted.repeats)
    rows = [
        {
            "page": name,
            "documents": N_DOCUMENTS if name == "map" else 0,
            "megabytes": len(pages[name].encode()) / 1e6,
            "median_s": timing.median_s,
            "best_s": timing.best_s,
            "repeats": timing.repeats,
        }
        for name, timing in timings.items()
    ]
    for row in rows:
        print(f"{row['page']:<24} {row['median_s']:.2f} s median, {row['best_s']:.2f} s best")
    write_result(
        wanted.json,
        name="map",
        machine=machine_facts(["plotly", "playwright"]),
        results=rows,
        about=About(
            title="Opening a map",
            note="From the start of the navigation to the names at their groups, each time in a "
            "Chromium of its own that draws WebGL on the CPU.",
            value="median_s",
            labels=("page",),
        ),
    )


def opened(paths: dict[str, Path], repeats: int) -> dict[str, Timing]:
    """Open each page `repeats` times, in turns; the browser's own start is not counted."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    with sync_playwright() as driver:
        for counts in [False] + [True] * repeats:
            for name, path in paths.items():
                browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
                tab = browser.new_context(offline=True).new_page()
                start = time.perf_counter()
                tab.goto(path.as_uri(), wait_until="commit")
                tab.wait_for_function(READY)
                if counts:
                    seconds[name].append(time.perf_counter() - start)
                browser.close()
    return {
        name: Timing(statistics.median(taken), min(taken), repeats)
        for name, taken in seconds.items()
    }


def debian_map(folder: Path) -> MapData:
    """Lay the catalogue out by its two strongest directions, in groups by section."""
    table = pq.read_table(folder / "debian_packages.parquet", columns=["name", *FIELDS])
    vectors = debian_vectors(folder, N_DOCUMENTS)
    vectors = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    places = (vectors @ directions[:, -2:]).astype(np.float32)
    names, group_of = np.unique(table["section"].to_pylist(), return_inverse=True)
    values = list(zip(*(table[name].to_pylist() for name in FIELDS), strict=True))
    documents = [
        Document(str(row), name, values[row]) for row, name in enumerate(table["name"].to_pylist())
    ]
    groups = [
        MapGroup(
            cluster_id=f"cl_{at}",
            label=name,
            member_count=int((group_of == at).sum()),
            place=tuple(np.median(places[group_of == at], axis=0).tolist()),
            nearest=[documents[row] for row in np.flatnonzero(group_of == at)[:10]],
        )
        for at, name in enumerate(names.tolist())
    ]
    return MapData(
        cluster_name="packages",
        run_id="run",
        groups=groups,
        places=places,
        group_of=group_of.astype(np.int32),
        documents=documents,
        n_documents=N_DOCUMENTS,
        columns=Columns(("name",), FIELDS),
    )


if __name__ == "__main__":
    main()
