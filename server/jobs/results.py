"""Everything that callers do with what runs found, put together."""

from __future__ import annotations

from dataclasses import dataclass

from qdrant_client import AsyncQdrantClient

from server.engine.engine import Engine
from server.jobs.clusters import Clusters
from server.jobs.enriching import Enrichments
from server.jobs.events import EventLog
from server.jobs.exporting import Exports
from server.jobs.findings import Findings
from server.jobs.maps import Maps
from server.jobs.pictures import Pictures
from server.jobs.removal import Removal
from server.jobs.renaming import Renames
from server.jobs.spec import Device
from server.qdrant.client import QdrantAddress
from server.stores.base import JobStore


@dataclass(frozen=True)
class Results:
    """Reads, maps, renames, hands out, writes into collections and removes what runs found."""

    findings: Findings
    maps: Maps
    pictures: Pictures
    removal: Removal
    renames: Renames
    exports: Exports
    enrichments: Enrichments

    @classmethod
    def of(
        cls,
        clusters: Clusters,
        store: JobStore,
        events: EventLog,
        client: AsyncQdrantClient,
        qdrant: QdrantAddress,
        artifacts_url: str,
        engine: Engine,
        device: Device,
    ) -> Results:
        """Put the parts together; `client` is connected to `qdrant`, maps are made on `device`."""
        findings = Findings(clusters, artifacts_url, client)
        maps = Maps(findings, engine, artifacts_url, device)
        return cls(
            findings=findings,
            maps=maps,
            pictures=Pictures(findings, maps),
            removal=Removal(clusters, store, events, qdrant, artifacts_url),
            renames=Renames(findings, store, qdrant),
            exports=Exports(findings),
            enrichments=Enrichments(findings, maps, qdrant),
        )
