"""Groups inside groups, as rows of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

N_KEYWORDS = 5


class HasParent(Protocol):
    """What is laid out: a group, by its id, that may have one above it."""

    @property
    def cluster_id(self) -> str:
        """Id of the group."""

    @property
    def parent_cluster_id(self) -> str | None:
        """Id of the group above; empty or None at the top."""


GroupLike = TypeVar("GroupLike", bound=HasParent)


def as_tree(groups: Iterable[GroupLike]) -> Iterator[tuple[int, GroupLike]]:
    """Give the groups with children below their parents, and each one's depth, 0 at the top.

    Siblings keep their order. A group whose parent is not among them stands at the top: a
    page may end between the two.
    """
    listed = list(groups)
    known = {group.cluster_id for group in listed}
    children: dict[str, list[GroupLike]] = defaultdict(list)
    for group in listed:
        parent = group.parent_cluster_id or ""
        children[parent if parent in known else ""].append(group)
    waiting = [(0, group) for group in reversed(children[""])]
    while waiting:
        depth, group = waiting.pop()
        yield depth, group
        waiting += [(depth + 1, child) for child in reversed(children[group.cluster_id])]


def indented(cluster_id: str, depth: int) -> str:
    """Give a group's id with two spaces for each group above it."""
    return "  " * depth + cluster_id


def keywords_line(keywords: Iterable[str]) -> str:
    """Give the first few keywords."""
    return ", ".join(list(keywords)[:N_KEYWORDS])
