"""A run's map as the worker makes it, from files alone. So few documents need no UMAP."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.jobs.definition import parse_definition
from server.jobs.model import RunRecord, RunResult
from server.jobs.stages.mapping import MapOrder, NoMapError, make_map
from server.results.artifacts import RunFolder
from server.results.groups import Group, members_table
from server.results.maps import document_keys, find_map, places_of, read_map, write_map

N_DOCUMENTS = 12
CIRCLE = np.linspace(0, 3, N_DOCUMENTS)
ROUND = np.column_stack([np.cos(CIRCLE), np.sin(CIRCLE)]).astype(np.float32)
LINE = np.column_stack([np.ones(N_DOCUMENTS), np.arange(N_DOCUMENTS)]).astype(np.float32)


def ids_of(numbers: Any) -> dict[str, list[str]]:
    return {
        "source_collection_id": ["docs"] * len(numbers),
        "source_document_id": [str(number) for number in numbers],
    }


def run_of(features: tuple[str, ...] = ("a",), **config: Any) -> RunRecord:
    definition = parse_definition(
        {
            "collection_ids": ["docs"],
            "vector_config": {
                "clustering_method": "kmeans",
                "algorithm_params": {"n_clusters": 2},
                "feature_uris": list(features),
                **config,
            },
        }
    )
    return RunRecord(
        definition=definition,
        run_id="run_1",
        task_id="task_1",
        status="completed",
        queued_at=datetime.now(UTC),
        result=RunResult(
            algorithm="kmeans",
            num_clusters=2,
            num_documents=N_DOCUMENTS,
            feature_uris=list(features),
            distance="Cosine",
        ),
    )


def store(
    base: Path, blocks: list[Any], numbers: Any = None, partitions: int = 1, run_id: str = "run_1"
) -> RunFolder:
    """Store a run of two groups, its export in two files, its members in another order."""
    numbers = list(range(N_DOCUMENTS)) if numbers is None else numbers
    folder = RunFolder(str(base), "ns_1", "clu_1", run_id)
    folder.begin()
    names = ["vector"] if len(blocks) == 1 else [f"vector_{i}" for i in range(len(blocks))]
    vectors = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
        for name, block in zip(names, blocks, strict=True)
    }
    export = pa.table({**ids_of(range(N_DOCUMENTS)), **vectors})
    with folder.export_dir() as directory:
        pq.write_table(export.slice(0, 5), directory / "part-0.parquet")
        pq.write_table(export.slice(5), directory / "part-1.parquet")
        folder.keep_export(directory)
    tables = []
    for part in range(partitions):
        prefix = f"f{part}." if partitions > 1 else ""
        groups = [Group(f"{prefix}cl_{i}", f"{prefix}{i}", 6) for i in range(2)]
        ids = ids_of(numbers)
        tables.append(
            members_table(
                pa.array(ids["source_collection_id"]), pa.array(ids["source_document_id"]),
                np.arange(len(numbers)) % 2, groups,
            )
        )  # fmt: skip
    folder.write_members(pa.concat_tables(tables))
    folder.write_manifest(counts={}, device="cpu", timings_s={})
    return folder


def order_in(base: Path, run: RunRecord, earlier: tuple[str, ...] = ()) -> MapOrder:
    return MapOrder(str(base), "ns_1", "clu_1", run, earlier, 2, "cpu")


def places_by_id(folder: RunFolder) -> dict[str, list[tuple[float, ...]]]:
    table = read_map(folder, 2)
    found: dict[str, list[tuple[float, ...]]] = {}
    for number, place in zip(
        table["source_document_id"].to_pylist(), places_of(table).tolist(), strict=True
    ):
        found.setdefault(number, []).append(tuple(place))
    return found


def test_every_member_gets_the_place_of_its_own_vector(tmp_path: Path) -> None:
    folder = store(tmp_path, [ROUND])
    shares: list[float] = []

    make_map(order_in(tmp_path, run_of()), shares.append)

    places = places_by_id(folder)
    assert read_map(folder, 2)["cluster_id"].to_pylist() == ["cl_0"] * 6 + ["cl_1"] * 6
    for a in range(N_DOCUMENTS):  # The few are laid out by PCA: distances stay.
        for b in range(N_DOCUMENTS):
            apart = np.subtract(places[str(a)][0], places[str(b)][0])
            assert np.linalg.norm(apart) == pytest.approx(
                float(np.linalg.norm(ROUND[a] - ROUND[b])), abs=1e-4
            )
    assert shares[-1] == 1


def test_only_the_run_s_own_documents_are_mapped(tmp_path: Path) -> None:
    # A job inside another's group exports the collection and keeps the group's members.
    folder = store(tmp_path, [ROUND], numbers=[3, 5, 8, 99])

    make_map(order_in(tmp_path, run_of()), lambda share: None)

    assert sorted(places_by_id(folder)) == ["3", "5", "8"]


@pytest.mark.parametrize("strategy", ["concatenate", "weighted", "independent"])
def test_several_features_make_one_map(tmp_path: Path, strategy: str) -> None:
    independent = strategy == "independent"
    folder = store(tmp_path, [ROUND, LINE], partitions=2 if independent else 1)
    run = run_of(("f0", "f1"), multi_feature_strategy=strategy)
    if strategy == "weighted":
        assert run.result is not None
        learned = run.result.model_copy(update={"learned_weights": {"f0": 0.0, "f1": 1.0}})
        run = run.model_copy(update={"result": learned})

    make_map(order_in(tmp_path, run), lambda share: None)

    places = places_by_id(folder)
    assert {len(each) for each in places.values()} == {2 if independent else 1}
    assert all(len(set(each)) == 1 for each in places.values())
    first, last = np.array(places["0"][0]), np.array(places["11"][0])
    units = LINE / np.linalg.norm(LINE, axis=1, keepdims=True)
    round_apart = np.linalg.norm(ROUND[0] - ROUND[11])
    line_apart = np.linalg.norm(units[0] - units[11])
    # Side by side, two unit vectors are sqrt(2) long, and directions are what is compared.
    both = np.hypot(round_apart, line_apart) / np.sqrt(2)
    wanted = line_apart if strategy == "weighted" else both
    assert np.linalg.norm(first - last) == pytest.approx(float(wanted), rel=0.05)


def test_a_map_lies_over_the_newest_earlier_one(tmp_path: Path) -> None:
    store(tmp_path, [ROUND], run_id="run_a")
    earlier = store(tmp_path, [ROUND], run_id="run_b")
    keys = earlier.read_members()
    places = np.column_stack([-ROUND[:, 1], ROUND[:, 0]]) * 5 + 30
    of_members = places[[int(text) for text in keys["source_document_id"].to_pylist()]]
    write_map(earlier, keys, of_members.astype(np.float32))
    folder = store(tmp_path, [ROUND])

    make_map(order_in(tmp_path, run_of(), ("run_a", "run_b")), lambda share: None)

    made = read_map(folder, 2)
    assert document_keys(made).equals(document_keys(read_map(earlier, 2)))
    np.testing.assert_allclose(places_of(made), of_members, atol=1e-3)


def test_without_its_export_a_run_gets_no_map(tmp_path: Path) -> None:
    folder = store(tmp_path, [ROUND])
    folder.drop_export()

    with pytest.raises(NoMapError, match="vectors were retired"):
        make_map(order_in(tmp_path, run_of()), lambda share: None)

    assert find_map(folder, 2) is None


def test_vectors_that_cannot_be_laid_out_are_told(tmp_path: Path) -> None:
    broken = ROUND.copy()
    broken[4] = np.nan
    store(tmp_path, [broken])

    with pytest.raises(NoMapError, match=r"run_1 cannot be mapped.*row 4"):
        make_map(order_in(tmp_path, run_of()), lambda share: None)


def test_a_remote_run_is_mapped_too() -> None:
    base = "memory://maps"
    folder = store(base, [ROUND])  # type: ignore[arg-type]

    make_map(order_in(base, run_of()), lambda share: None)  # type: ignore[arg-type]

    assert find_map(folder, 2) is not None
