"""The export behind a Qdrant that stumbles: its rows are all there, once, or it says why not."""

import dataclasses
import os

import grpc
import pyarrow.parquet as pq
import pytest
from qdrant_client import models
from qdrant_proxy import QdrantProxy, cut, hang, refuse, short_page, slow

from server.export.errors import MalformedResponseError
from server.export.parquet import ExportRequest, export
from server.export.patience import Patience
from server.export.sources import ExportSource
from server.qdrant.errors import QdrantRefusedError, QdrantUnavailableError

N_POINTS = 50
QUICK = Patience(total_s=10, first_wait_s=0.01, longest_wait_s=0.05)
AWAY = refuse(grpc.StatusCode.UNAVAILABLE)


@pytest.fixture
def proxy(qdrant_address):
    opened = QdrantProxy(qdrant_address)
    yield opened
    opened.stop()


@pytest.fixture(params=["numbers", "uuids"])
def request_of_fifty(request, client, collection_name, proxy, tmp_path):
    name = collection_name()
    client.create_collection(
        name, vectors_config=models.VectorParams(size=3, distance=models.Distance.EUCLID)
    )
    as_id = (
        int if request.param == "numbers" else lambda n: f"00000000-0000-4000-8000-{n * 7919:012d}"
    )
    client.upsert(
        name,
        [models.PointStruct(id=as_id(n), vector=[n, n / 2, 1.0]) for n in range(N_POINTS)],
        wait=True,
    )
    return ExportRequest(
        proxy.address,
        (ExportSource("docs", name, ("",)),),
        None,
        (),
        str(tmp_path / "export"),
        "Euclid",
        page_size=10,
        patience=QUICK,
    )


def exported(request):
    """The first coordinate of each row: every point, in Qdrant's order."""
    report = export(request)
    assert report.n_documents == N_POINTS
    return [row[0] for path in report.files for row in pq.read_table(path)["vector"].to_pylist()]


ALL = [float(n) for n in range(N_POINTS)]


@pytest.mark.parametrize(
    "faults",
    [
        [None, None, AWAY, AWAY, None],
        [AWAY, None, AWAY, None, AWAY],
        [None, refuse(grpc.StatusCode.DEADLINE_EXCEEDED)],
        [short_page(3), None, short_page(1), short_page(1), AWAY, short_page(9)],
        [slow(0.2), slow(0.1), slow(0.2)],
    ],
    ids=["away in the middle", "away again and again", "too late", "short pages", "slow pages"],
)
def test_a_stumble_loses_and_repeats_no_document(proxy, request_of_fifty, faults):
    proxy.next("Scroll", *faults)
    assert exported(request_of_fifty) == ALL
    assert proxy.calls["Scroll"] >= 5


def test_a_page_that_never_comes_is_asked_for_again_after_the_deadline(proxy, request_of_fifty):
    impatient = dataclasses.replace(proxy.address, timeout_s=1)
    proxy.next("Scroll", None, hang)
    assert exported(dataclasses.replace(request_of_fifty, address=impatient)) == ALL
    assert proxy.calls["Scroll"] == 6


def test_a_qdrant_that_was_restarted_between_two_pages_is_found_again(proxy, request_of_fifty):
    def restart(read, _):
        if read == 20:
            proxy.stop()
            proxy.start()

    report = export(request_of_fifty, progress=restart)
    assert report.n_documents == N_POINTS


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        ([None, cut], MalformedResponseError, "cannot be read|truncated|ends|not what"),
        ([None, refuse(grpc.StatusCode.INTERNAL)], QdrantRefusedError, "INTERNAL"),
        ([None, *[AWAY] * 999], QdrantUnavailableError, "does not answer"),
    ],
    ids=["cut in its bytes", "broken", "gone for good"],
)
def test_what_does_not_pass_is_told_and_leaves_nothing(
    proxy, request_of_fifty, faults, error, words
):
    proxy.next("Scroll", *faults)
    short = dataclasses.replace(request_of_fifty, patience=Patience(0.5, 0.01, 0.05))
    with pytest.raises(error, match=words):
        export(short)
    assert os.listdir(request_of_fifty.directory) == []


def test_a_call_that_a_stopping_server_cancels_is_made_again(proxy, request_of_fifty):
    proxy.next("Scroll", None, refuse(grpc.StatusCode.CANCELLED))
    assert exported(request_of_fifty) == ALL
    assert proxy.calls["Scroll"] == 6
