"""Groups inside groups, as a table lists them."""

from __future__ import annotations

from clusters.v1.group_pb2 import Group

from server.cli.tree import as_tree, indented, keywords_line


def test_children_stand_below_their_parents_and_siblings_keep_their_order():
    groups = [
        Group(cluster_id="cl_1"),
        Group(cluster_id="cl_0"),
        Group(cluster_id="cl_0_sub_1", parent_cluster_id="cl_0"),
        Group(cluster_id="cl_1_sub_0", parent_cluster_id="cl_1"),
        Group(cluster_id="cl_0_sub_0", parent_cluster_id="cl_0"),
        Group(cluster_id="cl_0_sub_1_sub_0", parent_cluster_id="cl_0_sub_1"),
    ]

    assert [indented(group.cluster_id, depth) for depth, group in as_tree(groups)] == [
        "cl_1",
        "  cl_1_sub_0",
        "cl_0",
        "  cl_0_sub_1",
        "    cl_0_sub_1_sub_0",
        "  cl_0_sub_0",
    ]


def test_a_child_whose_parent_is_on_another_page_is_not_lost():
    groups = [Group(cluster_id="cl_7_sub_0", parent_cluster_id="cl_7"), Group(cluster_id="cl_8")]

    assert [(depth, group.cluster_id) for depth, group in as_tree(groups)] == [
        (0, "cl_7_sub_0"),
        (0, "cl_8"),
    ]


def test_few_keywords_are_shown():
    assert keywords_line(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d, e"
    assert keywords_line([]) == ""
