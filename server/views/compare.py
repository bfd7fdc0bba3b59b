"""Two runs beside each other: which groups were kept, split, merged, appeared or went.

References
----------
Spiliopoulou, Ntoutsi, Theodoridis and Schult (2006), doi:10.1145/1150402.1150491 (MONIC). Here a
split is looked for first, so that a group that loses a third of its documents to one other group
is told as split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.views.colors import LIGHT
from server.views.page import render_page

Json = dict[str, Any]
Key = tuple[str, ...]
Flows = Counter[tuple[str | None, str | None]]

MATCH_SHARE = 0.5
"""Share of a group's documents that have to go to one group for it to live on there."""

SPLIT_SHARE = 0.25
"""Share from which a part of a group counts as a part of a split."""

BAND_SHARE = 0.05
"""Share of one of its two groups from which a flow is drawn; the many thin ones hide the others."""

MOST_FLOW_GROUPS = 60
"""Groups of each run that the picture tells apart."""

OTHERS = "other groups"
CHANGES = ("split", "merged", "appeared", "went", "kept")


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes
    ----------
    labels : mapping
        What each group is called.
    group_of : mapping
        The group of each document; None for noise.
    """

    cluster_name: str
    run_id: str
    labels: Mapping[str, str]
    group_of: Mapping[Key, str | None]
    notes: list[str] = field(default_factory=list)


def compare(before: Side, after: Side, agreements: Mapping[str, Mapping[str, Any]]) -> Json:
    """Put a comparison together, over the documents that are in both runs.

    Parameters
    ----------
    agreements : mapping
        Indices of agreement, by what they were taken over.
    """
    shared = [key for key in before.group_of if key in after.group_of]
    flows = Counter((before.group_of[key], after.group_of[key]) for key in shared)
    return {
        "before": _side(before, len(before.group_of) - len(shared)),
        "after": _side(after, len(after.group_of) - len(shared)),
        "n_shared": len(shared),
        "agreement": {name: dict(values) for name, values in agreements.items()},
        "changes": sorted(
            _changes(before, after, flows), key=lambda row: CHANGES.index(row["change"])
        ),
        "flows": [
            {"from": source, "to": target, "count": count}
            for (source, target), count in flows.most_common()
        ],
        "notes": [*before.notes, *after.notes],
    }


def _side(side: Side, n_alone: int) -> Json:
    return {
        "cluster_name": side.cluster_name,
        "run_id": side.run_id,
        "n_documents": len(side.group_of),
        "n_only_here": n_alone,
        "n_noise": sum(group is None for group in side.group_of.values()),
        "labels": dict(side.labels),
    }


def _changes(before: Side, after: Side, flows: Flows) -> Iterator[Json]:
    """Tell what became of each group that has shared documents, and which are new."""
    out: dict[str, Counter[str]] = defaultdict(Counter)
    n_before: Counter[str] = Counter()
    n_after: Counter[str] = Counter()
    for (source, target), count in flows.items():
        if source is not None:
            n_before[source] += count
        if target is not None:
            n_after[target] += count
        if source is not None and target is not None:
            out[source][target] += count
    reached: set[str] = set()
    into: dict[str, list[str]] = defaultdict(list)
    for source, size in n_before.most_common():
        parts = [t for t, count in out[source].most_common() if count >= SPLIT_SHARE * size]
        if len(parts) > 1:
            reached.update(parts)
            yield _row("split", before, after, [source], parts, out, n_before)
        elif parts and out[source][parts[0]] >= MATCH_SHARE * size:
            into[parts[0]].append(source)
        else:
            yield _row("went", before, after, [source], [], out, n_before)
    for target, sources in into.items():
        reached.add(target)
        change = "merged" if len(sources) > 1 else "kept"
        yield _row(change, before, after, sources, [target], out, n_before)
    for target, _ in n_after.most_common():
        if target not in reached:
            yield _row("appeared", before, after, [], [target], out, n_after)


def _row(
    change: str,
    before: Side,
    after: Side,
    sources: list[str],
    targets: list[str],
    out: Mapping[str, Counter[str]],
    sizes: Counter[str],
) -> Json:
    moved = sum(out[source][target] for source in sources for target in targets)
    n_documents = sum(sizes[group] for group in sources or targets)
    return {
        "change": change,
        "from": [{"cluster_id": s, "label": before.labels.get(s, s)} for s in sources],
        "to": [{"cluster_id": t, "label": after.labels.get(t, t)} for t in targets],
        "n_documents": n_documents,
        "share": moved / n_documents if sources and targets else None,
    }


def comparison_page(comparison: Json) -> str:
    """Write a comparison as one HTML file that needs nothing else."""
    picture = _sankey(comparison)
    n_thin = comparison["n_shared"] - sum(link["count"] for link in picture["links"])
    chart = {
        "title": "Where the documents went",
        "reading": f"Left the groups of {comparison['before']['run_id']}, right those of "
        f"{comparison['after']['run_id']}; the width of a band is the number of documents."
        + (
            f" Bands below {BAND_SHARE:.0%} of both their groups are left out: "
            f"{n_thin:,} documents."
            if n_thin
            else ""
        ),
        "kind": "flows",
        **picture,
    }
    return render_page(
        "compare.html",
        ["theme.js", "charts.js"],
        {"charts": [chart]},
        title="Comparison of two runs",
        comparison=comparison,
        charts=[chart],
    )


def _sankey(comparison: Json) -> Json:
    """Give the nodes and links of the picture: the largest groups, the others as one."""
    before = _Nodes(comparison["before"]["labels"], comparison["flows"], "from")
    after = _Nodes(comparison["after"]["labels"], comparison["flows"], "to")
    links: Counter[tuple[int, int]] = Counter()
    for flow in comparison["flows"]:
        links[before.at(flow["from"]), after.at(flow["to"])] += flow["count"]
    sizes_before, sizes_after = Counter[int](), Counter[int]()
    for (source, target), count in links.items():
        sizes_before[source] += count
        sizes_after[target] += count
    colors = [at % len(LIGHT) for at in range(len(before.names))]
    main = {target: source for (source, target), _ in reversed(links.most_common())}
    nodes = [
        {"label": name, "isNoise": at == side.noise_at, "color": given[at]}
        for side, given in (
            (before, colors),
            (after, [colors[main[at]] for at in range(len(after.names))]),
        )
        for at, name in enumerate(side.names)
    ]
    n_before = len(before.names)
    return {
        "nodes": nodes,
        "links": [
            {"from": source, "to": n_before + target, "count": count}
            for (source, target), count in links.items()
            if count >= BAND_SHARE * min(sizes_before[source], sizes_after[target])
        ],
    }


class _Nodes:
    """The nodes on one side of the picture."""

    def __init__(self, labels: Mapping[str, str], flows: list[Json], side: str) -> None:
        sizes: Counter[str | None] = Counter()
        for flow in flows:
            sizes[flow[side]] += flow["count"]
        largest = [group for group, _ in sizes.most_common(MOST_FLOW_GROUPS)]
        self._position = {group: at for at, group in enumerate(largest)}
        self.noise_at = self._position.get(None)
        self.names = ["Noise" if g is None else labels.get(g, g) for g in largest]
        if len(sizes) > len(largest):
            self.names.append(f"{len(sizes) - len(largest)} {OTHERS}")

    def at(self, group: str | None) -> int:
        """Give a group's node; the last one stands for all that have none."""
        return self._position.get(group, len(self.names) - 1)
