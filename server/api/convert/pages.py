"""What every list answer shares: where its page stands, and the counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from clusters.v1 import list_pb2

from server.api.limits import Window

T = TypeVar("T")


def pagination_to_pb(
    window: Window, *, n_rows: int, last_id: str, has_next: bool, total: int | None
) -> list_pb2.Pagination:
    """Say where a page stands.

    Parameters
    ----------
    n_rows : int
        Rows on this page.
    last_id : str
        Id of its last row; the cursor goes on after it.
    total : int or None
        All rows that match; None when the caller did not ask.
    """
    return list_pb2.Pagination(
        total=total,
        page=window.page,
        page_size=window.limit,
        total_pages=None if total is None else -(-total // window.limit),
        next_cursor=window.cursor_after(n_rows, last_id) if has_next else None,
        has_next=has_next,
    )


def stats_to_pb(total: int, by_status: Mapping[str, int]) -> list_pb2.ListStats:
    """Give the counts over all that matches, by state; states without a row are left out."""
    return list_pb2.ListStats(
        total=total, by_status={word: count for word, count in by_status.items() if count}
    )


def slice_of(window: Window, rows: Sequence[T]) -> tuple[Sequence[T], bool]:
    """Cut a window out of rows that are all at hand, and say whether more follow."""
    end = window.offset + window.limit
    return rows[window.offset : end], end < len(rows)
