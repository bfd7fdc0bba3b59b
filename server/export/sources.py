"""A source collection of an export: what Qdrant is asked for, what is checked on its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qdrant_client import QdrantClient, models

from server.errors import ShoalError
from server.export.errors import SourceMissingError, UnsupportedVectorError
from server.export.evaluate import compile_filter
from server.export.filters import Filter
from server.export.paths import top_level_selectors
from server.export.pushdown import Pushdown, Variants, push_down
from server.export.ranges import id_ranges
from server.export.rows import SOURCE_BUCKET_FIELD, WHOLE_PAYLOAD
from server.export.scroll import IdRange, ScrollQuery
from server.qdrant.client import qdrant_errors
from server.qdrant.schema import CollectionSchema, describe

_MAX_SPELLINGS: Final = 10_000
_PAGE_BYTES: Final = 8 << 20


@dataclass(frozen=True)
class ExportSource:
    """A collection to read.

    Attributes
    ----------
    collection_id : str
        The caller's name for it, written into the rows.
    qdrant_name : str
        Qdrant's name for it.
    vector_names : tuple of str
        Its Qdrant vectors, one per vector column; ``""`` is the unnamed one. Empty when no
        vectors are needed. All sources of a request name equally many.
    """

    collection_id: str
    qdrant_name: str
    vector_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """One source with what Qdrant is asked for, in which ranges, and what is checked after."""

    source: ExportSource
    query: ScrollQuery
    ranges: tuple[IdRange, ...]
    passes: Callable[[Mapping[str, Any]], bool] | None


def plan_source(
    client: QdrantClient,
    source: ExportSource,
    *,
    filter: Filter | None,
    payload_fields: Sequence[str],
    page_size: int,
    max_ranges: int,
) -> Plan:
    """Look at a collection and decide what is asked of Qdrant and what is checked after.

    Raises
    ------
    SourceMissingError
        If the collection has no such vector.
    UnsupportedVectorError
        If the vector is sparse.
    CollectionNotFoundError, QdrantUnavailableError
        As Qdrant says.
    """
    schema = describe(client, source.qdrant_name)
    _check_vectors(source, schema)
    split = Pushdown(None, None)
    if filter is not None:
        split = push_down(
            filter,
            schema.payload_indexes,
            variants=stored_spellings(client, source.qdrant_name),
        )
    needed = {*payload_fields, SOURCE_BUCKET_FIELD}
    if split.residual is not None:
        needed |= split.residual.fields()
    keys = None if WHOLE_PAYLOAD in needed else top_level_selectors(needed)
    query = ScrollQuery(
        qdrant_name=source.qdrant_name,
        vector_names=source.vector_names,
        filter=split.qdrant,
        payload_keys=None if keys is None else tuple(keys),
        page_size=_fitting_page(page_size, [schema.sizes()[n] for n in source.vector_names]),
    )
    passes = None if split.residual is None else compile_filter(split.residual)
    return Plan(source, query, id_ranges(client, query, max_ranges), passes)


def _fitting_page(page_size: int, sizes: Sequence[int]) -> int:
    """Points of a page of about 8 MiB at most; payloads are not known before they are read."""
    return max(1, min(page_size, _PAGE_BYTES // (4 * sum(sizes) or 1)))


def _check_vectors(source: ExportSource, schema: CollectionSchema) -> None:
    for name in source.vector_names:
        if name in schema.sparse_vectors:
            raise UnsupportedVectorError(
                f"vector {name!r} of collection {source.collection_id!r} is sparse; choose one "
                f"of {sorted(schema.vectors)}",
                vector=name,
            )
        if name not in schema.vectors:
            raise SourceMissingError(
                f"collection {source.collection_id!r} has no vector {name!r}, it has "
                f"{sorted(schema.vectors)}",
                collection=source.collection_id,
                vector=name,
            )


def stored_spellings(client: QdrantClient, qdrant_name: str) -> Variants:
    """How a keyword-indexed field spells a value in any case, by Qdrant's facet.

    The function that is returned answers None when the field has more distinct values than
    a facet can list, or when Qdrant has no facet for it.
    """
    cache: dict[str, Sequence[str] | None] = {}

    def all_values(key: str) -> Sequence[str] | None:
        try:
            with qdrant_errors(qdrant_name):
                answer = client.facet(qdrant_name, key=key, limit=_MAX_SPELLINGS + 1, exact=True)
        except ShoalError:
            return None  # Then the rows are checked one by one, which needs no facet.
        if len(answer.hits) > _MAX_SPELLINGS:
            return None
        return [hit.value for hit in answer.hits if isinstance(hit.value, str)]

    def variants(key: str, value: str) -> Sequence[str] | None:
        if key not in cache:
            cache[key] = all_values(key)
        known = cache[key]
        if known is None:
            return None
        folded = value.casefold()
        return [text for text in known if text.casefold() == folded]

    return variants


def total_points(client: QdrantClient, plans: Sequence[Plan]) -> int | None:
    """Points that will be read, or None when Qdrant does not say."""
    try:
        with qdrant_errors():
            return sum(_count(client, plan.query.qdrant_name, plan.query.filter) for plan in plans)
    except ShoalError:
        return None  # Only the share in the progress is lost.


def _count(client: QdrantClient, qdrant_name: str, filter: models.Filter | None) -> int:
    return int(client.count(qdrant_name, count_filter=filter, exact=True).count)
