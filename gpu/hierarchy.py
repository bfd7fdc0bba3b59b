"""Groups inside groups: each group is clustered again, level by level.

A row belongs to the deepest group that took it. Where the second clustering of a group leaves
rows out as noise, they stay **directly in that group**, beside its subgroups, as files lie beside
folders: they were grouped once, and nothing says which subgroup would be right for them. So every
row that was grouped at all stays grouped, a group's size counts all rows below it, and it equals
its direct rows plus its children's sizes. Leaves are the groups without children.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress, renumber_by_size
from gpu.errors import TooFewPointsError
from gpu.groups import members_of
from gpu.params import NOISE
from gpu.relations import RECLUSTERING, Relation

Array = Any

NO_PARENT = -1

Refit = Callable[[Array], Array]
"""Takes the vectors of one group, of shape (n_members, n_dims), and gives their labels, of shape
(n_members,): `NOISE` or any group numbers."""


@dataclass(frozen=True)
class Hierarchy:
    """A forest of groups. Groups are listed level by level, parents before children.

    Attributes
    ----------
    ids : list of str
        ``cl_0``; a child's id is its parent's with ``_sub_`` and its rank by size, from 0.
    parents : array of shape (n_groups,), int32
        Position of each group's parent, `NO_PARENT` on the first level.
    depths : array of shape (n_groups,), int32
        1 on the first level.
    sizes : array of shape (n_groups,), int64
        Rows in the group or in any group below it.
    direct_sizes : array of shape (n_groups,), int64
        Rows in none of its children. A leaf's size.
    labels : array of shape (n_points,), int32
        Position of the deepest group of each row; `NOISE` for none.
    notes : list of str
        Why groups were not split, in plain words.
    """

    ids: list[str]
    parents: NDArray[np.int32]
    depths: NDArray[np.int32]
    sizes: NDArray[np.int64]
    direct_sizes: NDArray[np.int64]
    labels: NDArray[np.int32]
    notes: list[str]

    @property
    def leaves(self) -> NDArray[np.int64]:
        """Give the positions of the groups without children; ``num_clusters`` counts these."""
        inner = np.zeros(len(self.ids), dtype=bool)
        inner[self.parents[self.parents != NO_PARENT]] = True
        return np.flatnonzero(~inner)

    @property
    def is_nested(self) -> bool:
        """Tell whether any group has a parent."""
        return bool((self.parents != NO_PARENT).any())

    def children(self, group: int) -> NDArray[np.int64]:
        """Give the positions of a group's children, largest first."""
        return np.flatnonzero(self.parents == group)

    def paths(self) -> NDArray[np.int32]:
        """Give each row's groups from the first level down.

        Returns
        -------
        array of shape (n_points, depth of the deepest group), int32
            Positions of groups; `NOISE` below the deepest one of a row.
        """
        deepest = int(self.depths.max(initial=0))
        # One extra row at the end, which label NOISE (-1) picks.
        lines = np.full((len(self.ids) + 1, deepest), NOISE, dtype=np.int32)
        for group, (parent, depth) in enumerate(zip(self.parents, self.depths, strict=True)):
            if parent != NO_PARENT:
                lines[group] = lines[parent]
            lines[group, depth - 1] = group
        return lines[self.labels]

    def labels_at(self, depth: int) -> NDArray[np.int32]:
        """Give each row's group down to a level, as positions; `NOISE` for none.

        A row that lies directly in a group above that level keeps that group.
        """
        at = np.arange(len(self.ids) + 1, dtype=np.int32)
        at[-1] = NOISE
        for group in range(len(self.ids)):
            if self.depths[group] > depth:
                at[group] = at[self.parents[group]]
        return at[self.labels]

    def relations(self) -> list[Relation]:
        """Give a row for each parent and child, for ``hierarchy_relationships``."""
        return [
            Relation(
                parent_cluster_id=self.ids[parent],
                child_cluster_id=self.ids[child],
                overlap=1.0,
                method=RECLUSTERING,
            )
            for child, parent in enumerate(self.parents)
            if parent != NO_PARENT
        ]


@dataclass(frozen=True)
class _Pending:
    group: int
    rows: NDArray[np.int64]


def subdivide(
    vectors: Array,
    labels: Array,
    *,
    fit: Refit,
    max_depth: int = 3,
    min_size: int = 20,
    progress: Progress | None = None,
) -> Hierarchy:
    """Cluster each group again, and the groups found in it, down to a depth.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy. Not modified.
    labels : array of shape (n_points,), int
        First level: any group numbers, `NOISE` for none.
    fit : callable
        Clusters the rows of one group. A group stays whole where it finds fewer than two groups,
        or raises `TooFewPointsError`.
    max_depth : int
        Most levels, the first included.
    min_size : int
        Groups of fewer rows stay whole.
    progress : callable or None
        Told the share that is done, 0 to 1.

    Returns
    -------
    Hierarchy
        On each level largest first, ties by first row: the same labels give the same ids.
    """
    if max_depth < 1 or min_size < 2:
        raise ValueError(f"max_depth {max_depth} must be at least 1, min_size {min_size} 2")
    forest = _Forest(len(labels))
    pending = deque(forest.add(NO_PARENT, np.arange(len(labels)), np.asarray(labels)))
    n_small = n_whole = 0
    meter = _Meter(progress, int((np.asarray(labels) != NOISE).sum()), max_depth)
    while pending:
        group, rows = pending[0].group, pending.popleft().rows
        depth = forest.depths[group]
        found: Array | None = None
        if depth < max_depth:
            found = _split(vectors, rows, fit) if len(rows) >= min_size else None
            n_small += len(rows) < min_size
            n_whole += found is None and len(rows) >= min_size
        if found is not None:
            pending.extend(forest.add(group, rows, found))
        meter.looked_at(len(rows), 1 if found is not None else max_depth - depth + 1)
    if progress is not None:
        progress(1.0)  # Noise of a split has no further level and was not counted.
    notes = []
    if n_small:
        notes.append(f"{n_small:,} groups of fewer than {min_size:,} members were not split")
    if n_whole:
        notes.append(f"{n_whole:,} groups did not fall into smaller ones")
    return forest.grown(notes)


def _split(vectors: Array, rows: NDArray[np.int64], fit: Refit) -> Array | None:
    try:
        found = np.asarray(fit(vectors[rows]))
    except TooFewPointsError:
        return None
    if found.shape != (len(rows),):
        raise ValueError(f"{len(rows)} rows were to be clustered, got labels {found.shape}")
    return found if len(np.unique(found[found != NOISE])) > 1 else None


class _Forest:
    """Groups as they are found."""

    def __init__(self, n_points: int) -> None:
        self.depths: list[int] = []
        self._ids: list[str] = []
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._labels = np.full(n_points, NOISE, dtype=np.int32)

    def add(self, parent: int, rows: NDArray[np.int64], labels: Array) -> list[_Pending]:
        """Add the groups that `labels` make of a parent's rows, largest first."""
        ordered, _ = renumber_by_size(labels)
        members = members_of(ordered, int(ordered.max(initial=NOISE)) + 1)
        added = []
        for rank, (start, stop) in enumerate(
            zip(members.starts[:-1], members.starts[1:], strict=True)
        ):
            group, own = len(self._ids), rows[members.rows[start:stop]]
            top = parent == NO_PARENT
            self._ids.append(f"cl_{rank}" if top else f"{self._ids[parent]}_sub_{rank}")
            self._parents.append(parent)
            self._sizes.append(len(own))
            self.depths.append(1 if top else self.depths[parent] + 1)
            self._labels[own] = group
            added.append(_Pending(group, own))
        return added

    def grown(self, notes: list[str]) -> Hierarchy:
        grouped = self._labels[self._labels != NOISE]
        return Hierarchy(
            ids=self._ids,
            parents=np.array(self._parents, dtype=np.int32),
            depths=np.array(self.depths, dtype=np.int32),
            sizes=np.array(self._sizes, dtype=np.int64),
            direct_sizes=np.bincount(grouped, minlength=len(self._ids)),
            labels=self._labels,
            notes=notes,
        )


class _Meter:
    """Counts rows times levels: a group that stays whole has done its rows for all levels."""

    def __init__(self, progress: Progress | None, n_rows: int, max_depth: int) -> None:
        self._progress, self._total, self._done = progress, n_rows * max_depth, 0

    def looked_at(self, n_rows: int, n_levels: int) -> None:
        self._done += n_rows * n_levels
        if self._progress is not None:
            self._progress(self._done / self._total)
