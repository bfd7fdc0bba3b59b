"""A whole export is told from leftovers, from another request's, and from a damaged one."""

import dataclasses
from pathlib import Path

import pytest
from qdrant_client import models

from server.export.filters import parse_filter
from server.export.parquet import ExportRequest, export
from server.export.patience import Patience
from server.export.seal import SEAL, DamagedExportError, moved, seal, sealed
from server.export.sources import ExportSource


@pytest.fixture
def request_of_ten(client, collection_name, qdrant_address, tmp_path):
    name = collection_name()
    client.create_collection(
        name, vectors_config=models.VectorParams(size=2, distance=models.Distance.EUCLID)
    )
    points = [
        models.PointStruct(id=i, vector=[i, 1.0], payload={"source_bucket_id": f"b{i % 2}"})
        for i in range(9)
    ]
    client.upsert(name, [*points, models.PointStruct(id=9, vector={})], wait=True)
    folder = tmp_path / "export"
    return ExportRequest(
        qdrant_address,
        (ExportSource("docs", name, ("",)),),
        None,
        (),
        str(folder),
        "Euclid",
        page_size=4,
        rows_per_file=4,
        row_group_rows=4,
    )


def test_a_sealed_export_is_read_back_from_wherever_it_lies(request_of_ten, tmp_path):
    report = export(request_of_ten)
    seal(request_of_ten, report)
    elsewhere = tmp_path / "elsewhere"
    Path(request_of_ten.directory).rename(elsewhere)

    found = sealed(request_of_ten, elsewhere)

    assert found == moved(report, elsewhere)
    assert found.left_out.count == 1
    assert found.source_bucket_ids == ("b0", "b1")
    assert all(Path(path).parent == elsewhere for path in found.files)


def test_without_a_seal_there_is_no_export(request_of_ten, tmp_path):
    report = export(request_of_ten)
    assert sealed(request_of_ten, Path(report.files[0]).parent) is None
    assert sealed(request_of_ten, tmp_path / "never") is None


def test_an_export_of_another_request_is_not_taken(request_of_ten):
    report = export(request_of_ten)
    seal(request_of_ten, report)
    folder = Path(request_of_ten.directory)
    more_patient = dataclasses.replace(request_of_ten, patience=Patience(1.0), directory="other")
    assert sealed(more_patient, folder) is not None
    for change in (
        {"payload_fields": ("title",)},
        {"filter": parse_filter({"kind": "a"})},
        {"distance": "Cosine"},
        {"sources": (ExportSource("docs", "another", ("",)),)},
    ):
        assert sealed(dataclasses.replace(request_of_ten, **change), folder) is None


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("part-00001.parquet", cut, "part-00001.parquet does not agree"),
        ("part-00001.parquet", flip, "part-00001.parquet does not agree"),
        ("part-00000.parquet", Path.unlink, "part-00000.parquet cannot be read"),
        (SEAL, cut, "cannot be read"),
    ],
)
def test_a_damaged_export_is_found_and_named(request_of_ten, name, damage, words):
    seal(request_of_ten, export(request_of_ten))
    folder = Path(request_of_ten.directory)
    damage(folder / name)
    with pytest.raises(DamagedExportError, match=words):
        sealed(request_of_ten, folder)
