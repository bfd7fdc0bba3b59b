"""Relations of groups: overlap against plain counting, and who counts as a parent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu.relations import membership_overlap, relations

PAIRS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 5)), max_size=60)


@given(PAIRS)
def test_overlaps_agree_with_sets(pairs):
    first = np.array([a for a, _ in pairs], dtype=np.int32)
    second = np.array([b for _, b in pairs], dtype=np.int32)
    expected = {}
    for a in sorted(set(first.tolist()) - {-1}):
        for b in sorted(set(second.tolist()) - {-1}):
            parent, child = set(np.flatnonzero(first == a)), set(np.flatnonzero(second == b))
            if parent & child:
                expected[a, b] = (len(parent & child), len(parent & child) / len(child))

    found = membership_overlap(first, second)

    rows = zip(found.parents.tolist(), found.children.tolist(), strict=True)
    values = zip(found.shared.tolist(), found.overlaps.tolist(), strict=True)
    assert dict(zip(rows, values, strict=True)) == expected


@given(PAIRS, st.sampled_from([0.5, 0.8, 1.0]))
def test_parents_are_larger_hold_their_share_and_never_form_a_circle(pairs, least):
    labels = {
        "a": np.array([a for a, _ in pairs], dtype=np.int32),
        "b": np.array([b for _, b in pairs], dtype=np.int32),
    }

    rows = relations(labels, min_overlap=least)

    def members(group):
        feature, number = group.split(".cl_")
        return set(np.flatnonzero(labels[feature] == int(number)))

    for row in rows:
        parent, child = members(row["parent_cluster_id"]), members(row["child_cluster_id"])
        assert len(parent) >= len(child)
        assert row["overlap"] == pytest.approx(len(parent & child) / len(child))
        assert row["overlap"] >= least
    arrows = {(row["parent_cluster_id"], row["child_cluster_id"]) for row in rows}
    assert len(arrows) == len(rows)
    assert not any((child, parent) in arrows for parent, child in arrows)


def test_finer_groups_are_children_of_coarser_ones():
    fine = np.repeat([0, 1, 2, 3], 10)
    coarse = fine // 2

    rows = relations({"text": fine, "image": coarse})

    assert [(row["parent_cluster_id"], row["child_cluster_id"]) for row in rows] == [
        ("image.cl_0", "text.cl_0"),
        ("image.cl_0", "text.cl_1"),
        ("image.cl_1", "text.cl_2"),
        ("image.cl_1", "text.cl_3"),
    ]
    assert {row["method"] for row in rows} == {"membership_overlap"}
    assert {row["overlap"] for row in rows} == {1.0}


def test_groups_are_called_as_their_features_call_them():
    fine, coarse = np.repeat([0, 1], 10), np.zeros(20, dtype=np.int32)
    ids = {"text": ["text.cl_0_sub_0", "text.cl_0_sub_1"], "image": ["image.cl_0"]}

    rows = relations({"text": fine, "image": np.append(coarse[:10], [-1] * 10)}, ids)

    assert [(row["parent_cluster_id"], row["child_cluster_id"]) for row in rows] == [
        ("text.cl_0_sub_0", "image.cl_0")
    ]


def test_a_group_of_nearly_everything_is_no_parent_by_chance():
    rng = np.random.default_rng(0)
    giant = (rng.random(1_000) > 0.9).astype(np.int32)
    other = rng.integers(8, size=1_000)

    assert relations({"a": giant, "b": other}, min_overlap=0.7) == []
    assert relations({"a": np.zeros(1_000, dtype=np.int32), "b": other}) == []


def test_the_same_groups_twice_are_related_once():
    labels = np.repeat([0, 1], 20)

    rows = relations({"a": labels, "b": labels})

    assert [row["parent_cluster_id"] for row in rows] == ["a.cl_0", "a.cl_1"]


def test_noise_of_the_parent_counts_against_it():
    parent = np.array([0] * 6 + [-1] * 4 + [1] * 20)
    child = np.array([0] * 10 + [1] * 20)

    found = membership_overlap(parent, child)

    assert found.overlaps[0] == pytest.approx(0.6)


def test_labels_of_different_points_are_refused():
    with pytest.raises(ValueError, match="2 and of 3"):
        membership_overlap(np.zeros(2, int), np.zeros(3, int))
