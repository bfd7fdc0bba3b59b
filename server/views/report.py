"""The report of a run: what was asked, what came out, how good it is, and how to read that.

The report is plain data first, which is also its JSON; the page shows the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.jobs.model import STAGES
from server.views.names import name_of
from server.views.page import render_page
from server.views.tree_bars import tree_bars

Json = dict[str, Any]

HOW_TO_READ = {
    "silhouette": "-1 to 1, higher is better: above 0.5 groups stand clearly apart, near 0 they "
    "touch, below 0 documents lie nearer to another group. Measured on a sample.",
    "davies_bouldin": "0 upwards, lower is better: how far each group overlaps with the one most "
    "like it, on average.",
    "calinski_harabasz": "higher is better: how far groups lie apart against how wide they are. "
    "Compare it only between runs over the same documents.",
    "noise_ratio": "share of the documents that belong to no group. Much of it next to a high "
    "silhouette means few, strict groups.",
    "learning_quality_score": "-1 to 1, higher is better: the silhouette that the learned weights "
    "of the features reach.",
}

ASKED = (
    ("cluster_type", "type"),
    ("input_collections", "collections"),
    ("feature_uris", "features"),
    ("multi_feature_strategy", "several features"),
    ("clustered_attributes", "attributes"),
    ("filters", "filter"),
    ("vector_config", "vector settings"),
    ("attribute_config", "attribute settings"),
    ("llm_labeling", "labeling"),
    ("description", "description"),
)
RAN = (
    ("mode", "mode"),
    ("algorithm", "method"),
    ("effective_params", "parameters used"),
    ("sample_size", "sample"),
    ("device", "device"),
    ("device_reason", "why there"),
    ("learned_weights", "learned weights"),
    ("labeling_usage", "labeling took"),
    ("output_collection_names", "outputs"),
    ("artifacts_url", "artifacts"),
    ("libraries", "versions"),
)


def build_report(cluster: Json, execution: Json, examples: Mapping[str, Sequence[str]]) -> Json:
    """Put a report together.

    Parameters
    ----------
    cluster, execution : dict
        A Cluster and an Execution as JSON; `centroids` of the latter are all groups.
    examples : mapping
        Titles of typical documents, by group.
    """
    n_documents = int(execution.get("num_documents", 0))
    return {
        "cluster_id": cluster["cluster_id"],
        "cluster_name": cluster["cluster_name"],
        "run_id": execution["run_id"],
        "status": execution["status"],
        "finished_at": execution.get("finished_at"),
        "seconds": execution.get("execution_time_seconds"),
        "n_documents": n_documents,
        "n_groups": execution.get("num_clusters", 0),
        "n_noise": execution.get("n_noise", 0),
        "asked": _picked(_settings(cluster, execution), ASKED),
        "ran": _picked(execution, RAN),
        "groups": [
            _group(group, n_documents, examples.get(group["cluster_id"], ()))
            for group in execution.get("centroids", ())
        ],
        "quality": list(_quality(execution)),
        "figures": execution.get("figures", {}),
        "timings_s": _in_order(execution.get("timings", {})),
        "timeline": _in_order(execution.get("timeline", {})),
        "error": execution.get("error"),
        "warnings": execution.get("warnings", []),
        "labeling_errors": execution.get("llm_labeling_errors", []),
    }


def _in_order(by_stage: Json) -> Json:
    return {stage: by_stage[stage] for stage in (*STAGES, *by_stage) if stage in by_stage}


def _settings(cluster: Json, execution: Json) -> Json:
    """Give the definition, with the filter that applied to this run."""
    return {**cluster, "filters": execution.get("filters")}


def _picked(body: Json, fields: Sequence[tuple[str, str]]) -> Json:
    told = {words: _without_empty(body.get(name)) for name, words in fields}
    return {words: value for words, value in told.items() if not _is_empty(value)}


def _without_empty(value: Any) -> Any:
    """Leave out what says nothing, at any depth."""
    if isinstance(value, dict):
        parts = {name: _without_empty(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if not _is_empty(part)}
    return [_without_empty(part) for part in value] if isinstance(value, list) else value


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _group(group: Json, n_documents: int, examples: Sequence[str]) -> Json:
    return {
        "cluster_id": group["cluster_id"],
        "label": group["label"],
        "summary": group.get("summary"),
        "keywords": group.get("keywords", []),
        "parent_cluster_id": group.get("parent_cluster_id"),
        "member_count": group["member_count"],
        "share": group["member_count"] / max(1, n_documents),
        "cohesion": group.get("cohesion"),
        "examples": list(examples),
    }


def _quality(execution: Json) -> Iterator[Json]:
    for feature, measures in by_feature(execution.get("quality_metrics", {}), "noise_ratio"):
        for name in HOW_TO_READ:
            if name in measures:
                yield _reading(name, measures[name], feature or None)
    if "learning_quality_score" in execution:
        yield _reading("learning_quality_score", execution["learning_quality_score"])


def _reading(name: str, value: float | None, feature: str | None = None) -> Json:
    return {"name": name, "value": value, "how_to_read": HOW_TO_READ[name], "feature": feature}


def by_feature(body: Json, mark: str) -> list[tuple[str, Json]]:
    """Give the parts of what a run has for each feature, or the whole under no name."""
    if not body or mark in body:
        return [("", body)]
    return [(name, part) for name, part in body.items() if isinstance(part, dict)]


def report_page(report: Json) -> str:
    """Write a report as one HTML file that needs nothing else."""
    charts = list(_charts(report))
    return render_page(
        "report.html",
        ["theme.js", "charts.js"],
        {"charts": charts},
        title=f"Report of {report['cluster_name']}",
        report=report,
        charts=charts,
    )


def _charts(report: Json) -> Iterator[Json]:
    groups = report["groups"]
    parents = {group["parent_cluster_id"] for group in groups}
    leaves = [group for group in groups if group["cluster_id"] not in parents]
    names = {group["cluster_id"]: name_of(group["label"], group["keywords"]) for group in groups}
    if leaves:
        yield {
            "kind": "sizes",
            "title": "Sizes of the groups",
            "reading": "Largest first. A steep start with a long tail is usual; one group that "
            "holds nearly everything means that nothing was told apart.",
            "labels": [names[group["cluster_id"]] for group in leaves],
            "sizes": [group["member_count"] for group in leaves],
        }
    for feature, figures in by_feature(report["figures"], "silhouette_profile"):
        for chart in _figure_charts(figures, names):
            title = f"{chart['title']} ({feature})" if feature else chart["title"]
            yield chart | {"title": title}
    if report["timings_s"]:
        yield {
            "kind": "timings",
            "title": "Time per stage",
            "reading": "Seconds since the run's start, by the worker's clock. Bars above each "
            "other were at work at the same time.",
            **_bars(report),
        }


def _bars(report: Json) -> Json:
    """Give a bar for each time that a stage was at work; from 0 where only its length is known."""
    bars = [
        (stage, begin, end)
        for stage, seconds in report["timings_s"].items()
        for begin, end in report["timeline"].get(stage, [(0, seconds)])
    ]
    return {
        "labels": [stage for stage, _, _ in bars],
        "begins": [begin for _, begin, _ in bars],
        "seconds": [end - begin for _, begin, end in bars],
    }


def _figure_charts(figures: Json, names: Mapping[str, str]) -> Iterator[Json]:
    if profile := figures.get("silhouette_profile"):
        yield {
            "kind": "silhouettes",
            "title": "Silhouettes by group",
            "reading": "A box holds the middle half of a group's documents, its line the median. "
            "Boxes right of 0 are sound; a group that reaches far below 0 is mixed with another.",
            "labels": [names.get(row["cluster_id"], row["cluster_id"]) for row in profile],
            "quantiles": [row["quantiles"] for row in profile],
        }
    if tree := figures.get("condensed_tree"):
        yield {
            "kind": "tree",
            "title": "Condensed tree",
            "reading": "From the top down groups split as density (λ = 1 / distance) grows; the "
            "width is the number of documents. Coloured bars were selected: long ones are stable.",
            "bars": tree_bars(tree, names),
            "n_clusters": tree["n_clusters"],
        }
    elbow = figures.get("elbow")
    if elbow and elbow["inertia"]:
        yield {
            "kind": "elbow",
            "title": "Other numbers of groups",
            "reading": "Mean squared distance to the centroid, on a sample of "
            f"{elbow['n_points']:,} documents. Where the curve bends, more groups only cut up "
            "what belongs together.",
            **elbow,
        }
