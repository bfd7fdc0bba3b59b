"""What an enrichment did, out."""

from __future__ import annotations

from clusters.v1 import enrichment_pb2

from server.jobs.enriching import Enriched


def enriched_to_pb(enriched: Enriched) -> enrichment_pb2.EnrichCollectionResponse:
    """Give what an enrichment did."""
    return enrichment_pb2.EnrichCollectionResponse(
        cluster_id=enriched.cluster.cluster_id,
        run_id=enriched.run.run_id,
        collection_id=enriched.collection_id,
        processed=enriched.report.processed,
        enriched=enriched.report.enriched,
        failed=enriched.report.failed,
        batches=enriched.report.batches,
        warnings=enriched.warnings,
    )
