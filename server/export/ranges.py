"""A collection cut into ranges of ids, so that several scrolls read it at once.

Qdrant lists points by id, numbers first and then UUIDs, and a scroll may start at any id. A
random sample of the ids says where to cut so that the ranges are about alike, whatever the
ids are. Where the cuts lie depends on the sample; the order of the points does not: one range
after the other is the collection in Qdrant's own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final
from uuid import UUID

from qdrant_client import QdrantClient, models
from qdrant_client import grpc as pb

from server.export.scroll import EVERYTHING, IdRange, ScrollQuery
from server.qdrant.client import qdrant_errors
from server.qdrant.errors import QdrantRefusedError

POINTS_PER_RANGE: Final = 25_000
"""A scroll of fewer points is over before another one helps."""

_SAMPLED_PER_RANGE: Final = 64


def id_ranges(client: QdrantClient, query: ScrollQuery, max_ranges: int) -> tuple[IdRange, ...]:
    """Cut what a query reads into ranges of about equal numbers of points.

    Parameters
    ----------
    max_ranges : int
        At most so many; fewer where there are few points, and one where Qdrant gives no
        random samples.

    Raises
    ------
    QdrantUnavailableError, CollectionNotFoundError
        As Qdrant says.
    """
    if max_ranges < 2:
        return (EVERYTHING,)
    try:
        with qdrant_errors(query.qdrant_name):
            counted = client.count(query.qdrant_name, count_filter=query.filter, exact=False)
            n_ranges = min(max_ranges, counted.count // POINTS_PER_RANGE)
            if n_ranges < 2:
                return (EVERYTHING,)
            sample = client.query_points(
                query.qdrant_name,
                query=models.SampleQuery(sample=models.Sample.RANDOM),
                query_filter=query.filter,
                limit=n_ranges * _SAMPLED_PER_RANGE,
                with_payload=False,
            ).points
    except QdrantRefusedError:
        return (EVERYTHING,)  # Servers before 1.11 have no samples; one scroll reads as well.
    return cut([point.id for point in sample], n_ranges)


def cut(ids: Sequence[int | str | UUID], n_ranges: int) -> tuple[IdRange, ...]:
    """Cut all ids there can be where a sample of them falls into equal parts."""
    ordered = sorted({_key(point) for point in ids})
    cuts = [ordered[len(ordered) * part // n_ranges] for part in range(1, n_ranges) if ordered]
    bounds = [None, *(_point_id(key) for key in dict.fromkeys(cuts)), None]
    return tuple(IdRange(start, stop) for start, stop in pairwise(bounds))


def _key(point: int | str | UUID) -> tuple[bool, int, str]:
    return (False, point, "") if isinstance(point, int) else (True, 0, str(point).lower())


def _point_id(key: tuple[bool, int, str]) -> bytes:
    is_uuid, number, text = key
    found = pb.PointId(uuid=text) if is_uuid else pb.PointId(num=number)
    return found.SerializeToString()
