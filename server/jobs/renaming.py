"""Renames groups of a finished run: in its record, then in what it wrote into Qdrant.

The record is the truth that every reader of artifacts follows; the documents in Qdrant are
made to agree with it afterwards. Where that is interrupted, repeating the call ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence

from server.errors import InvalidRequestError, Violation
from server.jobs import ledger
from server.jobs.clusters import RunNotFoundError
from server.jobs.findings import Findings
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, GroupNames, RunRecord
from server.labeling.naming import RESERVED_LABELS
from server.labeling.replies import (
    MAX_KEYWORD_CHARS,
    MAX_KEYWORDS,
    MAX_LABEL_CHARS,
    MAX_SUMMARY_CHARS,
    is_clean,
)
from server.qdrant.client import QdrantAddress, connect
from server.results.artifacts import RunFolder
from server.results.fields import KEYS
from server.results.groups import NOISE_ID, Group
from server.results.names import rename_in_output, rename_in_sources, renamed_groups
from server.stores.base import JobStore
from server.tenancy import Caller

MAX_RENAMED_AT_ONCE = 1_000
MAX_LISTED = 20


class Renames:
    """Changes the names that runs gave to their groups."""

    def __init__(self, findings: Findings, store: JobStore, qdrant: QdrantAddress) -> None:
        self._findings = findings
        self._store = store
        self._qdrant = qdrant

    async def rename(
        self, caller: Caller, id_or_name: str, run_id: str, names: Sequence[GroupNames]
    ) -> tuple[ClusterRecord, RunRecord, list[Group]]:
        """Rename groups, and give them as they then are, in the order of `names`.

        Raises
        ------
        InvalidRequestError
            With every fault: unknown groups, labels that are taken, empty or too long.
        NoResultsError
            If the run has no groups.
        QdrantUnavailableError
            If the run's outputs could not be reached; the names are stored. Repeat the call.
        """
        cluster, run = await self._findings.finished(caller, id_or_name, run_id)
        folder = self._findings.folder(cluster, run)
        found = await asyncio.to_thread(folder.read_groups, with_centroids=False)

        def move(current: ClusterRecord) -> ClusterRecord:
            return _with_names(current, run.run_id, found, names)

        stored = await ledger.apply(self._store, caller.namespace_id, cluster.cluster_id, move)
        changed = {name.cluster_id for name in names}
        while True:
            run = _run_of(stored, run.run_id)
            now = renamed_groups(found, run.renamed)
            groups = {group.cluster_id: group for group in now if group.cluster_id in changed}
            await asyncio.to_thread(self._follow, caller, run, folder, now, changed)
            # Two callers may rename at once: both leave Qdrant with what the record says.
            stored = await self._store.get_cluster(caller.namespace_id, cluster.cluster_id)
            if _run_of(stored, run.run_id).renamed == run.renamed:
                return stored, run, [groups[name.cluster_id] for name in names]

    def _follow(
        self,
        caller: Caller,
        run: RunRecord,
        folder: RunFolder,
        groups: Sequence[Group],
        changed: Collection[str],
    ) -> None:
        """Make what the run wrote into Qdrant agree with the record."""
        definition = run.definition
        outputs = run.result.outputs if run.result is not None else []
        sources = [(name, caller.qdrant_name(name)) for name in definition.collection_ids]
        client = connect(self._qdrant)
        try:
            renamed = [group for group in groups if group.cluster_id in changed]
            for output in outputs:
                rename_in_output(client, output, renamed)
            if definition.enrich_source_collection:
                members = folder.read_members(columns=[*KEYS, "cluster_id"])
                rename_in_sources(
                    client, sources, members, groups, changed, definition.enrichment, run.run_id
                )
        finally:
            client.close()


def _run_of(cluster: ClusterRecord, run_id: str) -> RunRecord:
    run = cluster.run(run_id)
    if run is None:
        raise RunNotFoundError("run", run_id, "its record has been retired")
    return run


def _with_names(
    cluster: ClusterRecord, run_id: str, found: Sequence[Group], names: Sequence[GroupNames]
) -> ClusterRecord:
    """Lay new names over a run's; refused with every fault."""
    run = _run_of(cluster, run_id)
    if violations := list(_faults(renamed_groups(found, run.renamed), names)):
        raise InvalidRequestError(violations)
    merged = {name.cluster_id: name for name in run.renamed}
    for name in names:
        merged[name.cluster_id] = _laid_over(merged.get(name.cluster_id), name)
    renamed = list(merged.values())
    if renamed == run.renamed:
        return cluster
    changed = run.model_copy(update={"renamed": renamed})
    runs = [changed if each.run_id == run_id else each for each in cluster.runs]
    return cluster.model_copy(update={"runs": runs, "updated_at": utc_now()})


def _laid_over(before: GroupNames | None, name: GroupNames) -> GroupNames:
    if before is None:
        return name
    return GroupNames(
        cluster_id=name.cluster_id,
        label=before.label if name.label is None else name.label,
        summary=before.summary if name.summary is None else name.summary,
        keywords=name.keywords or before.keywords,
    )


def _faults(groups: Sequence[Group], names: Sequence[GroupNames]) -> Iterator[Violation]:
    if len(names) > MAX_RENAMED_AT_ONCE:
        yield Violation(
            "labels", f"sent {len(names)}; at most {MAX_RENAMED_AT_ONCE} are allowed at once"
        )
        return
    known = {group.cluster_id for group in groups}
    seen: set[str] = set()
    for position, name in enumerate(names):
        path = f"labels[{position}]"
        if name.cluster_id not in known:
            yield Violation(f"{path}.cluster_id", _unknown(name.cluster_id, groups))
        elif name.cluster_id in seen:
            yield Violation(f"{path}.cluster_id", f"{name.cluster_id} is listed twice")
        seen.add(name.cluster_id)
        yield from _faults_of_name(path, name)
    yield from _faults_of_uniqueness(groups, names)


def _unknown(group_id: str, groups: Sequence[Group]) -> str:
    if group_id == NOISE_ID:
        return f"{NOISE_ID} is no group but what belongs to none; it cannot be renamed"
    listed = ", ".join(group.cluster_id for group in groups[:MAX_LISTED])
    more = ", …" if len(groups) > MAX_LISTED else ""
    return f"sent {group_id!r}; the run has {listed}{more}"


def _faults_of_name(path: str, name: GroupNames) -> Iterator[Violation]:
    if name.label is None and name.summary is None and not name.keywords:
        yield Violation(path, "changes nothing; send a label, a summary or keywords")
    if name.label is not None:
        if not name.label.strip():
            yield Violation(f"{path}.label", "is empty; send a name or leave it out")
        yield from _faults_of_text(f"{path}.label", name.label, MAX_LABEL_CHARS)
    if name.summary is not None:
        yield from _faults_of_text(f"{path}.summary", name.summary, MAX_SUMMARY_CHARS)
    if len(name.keywords) > MAX_KEYWORDS:
        yield Violation(f"{path}.keywords", f"sent {len(name.keywords)}; allowed: {MAX_KEYWORDS}")
    for position, word in enumerate(name.keywords[:MAX_KEYWORDS]):
        if not word.strip():
            yield Violation(f"{path}.keywords[{position}]", "is empty; leave it out")
        yield from _faults_of_text(f"{path}.keywords[{position}]", word, MAX_KEYWORD_CHARS)


def _faults_of_text(path: str, text: str, max_chars: int) -> Iterator[Violation]:
    if len(text) > max_chars:
        yield Violation(path, f"has {len(text)} characters; at most {max_chars} are allowed")
    if not is_clean(text):
        yield Violation(path, "holds a control or an invisible character")


def _faults_of_uniqueness(
    groups: Sequence[Group], names: Sequence[GroupNames]
) -> Iterator[Violation]:
    """Refuse labels that two groups would have then, ignoring case."""
    sent = {name.cluster_id: name.label for name in names if name.label is not None}
    taken = {
        group.label.casefold(): group.cluster_id for group in groups if group.cluster_id not in sent
    }
    for position, name in enumerate(names):
        if name.label is None:
            continue
        label = name.label.strip().casefold()
        if label in RESERVED_LABELS:
            yield Violation(f"labels[{position}].label", f"{name.label!r} means no group")
        elif taken.setdefault(label, name.cluster_id) != name.cluster_id:
            yield Violation(
                f"labels[{position}].label",
                f"{name.label!r} is the label of {taken[label]}; labels are unique in a run",
            )
