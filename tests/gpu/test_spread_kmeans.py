"""k-means over parts: as on one machine, whoever keeps the parts, and when some are lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gpu_mixtures import mixture

from gpu.backend import Backend
from gpu.crew import Crew, MemberLostError, Oneself, keeper_of
from gpu.errors import InvalidVectorsError, TooFewPointsError
from gpu.kmeans import kmeans
from gpu.params import KMeansParams
from gpu.parts import PartKeeper, PartSource, cut_parts, unit_for
from gpu.spread_kmeans import Spread, spread_kmeans
from gpu.vectors import unit_rows

CPU = Backend("cpu", "")
PART_BYTES = 40_000


def open_file(path: str):
    return Path(path).open("rb")


def write(
    folder: Path, points: np.ndarray, n_files: int = 2, row_group_rows: int = 500
) -> list[str]:
    """Write rows as exports are: some files, each of several row groups."""
    paths = []
    for number, rows in enumerate(np.array_split(points, n_files)):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
        paths.append(str(folder / f"part-{number:05d}.parquet"))
        pq.write_table(pa.table({"vector": lists}), paths[-1], row_group_size=row_group_rows)
    return paths


class Elsewhere(Oneself):
    """A member that can be lost: it stops answering after so many questions."""

    def __init__(self, keeper: PartKeeper, n_answers: int = 10**9) -> None:
        super().__init__(keeper)
        self.n_left = n_answers
        self.name = f"worker with {n_answers}"

    def ask(self, kind: str, *asked: Any) -> Callable[[], dict[int, Any]]:
        self.n_left -= 1
        return super().ask(kind, *asked) if self.n_left >= 0 else self._gone

    def _gone(self) -> dict[int, Any]:
        raise MemberLostError("killed")


def sources_of(folder: Path, points: np.ndarray, **how: int) -> list[PartSource]:
    return cut_parts(write(folder, points, **how), "vector", open_file, PART_BYTES)


def spread(
    sources: list[PartSource],
    params: KMeansParams,
    *,
    n_members: int = 3,
    answers: tuple[int, ...] = (),
    angular: bool = False,
) -> tuple[Spread, list[str]]:
    losses: list[str] = []

    def keeper() -> PartKeeper:
        return PartKeeper(open_file, angular, 1)

    others = [Elsewhere(keeper(), n) for n in answers or [10**9] * (n_members - 1)]
    crew = Crew(sources, [Oneself(keeper()), *others], losses.append)
    return spread_kmeans(crew, params, n_threads=1), losses


def test_parts_are_row_groups_in_order(tmp_path: Path) -> None:
    points, _ = mixture(4100, 8, seed=1)
    sources = sources_of(tmp_path, points)
    assert sum(source.n_rows for source in sources) == 4100
    assert all(4 * 8 * source.n_rows <= PART_BYTES for source in sources)
    assert [source.row_groups for source in sources] == [(0, 1), (2, 3, 4)] * 2
    keeper = PartKeeper(open_file, False, 1)
    answers = keeper.per_part(dict(enumerate(sources)), None, "take", (slice(None),), {})
    np.testing.assert_array_equal(np.concatenate(list(answers.values())), points)


@pytest.mark.parametrize(("n_parts", "n_members"), [(4, 3), (7, 7), (100, 7), (3, 2)])
def test_everybody_keeps_about_as_many(n_parts: int, n_members: int) -> None:
    kept = np.bincount([keeper_of(n, n_parts, n_members) for n in range(n_parts)])
    assert len(kept) == n_members
    assert kept.max() - kept.min() <= 1


@pytest.mark.parametrize("angular", [False, True])
def test_it_is_k_means_as_on_one_machine(tmp_path: Path, angular: bool) -> None:
    points, _ = mixture(20_000, 16, n_groups=40, spread=2.0, seed=3)
    params = KMeansParams(n_clusters=40)
    rows = unit_rows(points) if angular else points
    alone = kmeans(rows, params, backend=CPU).details
    found, losses = spread(sources_of(tmp_path, points), params, angular=angular)
    assert found.inertia == pytest.approx(alone["inertia"], rel=1e-4)
    assert found.converged
    assert losses == []
    means = np.array([rows[found.labels == group].mean(axis=0) for group in range(40)])
    own = float(np.square(rows - means[found.labels], dtype=np.float64).sum())
    assert own == pytest.approx(found.inertia, rel=1e-3)


def test_the_result_is_the_same_to_the_last_bit_for_any_number_of_members(tmp_path: Path) -> None:
    points, _ = mixture(12_000, 12, n_groups=30, spread=3.0, seed=4)
    sources = sources_of(tmp_path, points)
    params = KMeansParams(n_clusters=30, n_init=2)
    found = [spread(sources, params, n_members=n)[0] for n in (1, 2, 5)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.labels, found[0].labels)
        assert other.inertia == found[0].inertia
        assert other.n_iter == found[0].n_iter


@pytest.mark.parametrize("answers", [(0, 10**9), (3, 10**9), (5, 6)])
def test_parts_of_a_lost_member_go_to_the_others(tmp_path: Path, answers: tuple[int, ...]) -> None:
    points, _ = mixture(9_000, 12, n_groups=30, spread=3.0, seed=5)
    sources = sources_of(tmp_path, points)
    params = KMeansParams(n_clusters=30)
    whole, _ = spread(sources, params)
    found, losses = spread(sources, params, answers=answers)
    assert found.inertia == pytest.approx(whole.inertia, rel=1e-4)
    assert len(losses) == sum(n < 100 for n in answers)
    assert all("was lost: killed" in loss for loss in losses)


def test_far_from_the_origin_it_is_as_good(tmp_path: Path) -> None:
    points, _ = mixture(6_000, 8, n_groups=12, seed=6)
    far = points + np.float32(5_000)
    near, _ = spread(sources_of(tmp_path, points), KMeansParams(n_clusters=12))
    (tmp_path / "far").mkdir()
    found, _ = spread(sources_of(tmp_path / "far", far), KMeansParams(n_clusters=12))
    assert found.inertia == pytest.approx(near.inertia, rel=1e-3)


def test_empty_groups_are_filled_from_any_part(tmp_path: Path) -> None:
    # Three far points in three parts; random starts among many equal ones leave groups empty.
    points = np.zeros((6_000, 4), dtype=np.float32)
    points += np.random.default_rng(0).normal(0, 1e-3, points.shape).astype(np.float32)
    for row, at in ((10, 100), (2_500, 200), (5_900, -300)):
        points[row] = at
    params = KMeansParams(n_clusters=4, init="random", random_state=1)
    found, _ = spread(sources_of(tmp_path, points), params)
    assert len(np.unique(found.labels)) == 4
    alone = kmeans(points, params, backend=CPU)
    assert found.inertia == pytest.approx(alone.details["inertia"], rel=0.05)


def test_fewer_distinct_points_than_groups_give_one_group_each(tmp_path: Path) -> None:
    points = np.repeat(np.eye(3, 8, dtype=np.float32), 2_000, axis=0)
    found, _ = spread(sources_of(tmp_path, points), KMeansParams(n_clusters=5))
    assert len(np.unique(found.labels)) == 3
    assert found.inertia == 0


def test_a_rare_value_is_found_where_the_sample_has_none(tmp_path: Path) -> None:
    points = np.zeros((30_000, 2), dtype=np.float32)
    points[17_123] = 1
    found, _ = spread(sources_of(tmp_path, points), KMeansParams(n_clusters=2))
    assert found.labels.sum() in (1, 29_999)


def test_bad_input_is_told(tmp_path: Path) -> None:
    points, _ = mixture(50, 8)
    sources = sources_of(tmp_path, points)
    with pytest.raises(TooFewPointsError):
        spread(sources, KMeansParams(n_clusters=51))
    points[7, 3] = np.nan
    (tmp_path / "bad").mkdir()
    with pytest.raises(InvalidVectorsError, match="not finite"):
        spread(sources_of(tmp_path / "bad", points), KMeansParams(n_clusters=5))
    with pytest.raises(InvalidVectorsError, match="no column 'other'"):
        cut_parts([sources[0].url], "other", open_file, PART_BYTES)


@pytest.mark.parametrize(("n_points", "largest"), [(1, 1.0), (10**9, 1e6), (5, 1e-12), (3, 0.0)])
def test_sums_fit_into_whole_numbers(n_points: int, largest: float) -> None:
    assert n_points * largest / unit_for(n_points, largest) <= 2**62
