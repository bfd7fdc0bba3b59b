"""Parquet files into a collection: every column type, ids, vectors, refusals."""

import os
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client.models import DatetimeRange, FieldCondition, Filter, VectorParams

from server.qdrant.errors import ImportFileError, VectorNotFoundError, VectorSizeMismatchError
from server.qdrant.importer import SkippedRow, import_parquet
from server.qdrant.schema import describe

REPOSITORY = Path(__file__).parents[3]
DATA = Path(os.environ.get("SHOAL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
DEBIAN = DATA / "debian_packages.parquet"


def vectors_of(rows, kind=None):
    return pa.array(rows, type=kind or pa.list_(pa.float32(), 2))


def save(tmp_path, columns, name="points.parquet", **options):
    path = tmp_path / name
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_every_column_type_becomes_vector_or_payload(client, collection_name, tmp_path):
    berlin = timezone(timedelta(hours=2))
    path = save(
        tmp_path,
        {
            "id": pa.array([7, 8], pa.uint32()),
            "half": vectors_of([[1, 2], [3, 4]], pa.list_(pa.float16(), 2)),
            "double": vectors_of([[1, 2, 3], [4, 5, 6]], pa.list_(pa.float64())),
            "text": ["a", None],
            "flag": [True, False],
            "small": pa.array([1, None], pa.int8()),
            "huge": pa.array([2**63, 5], pa.uint64()),
            "ratio": [0.5, float("nan")],
            "price": pa.array([Decimal("1.50"), Decimal("2.00")], pa.decimal128(9, 2)),
            "local": pa.array([datetime(2024, 1, 2, 3, 4, 5), None], pa.timestamp("ns")),
            "zoned": pa.array(
                [datetime(2024, 1, 2, 3, tzinfo=berlin), None], pa.timestamp("us", "Europe/Berlin")
            ),
            "day": [date(2024, 2, 29), None],
            "clock": [time(12, 30), None],
            "took": pa.array([timedelta(seconds=1.5), None]),
            "raw": [b"\x00\xff", None],
            "section": pa.array(["x", "x"]).dictionary_encode(),
            "tags": [["a", "b"], []],
            "counts": [[1, 2], None],
            "nested": [{"a": 1, "b": None, "c": [{"d": 2.5}]}, None],
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        },
    )
    name = collection_name()
    report = import_parquet(client, name, [path])
    assert (report.points, report.skipped, report.id_column) == (2, 0, "id")
    assert report.vectors == {"half": 2, "double": 3}
    first, second = client.retrieve(name, [7, 8], with_vectors=True)
    assert first.vector["half"] == pytest.approx([1 / 5**0.5, 2 / 5**0.5], abs=1e-6)
    assert len(first.vector["double"]) == 3
    assert first.payload == {
        "text": "a",
        "flag": True,
        "small": 1,
        "huge": str(2**63),
        "ratio": 0.5,
        "price": 1.5,
        "local": "2024-01-02T03:04:05Z",
        "zoned": "2024-01-02T01:00:00Z",
        "day": "2024-02-29",
        "clock": "12:30:00",
        "took": 1.5,
        "raw": "AP8=",
        "section": "x",
        "tags": ["a", "b"],
        "counts": [1, 2],
        "nested": {"a": 1, "c": [{"d": 2.5}]},
        "map": {"k": 1},
    }
    assert second.payload == {"flag": False, "huge": 5, "price": 2, "section": "x", "tags": []}


def test_nanoseconds_are_cut_to_microseconds(client, collection_name, tmp_path):
    second = 10**9
    columns = {
        "v": vectors_of([[1, 2]]),
        "at": pa.array([second + 1], pa.timestamp("ns")),
        "took": pa.array([second + 1], pa.duration("ns")),
        "clock": pa.array([second + 1], pa.time64("ns")),
        "list": pa.array([[second + 1]], pa.list_(pa.timestamp("ns", "UTC"))),
        "struct": pa.array([{"at": second + 1}], pa.struct([("at", pa.timestamp("ns"))])),
    }
    name = collection_name()
    import_parquet(client, name, [save(tmp_path, columns)])
    moment = "1970-01-01T00:00:01Z"
    assert client.retrieve(name, [0])[0].payload == {
        "at": moment,
        "took": 1.0,
        "clock": "00:00:01",
        "list": [moment],
        "struct": {"at": moment},
    }


def test_timestamps_can_be_compared_in_qdrant(client, collection_name, tmp_path):

    moments = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    path = save(tmp_path, {"at": moments, "v": vectors_of([[1, 2]] * 3)})
    name = collection_name()
    import_parquet(client, name, [path])
    late = FieldCondition(key="at", range=DatetimeRange(gte=moments[1]))
    assert client.count(name, count_filter=Filter(must=[late])).count == 2


def test_importing_again_replaces_the_same_points(client, collection_name, tmp_path):
    name = collection_name()
    columns = {"id": [1, 2], "v": vectors_of([[1, 2], [3, 4]])}
    import_parquet(client, name, [save(tmp_path, columns | {"x": [1, 2]})])
    report = import_parquet(client, name, [save(tmp_path, columns | {"x": [5, 6]})])
    assert report.points == 2
    assert [(r.id, r.payload) for r in client.scroll(name)[0]] == [(1, {"x": 5}), (2, {"x": 6})]


def test_several_files_are_numbered_on_and_progress_is_told(client, collection_name, tmp_path):
    columns = {"v": vectors_of([[i, 1] for i in range(1, 6)])}
    paths = [save(tmp_path, columns, f"{i}.parquet", row_group_size=2) for i in range(3)]
    told = []
    name = collection_name()
    report = import_parquet(
        client, name, paths, progress=lambda done, total: told.append((done, total)), batch_bytes=1
    )
    assert report.id_column is None
    assert told == [(done, 15) for done in range(1, 16)]
    assert [r.id for r in client.scroll(name, limit=50)[0]] == list(range(15))


def test_bad_vectors_are_left_out_counted_and_named(client, collection_name, tmp_path):
    rows = [[1, 2], None, [1, 2, 3], [1, None], [float("nan"), 1], [1e300, 1], [], [5, 6]]
    rows += [None] * 10
    path = save(tmp_path, {"v": vectors_of(rows, pa.list_(pa.float64())), "n": range(len(rows))})
    name = collection_name()
    report = import_parquet(client, name, [path])
    assert (report.points, report.skipped) == (2, 16)
    assert len(report.skipped_rows) == 10
    assert report.skipped_rows[:3] == (
        SkippedRow(1, "v: no vector"),
        SkippedRow(2, "v: 3 dimensions instead of 2"),
        SkippedRow(3, "v: a value that is missing, not a number or infinite"),
    )
    records, _ = client.scroll(name)
    assert [(r.id, r.payload["n"]) for r in records] == [(0, 0), (7, 7)]


def test_null_rows_of_a_fixed_size_list_are_left_out(client, collection_name, tmp_path):
    name = collection_name()
    path = save(tmp_path, {"v": vectors_of([[1, 2], None, [3, 4]]), "n": [0, 1, 2]})
    assert import_parquet(client, name, [path], distance="Euclid").skipped == 1
    records, _ = client.scroll(name, with_vectors=True)
    assert [(r.payload["n"], r.vector["v"]) for r in records] == [(0, [1, 2]), (2, [3, 4])]


class TestIds:
    def test_uuids_in_text_and_bytes(self, client, collection_name, tmp_path):
        ids = [uuid.UUID(int=1), uuid.UUID(int=2)]
        for column in (
            pa.array([str(i).upper() for i in ids]),
            pa.array([i.bytes for i in ids], pa.binary(16)),
            pa.array(ids, pa.uuid()),
        ):
            name = collection_name()
            path = save(tmp_path, {"id": column, "v": vectors_of([[1, 2], [3, 4]])})
            assert import_parquet(client, name, [path]).id_column == "id"
            assert [r.id for r in client.scroll(name)[0]] == [str(i) for i in ids]

    def test_an_id_column_of_names_stays_payload(self, client, collection_name, tmp_path):
        name = collection_name()
        path = save(tmp_path, {"id": ["bash", "zsh"], "v": vectors_of([[1, 2], [3, 4]])})
        assert import_parquet(client, name, [path]).id_column is None
        assert [(r.id, r.payload) for r in client.scroll(name)[0]] == [
            (0, {"id": "bash"}),
            (1, {"id": "zsh"}),
        ]

    @pytest.mark.parametrize(
        ("ids", "words"),
        [
            ([3, -1], "the lowest is -1"),
            ([4, 4], "1 ids occur more than once, first: 4 (2 times)"),
            ([1, None], "1 rows have no id, first: row 1"),
            (["a", "b"], "row 0 has 'a', which is no UUID"),
            ([0.5, 1.5], "ids are integers or UUIDs, this column is double"),
        ],
    )
    def test_unusable_ones_are_refused_before_writing(self, client, tmp_path, ids, words):
        path = save(tmp_path, {"key": ids, "v": vectors_of([[1, 2], [3, 4]])})
        with pytest.raises(ImportFileError) as caught:
            import_parquet(client, "never_made", [path], id_column="key")
        assert words in str(caught.value)
        assert caught.value.violations[0].field == "key"
        assert not client.collection_exists("never_made")

    def test_duplicates_across_files_and_spellings(self, client, tmp_path):
        one = str(uuid.UUID(int=255))
        paths = [
            save(tmp_path, {"id": [spelling], "v": vectors_of([[1, 2]])}, f"{i}.parquet")
            for i, spelling in enumerate((one, one.upper()))
        ]
        with pytest.raises(ImportFileError, match="more than once"):
            import_parquet(client, "never_made", paths)


class TestColumns:
    def test_only_the_chosen_vectors_are_vectors(self, client, collection_name, tmp_path):
        path = save(tmp_path, {"a": vectors_of([[1, 2]]), "b": vectors_of([[3, 4]])})
        name = collection_name()
        assert import_parquet(client, name, [path], vectors=["a"]).vectors == {"a": 2}
        assert client.retrieve(name, [0])[0].payload == {"b": [3.0, 4.0]}

    @pytest.mark.parametrize(
        ("vectors", "words"),
        [
            (["nope"], "no such column; columns: v (fixed_size_list"),
            (["s"], "a vector is a list of numbers, this column is string"),
        ],
    )
    def test_a_wrong_choice_is_refused(self, client, tmp_path, vectors, words):
        path = save(tmp_path, {"v": vectors_of([[1, 2]]), "s": ["x"]})
        with pytest.raises(ImportFileError) as caught:
            import_parquet(client, "never_made", [path], vectors=vectors)
        assert words in str(caught.value)

    def test_a_file_without_vectors_is_for_grouping_by_fields(
        self, client, collection_name, tmp_path
    ):
        name = collection_name()
        report = import_parquet(client, name, [save(tmp_path, {"s": ["x", "y"]})])

        assert (report.points, report.vectors) == (2, {})
        points, _ = client.scroll(name, limit=9, with_vectors=True)
        assert [(point.payload, point.vector) for point in points] in (
            [({"s": "x"}, {}), ({"s": "y"}, {})],
            [({"s": "x"}, None), ({"s": "y"}, None)],
        )

    def test_files_that_are_not_parquet_are_refused(self, client, tmp_path):
        text = tmp_path / "text.parquet"
        text.write_text("hello")
        with pytest.raises(ImportFileError, match="not a readable Parquet file"):
            import_parquet(client, "never_made", [text])
        with pytest.raises(ImportFileError, match="no such file"):
            import_parquet(client, "never_made", [tmp_path / "missing.parquet"])

    def test_files_that_differ_are_refused(self, client, tmp_path):
        first = save(tmp_path, {"v": vectors_of([[1, 2]])}, "1.parquet")
        second = save(tmp_path, {"v": vectors_of([[1, 2]]), "x": [1]}, "2.parquet")
        with pytest.raises(ImportFileError, match="columns differ"):
            import_parquet(client, "never_made", [first, second])

    def test_an_empty_file_makes_an_empty_collection(self, client, collection_name, tmp_path):
        name = collection_name()
        path = save(tmp_path, {"id": pa.array([], pa.int64()), "v": vectors_of([])})
        assert import_parquet(client, name, [path]).points == 0
        assert describe(client, name).sizes() == {"v": 2}


class TestExistingCollection:
    def test_size_name_and_distance_must_fit(self, client, collection_name, tmp_path):
        name = collection_name()
        client.create_collection(name, vectors_config={"v": VectorParams(size=3, distance="Dot")})
        path = save(tmp_path, {"v": vectors_of([[1, 2]])})
        with pytest.raises(VectorSizeMismatchError, match=r"'v' has 2 dimensions, .* has 3"):
            import_parquet(client, name, [path])
        path = save(tmp_path, {"w": vectors_of([[1, 2, 3]], pa.list_(pa.float32(), 3))})
        with pytest.raises(VectorNotFoundError, match=r"has v \(3 dimensions\)"):
            import_parquet(client, name, [path])
        path = save(tmp_path, {"v": vectors_of([[1, 2, 3]], pa.list_(pa.float32(), 3))})
        with pytest.raises(VectorSizeMismatchError, match="distance Dot, asked for was Cosine"):
            import_parquet(client, name, [path], distance="Cosine")
        assert client.count(name).count == 0

    def test_an_unnamed_vector_takes_the_only_column(self, client, collection_name, tmp_path):
        name = collection_name()
        client.create_collection(name, vectors_config=VectorParams(size=2, distance="Euclid"))
        report = import_parquet(client, name, [save(tmp_path, {"v": vectors_of([[1, 2]])})])
        assert report.vectors == {"": 2}
        assert client.retrieve(name, [0], with_vectors=True)[0].vector == [1.0, 2.0]


@pytest.mark.skipif(not DEBIAN.exists(), reason=f"no {DEBIAN}; set SHOAL_TEST_DATA")
def test_real_packages_arrive_as_they_are(client, collection_name, tmp_path):
    table = pq.ParquetFile(DEBIAN).read_row_group(0).slice(0, 2_000)
    path = tmp_path / "packages.parquet"
    pq.write_table(table, path)
    name = collection_name()
    report = import_parquet(client, name, [path])
    assert (report.points, report.skipped) == (2_000, 0)
    assert report.vectors == {"text_embedding": 384}

    rows = {row["id"]: row for row in table.slice(0, 50).to_pylist()}
    for record in client.retrieve(name, list(rows), with_vectors=True):
        row = rows[record.id]
        sent = np.array(row.pop("text_embedding"), dtype=np.float32)
        kept = np.array(record.vector["text_embedding"], dtype=np.float32)
        np.testing.assert_allclose(kept, sent / np.linalg.norm(sent), atol=1e-6)
        del row["id"]
        assert record.payload == {k: v for k, v in row.items() if v is not None}
