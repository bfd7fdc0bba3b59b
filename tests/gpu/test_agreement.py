"""Indices of agreement: 1 for the same grouping under other numbers, about 0 for chance."""

from __future__ import annotations

import numpy as np
import pytest

from gpu.agreement import agreement


def test_other_numbers_change_nothing():
    ours = np.repeat([0, 1, 2], 40)

    assert agreement(ours, (ours + 1) % 3) == {
        "adjusted_rand": 1.0,
        "adjusted_mutual_info": pytest.approx(1.0),
    }


def test_chance_agrees_by_nothing():
    rng = np.random.default_rng(0)
    found = agreement(rng.integers(0, 5, 4000), rng.integers(0, 5, 4000))

    assert abs(found["adjusted_rand"]) < 0.01
    assert abs(found["adjusted_mutual_info"]) < 0.01


def test_a_split_of_a_small_group_shows_more_by_groups_than_by_pairs():
    ours = np.repeat([0, 1, 2], [900, 50, 50])
    theirs = np.repeat([0, 1, 2, 3], [900, 50, 25, 25])

    found = agreement(ours, theirs)

    assert found["adjusted_mutual_info"] < found["adjusted_rand"] < 1
