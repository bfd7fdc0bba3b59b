"""What a definition must pass before a run of it is queued: everything known by then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import AsyncQdrantClient

from server.errors import InvalidRequestError, QuotaError, ServerStoppingError
from server.jobs.attributes import require_attributes
from server.jobs.definition import ClusterDefinition, parse_definition
from server.jobs.model import ParentGroup
from server.jobs.parents import Parents
from server.jobs.sources import plan_sources
from server.labeling.checks import check_provider
from server.labeling.settings import LabelingSettings
from server.stores.base import JobStore
from server.tenancy import Caller

QUOTA_RETRY_S = 10.0


@dataclass(frozen=True)
class Limits:
    """How much one namespace may ask for.

    Attributes
    ----------
    active_runs : int
        Runs pending or processing at once.
    """

    active_runs: int = 100


class Admission:
    """Checks definitions against collections, parents, providers and limits."""

    def __init__(
        self,
        store: JobStore,
        qdrant: AsyncQdrantClient,
        parents: Parents,
        labeling: LabelingSettings,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._qdrant = qdrant
        self.parents = parents
        self._labeling = labeling
        self._limits = limits or Limits()
        self._is_closed = False

    def close(self) -> None:
        """Take no more runs: the server is stopping."""
        self._is_closed = True

    def definition(self, raw: dict[str, Any]) -> ClusterDefinition:
        """Check what the request alone tells, and that its language model can be asked.

        Raises
        ------
        InvalidRequestError
            With every fault.
        """
        definition = parse_definition(raw)
        if definition.llm_labeling is not None:
            violations = check_provider(definition.llm_labeling, self._labeling)
            if violations:
                raise InvalidRequestError(violations)
        return definition

    async def sources(self, caller: Caller, definition: ClusterDefinition) -> ParentGroup | None:
        """Check what the collections and the parent tell; gives the parent's group, if any.

        Raises
        ------
        InvalidRequestError
            With every fault.
        QdrantUnavailableError
            If Qdrant does not answer.
        """
        await plan_sources(self._qdrant, caller.qdrant_name, definition)
        names = [caller.qdrant_name(collection_id) for collection_id in definition.collection_ids]
        await require_attributes(self._qdrant, names, definition)
        return await self.parents.find(caller.namespace_id, definition)

    async def quota(self, caller: Caller) -> None:
        """Raise `QuotaError` if the namespace has as many active runs as it may.

        And `ServerStoppingError` if none are taken any more.
        """
        if self._is_closed:
            raise ServerStoppingError("this server is stopping and takes no new runs; call again")
        active = await self._store.count_active_runs(caller.namespace_id)
        if active >= self._limits.active_runs:
            raise QuotaError(
                f"{active} runs of this namespace are pending or processing; "
                f"{self._limits.active_runs} are allowed at once",
                retry_after_s=QUOTA_RETRY_S,
                active_runs=active,
            )
