"""Attributes that no document has: found before a run by them is queued."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_client import AsyncQdrantClient, models

from server.errors import InvalidRequestError, Violation
from server.export.paths import qdrant_spellings
from server.jobs.definition import ClusterDefinition
from server.qdrant.client import qdrant_errors
from server.qdrant.errors import QdrantRefusedError
from server.requests import shorten


async def require_attributes(
    client: AsyncQdrantClient, qdrant_names: Sequence[str], definition: ClusterDefinition
) -> None:
    """Refuse attributes that are in no document of any of the collections.

    Empty collections are let pass: they may be filled until the run starts. So are paths that
    Qdrant cannot look for; the run tells of those.

    Raises
    ------
    InvalidRequestError
        Naming each of them.
    """
    config = definition.attribute_config
    if config is None or definition.cluster_type != "attribute":
        return
    if not await _any(client, qdrant_names, None):
        return
    violations = [
        Violation(
            f"attribute_config.attributes[{position}]",
            f"no document has a value of {shorten(path)}; check its spelling",
        )
        for position, path in enumerate(config.attributes)
        if (spellings := qdrant_spellings(path)) is not None
        and not await _any(client, qdrant_names, spellings)
    ]
    if violations:
        raise InvalidRequestError(violations)


async def _any(
    client: AsyncQdrantClient, qdrant_names: Sequence[str], spellings: Sequence[str] | None
) -> bool:
    """Look for one document, in any collection, that has a value under one of the spellings."""
    has_value: list[models.Condition] = [
        models.Filter(
            must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=spelling))]
        )
        for spelling in spellings or ()
    ]
    for name in qdrant_names:
        try:
            with qdrant_errors(name):
                found, _ = await client.scroll(
                    name,
                    models.Filter(should=has_value) if has_value else None,
                    limit=1,
                    with_payload=False,
                )
        except QdrantRefusedError:  # Strict servers look for indexed fields only.
            return True
        if found:
            return True
    return False
