"""What a group is called when nothing better is known."""

from __future__ import annotations


def fallback_label(position: int) -> str:
    """Name a group by its position: ``Cluster 0`` is the largest."""
    return f"Cluster {position}"
