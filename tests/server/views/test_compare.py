"""What became of the groups between two runs, as rows and as a picture."""

from __future__ import annotations

import json
import re

import pytest
from browser import AA, CONTRASTS

from server.views.compare import MOST_FLOW_GROUPS, Side, compare, comparison_page
from tests.server.views.conftest import Open


def side(run_id: str, groups: str, **labels: str) -> Side:
    """One run: a letter for the group of each document, a dot for noise, a dash for none."""
    return Side(
        cluster_name="docs",
        run_id=run_id,
        labels={
            letter: labels.get(letter, f"Group {letter}") for letter in set(groups) - set(".-")
        },
        group_of={
            (str(at),): None if letter == "." else letter
            for at, letter in enumerate(groups)
            if letter != "-"
        },
    )


def told(before: str, after: str) -> list[tuple[str, str, str, float | None]]:
    rows = compare(side("run_1", before), side("run_2", after), {})["changes"]
    return [
        (
            row["change"],
            "".join(group["cluster_id"] for group in row["from"]),
            "".join(group["cluster_id"] for group in row["to"]),
            row["share"],
        )
        for row in rows
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("aaaabbbb", "bbbbaaaa", [("kept", "a", "b", 1.0), ("kept", "b", "a", 1.0)]),
        ("aaaabbbb", "aaaaaaaa", [("merged", "ab", "a", 1.0)]),
        ("aaaaaaaa", "aaaaabbb", [("split", "a", "ab", 1.0)]),
        ("aaaa....", "aaaabbbb", [("appeared", "", "b", None), ("kept", "a", "a", 1.0)]),
        ("aaaabbbb", "aaaa....", [("went", "b", "", None), ("kept", "a", "a", 1.0)]),
        # A document or two that go elsewhere split nothing.
        ("aaaaaaaabbbb", "aaaaaaabbbbb", [("kept", "a", "a", 0.875), ("kept", "b", "b", 1.0)]),
        ("aaaabb", "aaaa--", [("kept", "a", "a", 1.0)]),
        ("....", "....", []),
    ],
)  # fmt: skip
def test_each_group_is_told_about_once(before, after, expected):
    assert told(before, after) == expected


def test_counts_are_over_documents_of_both_runs():
    found = compare(side("run_1", "aab.-"), side("run_2", "a-bbb"), {})

    assert found["n_shared"] == 3
    assert (found["before"]["n_documents"], found["before"]["n_only_here"]) == (4, 1)
    assert (found["after"]["n_documents"], found["after"]["n_only_here"]) == (4, 1)
    assert found["before"]["n_noise"] == 1
    assert {"from": None, "to": "b", "count": 1} in found["flows"]


def test_many_groups_are_drawn_as_some_and_others(open_page: Open):
    evil = "<script>window.hacked = 1</script>"
    letters = "".join(chr(0x4E00 + at) * 2 for at in range(MOST_FLOW_GROUPS + 9))
    many = side("run_1", letters + "aaaa", a=evil)
    few = side("run_2", "b" * len(letters) + "..aa")

    found = compare(many, few, {"all": {"adjusted_rand": 0.5, "adjusted_mutual_info": 0.25}})
    opened = open_page(comparison_page(found))

    nodes = opened.page.evaluate("document.getElementById('chart-0').data[0].node.label")
    assert len(nodes) == MOST_FLOW_GROUPS + 1 + 3
    assert nodes[MOST_FLOW_GROUPS] == "10 other groups"
    assert "0.500" in opened.text("main")
    assert evil in opened.text("main")
    assert opened.page.evaluate("window.hacked") is None
    for _ in range(2):
        assert [each for each in opened.page.evaluate(CONTRASTS) if each[0] < AA] == []
        opened.page.click("#theme")
    assert opened.complaints == []


def test_thin_bands_are_left_out_and_counted():
    # One document of 100 goes astray, which is much for neither of its groups; d is small.
    before, after = "a" * 100 + "b" * 100 + "d", "a" * 99 + "b" * 101 + "a"
    found = compare(side("run_1", before), side("run_2", after), {})

    picture = comparison_page(found)
    chart = json.loads(re.search(r'id="data">(.*?)</script>', picture)[1])["charts"][0]
    labels = [node["label"] for node in chart["nodes"]]
    bands = [(labels[b["from"]], labels[b["to"]], b["count"]) for b in chart["links"]]

    assert sorted(bands) == [
        ("Group a", "Group a", 99), ("Group b", "Group b", 100), ("Group d", "Group a", 1),
    ]  # fmt: skip
    assert "left out: 1 documents" in chart["reading"]
