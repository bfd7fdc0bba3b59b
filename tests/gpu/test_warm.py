"""After set-up a new process compiles nothing of ours, whatever it is asked to do."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from gpu.backend import Backend
from gpu.clustering import fit
from gpu.elbow import elbow
from gpu.hdbscan import hdbscan
from gpu.metrics import quality
from gpu.params import HdbscanParams, parse_params
from gpu.sampling import assign_rest
from gpu.summary import summarize

def run(method, sent, metric, points):
    params = parse_params(method, sent).params
    found = fit(points, method=method, params=params, metric=metric, device="cpu")
    for centroid in ("mean", "median", "medoid"):
        described = summarize(points, found.labels, metric=metric, centroid=centroid)
    quality(points, found.labels, metric=metric)
    assign_rest(points, described.centroids, described.radii, metric)

rng = np.random.default_rng(0)
points = (np.eye(4, 24)[np.arange(500) % 4] + rng.normal(0, 0.1, (500, 24))).astype(np.float32)
frozen = points.copy()
frozen.flags.writeable = False
for rows in (points, frozen):
    for metric in ("cosine", "euclidean"):
        run("kmeans", {"n_clusters": 6}, metric, rows)
    for metric in ("cosine", "euclidean", "manhattan"):
        run("hdbscan", {"min_samples": 80, "alpha": 1.2}, metric, rows)
        run("hdbscan", {"approx_min_span_tree": True}, metric, rows)
    backend = Backend("cpu", "the test's")
    for metric in ("euclidean", "manhattan"):
        hdbscan(rows, HdbscanParams(), backend=backend, metric=metric, matrix_budget_bytes=0)
    elbow(rows, 5, metric="cosine")

loops = {}
for name, module in list(sys.modules.items()):
    if name.startswith("gpu."):
        for value in vars(module).values():
            code = getattr(value, "__dict__", {}).get("machine_code", value)
            if isinstance(code, Dispatcher):
                loops[code.__name__] = code.stats
print(json.dumps({
    name: [sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]
    for name, stats in loops.items()
}))
"""


def test_a_new_process_loads_every_loop_and_compiles_none():
    subprocess.run([sys.executable, "-m", "gpu.warm", "--ours"], check=True)

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True
    )

    loops = json.loads(done.stdout)
    compiled_anew = {name: counts for name, counts in loops.items() if counts[1]}
    assert compiled_anew == {}
    assert sum(counts[0] for counts in loops.values()) >= 12
