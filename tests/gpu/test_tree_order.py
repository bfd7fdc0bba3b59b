from __future__ import annotations

import numpy as np

from gpu.tree_order import prim_order


def test_the_nearest_point_outside_comes_next_and_of_several_the_first():
    #   0 --2-- 3 --1-- 1
    #   |       |
    #   2       2
    #   2       4
    left, right = np.array([0, 3, 0, 3]), np.array([3, 1, 2, 4])

    order, joined_at = prim_order(5, left, right, np.array([2, 1, 2, 2], dtype=np.float32))

    assert order.tolist() == [0, 2, 3, 1, 4]
    assert joined_at.tolist() == [2, 2, 1, 2]


def test_edges_beside_the_tree_change_only_the_order_of_ties():
    left, right = np.array([0, 1, 0]), np.array([1, 2, 2])

    order, joined_at = prim_order(3, left[:2], right[:2], np.array([5, 5], dtype=np.float32))
    tied, tied_at = prim_order(3, left[::-1], right[::-1], np.array([5, 5, 5], dtype=np.float32))

    assert order.tolist() == tied.tolist() == [0, 1, 2]
    assert joined_at.tolist() == tied_at.tolist() == [5, 5]


def test_repeated_edges_count_by_the_lightest():
    ends = np.array([0, 0, 1]), np.array([1, 1, 0])

    _, joined_at = prim_order(2, *ends, np.array([3, 2, 4], dtype=np.float32))

    assert joined_at.tolist() == [2]
