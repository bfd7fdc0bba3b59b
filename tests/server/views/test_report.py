"""The report of a run: its words, and its charts in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from browser import AA, CONTRASTS

from server.views.report import build_report, report_page
from server.views.tree_bars import tree_bars
from tests.server.views.conftest import Open

EVIL = "<script>window.hacked = 1</script>"


def cluster(**changes: Any) -> dict[str, Any]:
    return {
        "cluster_id": "clust_1",
        "cluster_name": f"docs {EVIL}",
        "cluster_type": "vector",
        "input_collections": ["docs"],
        "vector_config": {"clustering_method": "hdbscan", "algorithm_params": {"alpha": 1.5}},
    } | changes


def group(number: int, size: int, **changes: Any) -> dict[str, Any]:
    return {
        "cluster_id": f"cl_{number}",
        "label": f"{EVIL} {number}",
        "keywords": ["red", "<i>warm</i>"],
        "member_count": size,
        "cohesion": 0.25,
    } | changes


def execution(**changes: Any) -> dict[str, Any]:
    return {
        "run_id": "run_1",
        "status": "completed",
        "finished_at": "2026-03-01T12:00:10Z",
        "execution_time_seconds": 4.5,
        "num_clusters": 2,
        "num_documents": 100,
        "n_noise": 20,
        "algorithm": "hdbscan",
        "effective_params": {"min_cluster_size": 5, "max_cluster_size": None},
        "device": "cpu",
        "device_reason": "no GPU answers",
        "quality_metrics": {"silhouette": 0.25, "davies_bouldin": None, "noise_ratio": 0.2},
        "figures": {
            "silhouette_profile": [
                {"cluster_id": "cl_0", "n_points": 50, "quantiles": [-0.1, 0.1, 0.2, 0.3, 0.5]},
                {"cluster_id": "cl_1", "n_points": 30, "quantiles": [0, 0.2, 0.3, 0.4, 0.6]},
            ],
            "condensed_tree": {
                "parent": [0, 0, 0],
                "birth": [0, 1.5, 1.5],
                "death": [1.5, 4, None],
                "size": [100, 50, 30],
                "group": [None, "cl_0", "cl_1"],
                "n_clusters": 3,
            },
            "elbow": {"n_clusters": [1, 2, 4], "inertia": [9.0, 4, 3.5], "n_points": 100},
        },
        "timings": {"cluster": 2.5, "export": 1.5},
        "timeline": {"cluster": [[1.75, 4.25]], "export": [[0.25, 1.75]]},
        "warnings": [f"3 documents were left out {EVIL}"],
        "llm_labeling_errors": ["the model did not answer: cl_1"],
        "centroids": [group(0, 50), group(1, 30)],
    } | changes


def test_the_report_is_plain_data():
    report = build_report(cluster(), execution(), {"cl_0": ["a", "b"]})

    assert report["asked"]["vector settings"]["algorithm_params"] == {"alpha": 1.5}
    assert report["ran"]["method"] == "hdbscan"
    assert report["ran"]["parameters used"] == {"min_cluster_size": 5}
    assert list(report["timings_s"]) == list(report["timeline"]) == ["export", "cluster"]
    first, second = report["groups"]
    assert (first["share"], first["examples"]) == (0.5, ["a", "b"])
    assert second["examples"] == []
    assert [row["name"] for row in report["quality"]] == [
        "silhouette", "davies_bouldin", "noise_ratio",
    ]  # fmt: skip
    assert all(row["how_to_read"] for row in report["quality"])


def test_features_with_groups_of_their_own_are_told_apart():
    measured = {"text": {"silhouette": 0.5, "noise_ratio": 0}, "image": {"noise_ratio": 0.5}}
    body = execution(
        quality_metrics=measured, figures={"text": execution()["figures"], "image": {}}
    )

    report = build_report(cluster(), body, {})

    assert [(row["feature"], row["name"]) for row in report["quality"]] == [
        ("text", "silhouette"), ("text", "noise_ratio"), ("image", "noise_ratio"),
    ]  # fmt: skip
    assert "Condensed tree (text)" in report_page(report)


@pytest.mark.parametrize(
    "changes",
    [
        {"centroids": [], "num_clusters": 0, "n_noise": 100, "figures": {}},
        {"quality_metrics": {}, "figures": {}, "timings": {}},
        {"status": "failed", "error": "no room", "quality_metrics": {}, "centroids": []},
        {"status": "completed", "finished_at": None, "execution_time_seconds": None},
    ],
    ids=["only noise", "by attributes", "failed", "no times"],
)
def test_a_run_that_lacks_something_has_a_report(changes: dict[str, Any]):
    page = report_page(build_report(cluster(), execution(**changes), {}))

    assert ("no room" in page) == ("error" in changes)
    assert "docs &lt;script&gt;" in page


def test_a_report_opens_offline_and_draws_its_charts(open_page: Open):
    report = build_report(cluster(), execution(), {"cl_0": [EVIL]})
    opened = open_page(report_page(report))

    assert opened.complaints == []
    assert [url.split("/")[-1] for url in opened.requests] == ["page.html"]
    assert opened.page.evaluate("window.hacked") is None
    headings = opened.page.locator("h2").all_inner_texts()
    assert headings == [
        "Notes and warnings", "What was asked", "What ran", "Quality", "Sizes of the groups",
        "Silhouettes by group", "Condensed tree", "Other numbers of groups", "Time per stage",
        "Groups",
    ]  # fmt: skip
    assert opened.page.locator(".chart .main-svg").count() >= 5
    assert "of each" not in opened.text("main")
    opened.page.click("#theme")
    ground = opened.page.evaluate("document.getElementById('chart-0').layout.paper_bgcolor")
    assert ground == "#121214"
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_a_report_has_contrast(open_page: Open, scheme: str):
    opened = open_page(report_page(build_report(cluster(), execution(), {})), scheme)

    found = opened.page.evaluate(CONTRASTS)

    assert len(found) > 100
    assert [each for each in found if each[0] < AA] == []
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.id") == "theme"


def test_bars_of_a_tree_lie_within_their_parents():
    tree = {
        "parent": [0, 0, 0, 1, 1],
        "birth": [0, 2, 2, 3, 3],
        "death": [2, 3, None, 5, 6],
        "size": [10, 6, 3, 2, 3],
        "group": [None, None, "cl_0", "cl_1", "gone"],
    }

    bars = tree_bars(tree, {"cl_0": "A", "cl_1": "B"})

    assert bars["left"] == [0, 0, 6, 0, 2]
    assert bars["label"] == [None, None, "A", "B", "gone"]
    assert bars["bottom"][2] > 6  # It never ends: below all others.
    assert all(top < bottom for top, bottom in zip(bars["top"], bars["bottom"], strict=True))
