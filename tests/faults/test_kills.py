"""kill -9 of a server, of its worker and of both, wherever a run is: it ends once, and rightly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from clusters.v1 import cluster_pb2
from fleet import BODY, N_DOCUMENTS, Fleet, assert_every_event_once, assert_whole
from qdrant_client import QdrantClient

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

STAGE_AT = {
    "half an export": "export",
    "load": "load",
    "preprocess": "preprocess",
    "cluster": "cluster",
    "summarize": "summarize",
    "label": "label",
    "write": "write",
    "write.end": "write",
    "publish": "write",
}
"""Where runs wait, and the stage that a watcher sees there."""

USED = "4 groups found by an earlier attempt are used"
FOUND_AGAIN = {"summarize": ["4 groups"], "label": [USED], "write": [USED], "write.end": [USED]}
"""What a second attempt says of the groups, where the first had come so far."""

Tell = Callable[..., None]
TAKEN_UP = "the run is taken up again"
DIED = "the worker process died"


@pytest.mark.parametrize("victim", ["worker", "server", "both"])
@pytest.mark.parametrize("point", STAGE_AT)
def test_kill_9(replicas: Fleet, qdrant: QdrantClient, tell: Tell, point: str, victim: str) -> None:
    replicas.ready(2)
    gate = replicas.gate(point)
    began = time.monotonic()
    created = replicas.create(BODY)
    watcher = replicas.watch(created.cluster_id)
    worker = gate.reached()
    watcher.see(STAGE_AT[point])
    owner = replicas.owner(worker)

    if victim != "server":
        os.kill(worker, signal.SIGKILL)
    if victim != "worker":
        owner.kill()
        replicas.start()  # The next test's; this one's run goes to the other server.
    gate.open()
    cluster = watcher.end()

    said = watcher.said(DIED if victim == "worker" else TAKEN_UP)
    tell(f"kill -9 {victim}", point, cluster.status, watcher.tries, time.monotonic() - began, said)
    assert cluster.status == "COMPLETED"
    assert (cluster.num_clusters, cluster.num_documents_clustered) == (4, N_DOCUMENTS)
    assert_every_event_once(watcher)
    assert_whole(replicas, qdrant, cluster)
    exports = [m for m in watcher.messages if "documents exported" in m]
    if point == "publish":  # Committed: only shown again.
        assert len(exports) == 1
    elif point == "half an export":
        assert exports == [f"{N_DOCUMENTS} documents exported"]
    else:
        assert exports[0] == f"{N_DOCUMENTS} documents exported"
        assert [("by an earlier attempt" in m) for m in exports[1:]] == [True]
    found = [m for m in watcher.messages if m.startswith("4 groups")]
    assert found == ["4 groups", *FOUND_AGAIN.get(point, []), last_words(cluster)]


def last_words(cluster: cluster_pb2.Cluster) -> str:
    """The final event's words."""
    return f"{cluster.num_clusters} groups from {cluster.num_documents_clustered} documents"
