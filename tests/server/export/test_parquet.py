"""The export stage against a Qdrant: rows, order, who is left out, and what failure leaves."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from qdrant_client import models

from server.export.errors import (
    ExportStoppedError,
    ExportStorageError,
    NoUsableDocumentsError,
    SourceMissingError,
    UnsupportedVectorError,
    VectorSizeError,
)
from server.export.filters import parse_filter
from server.export.parquet import ExportRequest, export
from server.export.patience import Patience
from server.export.sources import ExportSource, stored_spellings
from server.qdrant.client import QdrantAddress
from server.qdrant.errors import QdrantUnavailableError

N_DIMS = 4
PARAMS = models.VectorParams(size=N_DIMS, distance=models.Distance.EUCLID)


def vector(seed):
    return np.random.default_rng(seed).normal(size=N_DIMS).astype(np.float32).tolist()


@pytest.fixture
def collection(client, collection_name):
    """Make a collection of points (id, vector, payload)."""

    def make(points, config=PARAMS, **options):
        name = collection_name()
        client.create_collection(name, vectors_config=config, **options)
        if points:
            client.upsert(
                name,
                [models.PointStruct(id=i, vector=v, payload=p) for i, v, p in points],
                wait=True,
            )
        return name

    return make


@pytest.fixture
def request_for(qdrant_address, tmp_path):
    def make(*names, vectors=("",), **options):
        options.setdefault("payload_fields", ())
        options.setdefault("distance", "Euclid")
        options["filter"] = parse_filter(options.get("filter"))
        sources = tuple(ExportSource(f"col{i}", name, vectors) for i, name in enumerate(names))
        return ExportRequest(qdrant_address, sources, directory=str(tmp_path / "export"), **options)

    return make


def rows_of(report):
    return [row for path in report.files for row in pq.read_table(path).to_pylist()]


def test_rows_hold_source_id_vector_and_kept_payload(collection, request_for):
    one = str(uuid.UUID(int=7))
    points = [
        (3, vector(3), {"title": "drei", "meta": {"lang": "de", "junk": 1}, "junk": 2}),
        (one, vector(7), {"title": "sieben"}),
        (2**60, vector(9), {}),
    ]
    first, second = collection(points), collection([(1, vector(1), {"title": "eins"})])

    report = export(request_for(first, second, payload_fields=("title", "meta.lang")))

    rows = rows_of(report)
    assert [(r["source_collection_id"], r["source_document_id"]) for r in rows] == [
        ("col0", "3"),
        ("col0", str(2**60)),
        ("col0", one),
        ("col1", "1"),
    ]
    assert [r["vector"] for r in rows] == [vector(3), vector(9), vector(7), vector(1)]
    assert json.loads(rows[0]["payload"]) == {"title": "drei", "meta": {"lang": "de"}}
    assert rows[1]["payload"] is None
    assert report.n_documents == report.n_matched == 4
    assert report.columns == ("vector",)
    assert report.n_dims == {"vector": N_DIMS}
    assert [Path(path).name for path in report.files] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    for path in report.files:
        assert report.checksums[path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert report.n_bytes == sum(Path(path).stat().st_size for path in report.files)
    schema = pq.read_schema(path)
    assert str(schema.field("vector").type).startswith("fixed_size_list<")
    assert schema.field("vector").type.list_size == N_DIMS


@pytest.mark.parametrize("n_points", [1, 9, 10, 11, 20])
def test_pages_lose_and_repeat_nothing(collection, request_for, n_points):
    name = collection([(i, vector(i), {}) for i in range(n_points)])
    seen = []

    report = export(
        request_for(name, page_size=10, row_group_rows=7),
        progress=lambda done, total: seen.append((done, total)),
    )

    rows = rows_of(report)
    assert [r["source_document_id"] for r in rows] == [str(i) for i in range(n_points)]
    assert [r["vector"] for r in rows] == [vector(i) for i in range(n_points)]
    assert seen[-1] == (n_points, n_points)


def test_a_long_export_is_cut_into_parts(collection, request_for):
    name = collection([(i, vector(i), {}) for i in range(25)])
    request = request_for(name, page_size=5, row_group_rows=5, rows_per_file=10)

    report = export(request)

    assert [Path(p).name for p in report.files] == [f"part-0000{i}.parquet" for i in range(3)]
    assert [r["source_document_id"] for r in rows_of(report)] == [str(i) for i in range(25)]

    again = export(dataclasses.replace(request, rows_per_file=1000))
    assert sorted(os.listdir(request.directory)) == ["part-00000.parquet"]
    assert len(rows_of(again)) == 25


def test_filters_work_pushed_and_kept(client, collection, request_for):
    points = [
        (i, vector(i), {"n": i, "status": ["Active", "active", "idle"][i % 3]}) for i in range(30)
    ]
    name = collection(points)
    raw = {"AND": [{"status": "ACTIVE"}, {"field": "n", "operator": "lt", "value": 10}]}
    expected = [str(i) for i in range(10) if i % 3 != 2]

    kept = export(request_for(name, filter=raw))
    client.create_payload_index(name, "status", models.PayloadSchemaType.KEYWORD, wait=True)
    assert sorted(stored_spellings(client, name)("status", "ACTIVE")) == ["Active", "active"]
    pushed = export(request_for(name, filter=raw))

    assert [r["source_document_id"] for r in rows_of(kept)] == expected
    assert [r["source_document_id"] for r in rows_of(pushed)] == expected
    assert pushed.n_matched == kept.n_matched == len(expected)
    assert rows_of(kept)[0]["payload"] is None


def test_a_filter_that_leaves_none_writes_nothing_and_says_zero(collection, request_for):
    name = collection([(1, vector(1), {"n": 1})])
    request = request_for(name, filter={"n": 2})

    report = export(request)

    assert (report.n_documents, report.n_matched, report.files) == (0, 0, ())
    assert os.listdir(request.directory) == []


NAMED = {
    "text": models.VectorParams(size=N_DIMS, distance=models.Distance.DOT),
    "image": models.VectorParams(size=2, distance=models.Distance.DOT),
}


def test_documents_without_a_usable_vector_are_left_out_and_named(collection, request_for):
    points = [
        (0, {"text": vector(0), "image": [1, 2]}, {}),
        (1, {"image": [1, 2]}, {}),
        (2, {"text": vector(2), "image": [0, 0]}, {}),
        (3, {"text": vector(3)}, {}),
    ]
    name = collection(points, NAMED)
    request = request_for(name, vectors=("text", "image"), distance="Dot")

    report = export(request)

    [row] = rows_of(report)
    assert row["vector_0"] == vector(0)
    assert row["vector_1"] == [1, 2]
    assert report.n_dims == {"vector_0": N_DIMS, "vector_1": 2}
    assert report.n_matched == 4
    assert report.left_out.count == 3
    assert report.left_out.by_reason == {"no vector": 2, "all zero": 1}
    told = report.left_out.describe()
    assert "3 documents" in told
    assert "col0/2" in told

    euclid = export(dataclasses.replace(request, distance="Euclid"))
    assert [r["source_document_id"] for r in rows_of(euclid)] == ["0", "2"]


def test_only_ten_of_those_left_out_are_named(collection, request_for):
    name = collection([(i, [0.0] * N_DIMS if i else vector(1), {}) for i in range(30)])

    left_out = export(request_for(name, distance="Dot", page_size=4)).left_out

    assert left_out.count == 29
    assert [d.document_id for d in left_out.first] == [str(i) for i in range(1, 11)]


def test_no_usable_vector_at_all_fails_in_words(collection, request_for):
    name = collection([(i, [0.0] * N_DIMS, {}) for i in range(3)])
    request = request_for(name, distance="Dot")
    with pytest.raises(NoUsableDocumentsError, match=r"none of the 3 documents.*all zero: 3"):
        export(request)
    assert os.listdir(request.directory) == []


def test_attributes_need_no_vectors(collection, request_for):
    name = collection([(1, {"text": vector(1)}, {"a": 1}), (2, {}, {"a": None})], NAMED)

    report = export(request_for(name, vectors=(), payload_fields=("*",)))

    assert report.columns == ()
    assert [json.loads(r["payload"]) for r in rows_of(report)] == [{"a": 1}, {"a": None}]
    assert "vector" not in pq.read_schema(report.files[0]).names


def test_buckets_are_gathered_once_each(collection, request_for):
    buckets = ["b2", "b1", "b2", ["b3", "b1"], None]
    points = [(i, vector(i), {"source_bucket_id": b}) for i, b in enumerate(buckets)]

    assert export(request_for(collection(points))).source_bucket_ids == ("b1", "b2", "b3")


def test_a_multi_vector_is_exported_as_its_mean(collection, request_for):
    config = models.VectorParams(
        size=2,
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(
            comparator=models.MultiVectorComparator.MAX_SIM
        ),
    )
    name = collection([(1, [[1, 3], [3, 5]], {})], config)

    assert rows_of(export(request_for(name)))[0]["vector"] == [2, 4]


def test_collections_of_different_sizes_fail_and_leave_nothing(collection, request_for):
    other = models.VectorParams(size=2, distance=models.Distance.EUCLID)
    first, second = collection([(1, vector(1), {})]), collection([(1, [1, 2], {})], other)
    request = request_for(first, second)

    with pytest.raises(VectorSizeError, match="'col1' have 2 dimensions, those of 'col0' have 4"):
        export(request)

    assert os.listdir(request.directory) == []


def test_what_is_not_there_fails_by_name(collection, request_for):
    with pytest.raises(SourceMissingError, match="no_such"):
        export(request_for("no_such"))
    name = collection([], NAMED)
    with pytest.raises(SourceMissingError, match=r"no vector 'audio'.*image.*text"):
        export(request_for(name, vectors=("audio",)))


def test_a_sparse_vector_is_refused_with_the_choices(client, collection, request_for, is_embedded):
    if is_embedded:
        pytest.skip("the embedded Qdrant stores dense vectors only; needs SHOAL_TEST_QDRANT_URL")
    name = collection([], NAMED, sparse_vectors_config={"words": models.SparseVectorParams()})
    with pytest.raises(UnsupportedVectorError, match="sparse; choose one of"):
        export(request_for(name, vectors=("words",)))


def test_a_stop_is_obeyed_between_pages_and_leaves_nothing(collection, request_for):
    name = collection([(i, vector(i), {}) for i in range(50)])
    request = request_for(name, page_size=5)
    read = []

    with pytest.raises(ExportStoppedError):
        export(
            request,
            progress=lambda done, _: read.append(done),
            should_stop=lambda: bool(read) and read[-1] >= 15,
        )

    assert read[-1] < 50
    assert os.listdir(request.directory) == []


def test_a_folder_that_cannot_be_written_is_told_with_the_space(collection, request_for, tmp_path):
    (tmp_path / "export").write_text("a file, not a folder")
    with pytest.raises(ExportStorageError, match=r"export.*bytes are free") as caught:
        export(request_for(collection([(1, vector(1), {})])))
    assert caught.value.facts["free_bytes"] > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_and_leaves_nothing(collection, request_for, tmp_path):
    request = request_for(collection([(1, vector(1), {})]))
    folder = tmp_path / "export"
    folder.mkdir()

    def never_but_fill_the_disk():
        # The writer's own clean-up has run; its file now opens on a device that is full.
        temporary = folder / ".part-00000-00000.parquet.tmp"
        if not temporary.is_symlink():
            temporary.symlink_to("/dev/full")
        return False

    with pytest.raises(ExportStorageError, match="the disk is full"):
        export(request, should_stop=never_but_fill_the_disk)
    assert os.listdir(folder) == []


def test_a_qdrant_that_is_away_is_waited_for_only_so_long(request_for):
    request = dataclasses.replace(
        request_for("any", patience=Patience(total_s=0.3, first_wait_s=0.05)),
        address=QdrantAddress("127.0.0.1", 1, timeout_s=2),
    )
    with pytest.raises(QdrantUnavailableError):
        export(request)


def _export_until_killed(request, reached):
    def progress(n_read, _):
        if n_read >= 20:
            reached.set()
            signal.pause()

    export(request, progress=progress)


def test_a_killed_export_leaves_no_part_and_the_next_one_cleans_up(collection, request_for):
    name = collection([(i, vector(i), {}) for i in range(50)])
    request = request_for(name, page_size=5, row_group_rows=5)
    spawn = multiprocessing.get_context("spawn")
    reached = spawn.Event()
    child = spawn.Process(target=_export_until_killed, args=(request, reached))
    child.start()
    assert reached.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)

    assert not list(Path(request.directory).glob("part-*"))
    assert len(rows_of(export(request))) == 50
    assert os.listdir(request.directory) == ["part-00000.parquet"]
