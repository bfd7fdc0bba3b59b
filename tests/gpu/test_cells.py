"""Cells hold every point once, and each point asks for the cells nearest to it."""

import numpy as np
import pytest

import gpu.cells
from gpu.cells import POINTS_PER_CELL, cut
from gpu.parallel import worker_threads
from gpu.sketches import Sketch
from gpu.squared_distances import SquaredDistances


@pytest.fixture(scope="module")
def each():
    with worker_threads(2) as mapped:
        yield mapped


@pytest.fixture
def in_two_steps(monkeypatch):
    """Make a few thousand points many."""
    monkeypatch.setattr(gpu.cells, "MOST_REGIONS", 8)
    monkeypatch.setattr(gpu.cells, "MOST_COMPARED", 32)


def crowded(n_points=8000, n_dims=6, seed=0):
    """Half of the points in one corner."""
    points = np.random.default_rng(seed).normal(size=(n_points, n_dims))
    points[: n_points // 2] *= 0.1
    return points.astype(np.float32)


def cells_of(points, each, n_asked=5):
    sketch = Sketch(SquaredDistances(points), each)
    return sketch.rows(slice(0, len(points))), cut(sketch, n_asked, each)


def means(points, members):
    return np.array(
        [
            points[members.rows[start:stop]].mean(axis=0)
            for start, stop in zip(members.starts[:-1], members.starts[1:], strict=True)
            if stop > start
        ]
    )


def check(points, cells, n_asked=5):
    members, asked = cells
    assert np.array_equal(np.sort(members.rows), np.arange(len(points)))
    own = np.repeat(np.arange(len(members.sizes)), members.sizes)
    assert np.array_equal(asked[members.rows, 0], own)
    assert asked.shape == (len(points), n_asked)
    assert all(len(set(row)) == n_asked for row in asked.tolist())


def test_points_ask_for_their_own_cell_first_and_for_each_once(each):
    points, cells = cells_of(crowded(), each)

    check(points, cells)


def test_crowds_are_cut_into_more_cells(each):
    _, cells = cells_of(crowded(), each)

    sizes = cells.members.sizes
    assert np.median(sizes) < 2 * POINTS_PER_CELL
    assert sizes.max() < 5 * POINTS_PER_CELL


def test_in_two_steps_points_ask_for_nearly_the_same_cells(each, in_two_steps):
    points, cells = cells_of(crowded(), each)

    check(points, cells)
    assert (cells.members.sizes > 0).sum() > 32
    centres = means(points, cells.members)
    to_all = np.linalg.norm(points[:, None] - centres, axis=2)
    filled = np.flatnonzero(cells.members.sizes)
    nearest = filled[np.argsort(to_all, axis=1)[:, :5]]
    agreed = [np.isin(a, b).mean() for a, b in zip(nearest, cells.asked, strict=True)]
    assert np.mean(agreed) > 0.8


def test_what_is_found_does_not_depend_on_the_threads(in_two_steps):
    found = []
    for n_threads in (1, 3):
        with worker_threads(n_threads) as each:
            found.append(cells_of(crowded(), each)[1])

    assert np.array_equal(found[0].asked, found[1].asked)


@pytest.mark.parametrize(
    "points",
    [np.ones((3000, 4)), np.zeros((1, 3)), np.arange(40.0)[:, None]],
    ids=["all alike", "one", "few"],
)
def test_odd_points_have_cells_too(each, in_two_steps, points):
    _, (members, asked) = cells_of(points.astype(np.float32), each)

    assert np.array_equal(np.sort(members.rows), np.arange(len(points)))
    assert asked.min() >= 0
    assert asked.max() < len(members.sizes)
