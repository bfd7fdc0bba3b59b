"""The part of ClusterService that reads, exports and removes results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import grpc
from clusters.v1 import (
    artifact_pb2,
    cluster_requests_pb2,
    cluster_service_pb2_grpc,
    enrichment_pb2,
    execution_pb2,
    group_pb2,
)

from server.api.auth import current_caller
from server.api.convert.artifacts import exported_to_pb, faults_of_format, format_of
from server.api.convert.enrichment import enriched_to_pb
from server.api.convert.executions import execution_to_pb
from server.api.convert.groups import broken_off, group_to_pb, member_to_pb, names_of
from server.api.convert.maps import (
    HTML,
    faults_of_map,
    is_picture,
    map_to_pb,
    max_points_of,
    n_dims_of,
    picture_order_of,
    picture_to_pb,
)
from server.api.convert.pages import pagination_to_pb, slice_of
from server.api.convert.values import json_of, required
from server.api.limits import MemberWindow, member_window_of, wants_total, window_of
from server.api.rest.errors import is_from_gateway
from server.errors import NotFoundError
from server.jobs.clusters import Clusters
from server.jobs.enriching import parse_enrichment
from server.jobs.findings import Member
from server.jobs.model import ClusterRecord, RunRecord
from server.jobs.results import Results
from server.results.groups import Group
from server.views.map import map_page
from server.views.png import map_png

Context = grpc.aio.ServicerContext[Any, Any]


class ResultCalls(cluster_service_pb2_grpc.ClusterServiceServicer):
    """What runs found and left behind; the calls about definitions are in `service.py`."""

    def __init__(self, clusters: Clusters, results: Results) -> None:
        self._clusters = clusters
        self._findings = results.findings
        self._maps = results.maps
        self._pictures = results.pictures
        self._removal = results.removal
        self._renames = results.renames
        self._exports = results.exports
        self._enrichments = results.enrichments

    async def GetLatestExecution(
        self, request: execution_pb2.GetLatestExecutionRequest, context: Context
    ) -> execution_pb2.Execution:
        """Give the newest run, with its groups."""
        required(request, "cluster_id")
        record, run = await self._clusters.run(current_caller(), request.cluster_id)
        return await self._with_centroids(record, run, vectors=request.include_vectors)

    async def GetExecution(
        self, request: execution_pb2.GetExecutionRequest, context: Context
    ) -> execution_pb2.Execution:
        """Give one run, with its groups."""
        required(request, "cluster_id", "run_id")
        record, run = await self._clusters.run(current_caller(), request.cluster_id, request.run_id)
        return await self._with_centroids(record, run, vectors=request.include_vectors)

    async def _with_centroids(
        self, record: ClusterRecord, run: RunRecord, *, vectors: bool
    ) -> execution_pb2.Execution:
        """Give a run with its groups; without them where it has none to show (any more)."""
        groups: list[Group] = []
        figures: dict[str, Any] = {}
        if run.status == "completed" and not run.is_skipped:
            # The artifacts of old runs are retired; the run's record outlives them.
            with suppress(NotFoundError):
                _, _, groups = await self._findings.groups(
                    current_caller(), record.cluster_id, run.run_id, vectors=vectors
                )
                folder = self._findings.folder(record, run)
                figures = await asyncio.to_thread(folder.read_figures)
        centroids = [group_to_pb(group, with_vector=vectors) for group in groups]
        return execution_to_pb(record, run, centroids, figures)

    async def ListGroups(
        self, request: group_pb2.ListGroupsRequest, context: Context
    ) -> group_pb2.ListGroupsResponse:
        """Give a page of a run's groups, the largest first."""
        required(request, "cluster_id")
        window = window_of(
            request, query={"cluster_id": request.cluster_id, "run_id": request.run_id}
        )
        _, run, groups = await self._findings.groups(
            current_caller(), request.cluster_id, request.run_id or None
        )
        found = [group for group in groups if _holds(group, request.search.casefold())]
        rows, has_next = slice_of(window, found)
        total = len(found) if wants_total(request) else None
        return group_pb2.ListGroupsResponse(
            groups=[group_to_pb(group) for group in rows],
            pagination=pagination_to_pb(
                window,
                n_rows=len(rows),
                last_id=rows[-1].cluster_id if rows else "",
                has_next=has_next,
                total=total,
            ),
            total_count=total or 0,
            run_id=run.run_id,
        )

    async def ListMembers(
        self, request: group_pb2.ListMembersRequest, context: Context
    ) -> AsyncIterator[group_pb2.Member]:
        """Send the members of one group, nearest to the centroid first."""
        required(request, "cluster_id", "group_id")
        window = member_window_of(request)
        # A search is made here, over every member: the place in the group is known to the
        # artifacts, the place among those found is not.
        searching = bool(request.search)
        members = self._findings.members(
            current_caller(),
            request.cluster_id,
            request.group_id,
            request.run_id or None,
            offset=window.after_rank if searching else window.after_rank + window.offset,
            limit=None if searching else window.limit,
            with_payload=request.include_payload,
        )
        is_under_way = False
        try:
            async with aclosing(members):
                async for member in _searched(members, request.search, window):
                    yield member_to_pb(member)
                    is_under_way = True
        except Exception as error:
            if is_under_way and is_from_gateway(context.invocation_metadata() or ()):
                yield broken_off(error)
            raise

    async def DeleteCluster(
        self, request: cluster_requests_pb2.DeleteClusterRequest, context: Context
    ) -> cluster_requests_pb2.DeleteClusterResponse:
        """Remove a cluster, with its outputs and artifacts unless told otherwise."""
        required(request, "cluster_id")
        cascade = request.cascade_output_collections or not request.HasField(
            "cascade_output_collections"
        )
        removed = await self._removal.delete(current_caller(), request.cluster_id, cascade=cascade)
        return cluster_requests_pb2.DeleteClusterResponse(
            cluster_id=removed.cluster_id,
            deleted_output_collection_ids=removed.output_collection_ids,
            deleted_run_ids=removed.run_ids,
            artifacts_deleted=removed.artifact_folders > 0,
            canceled_run_id=removed.canceled_run_id,
        )

    async def PatchExecutionLabels(
        self, request: group_pb2.PatchExecutionLabelsRequest, context: Context
    ) -> group_pb2.PatchExecutionLabelsResponse:
        """Rename groups of one run, in its output collections too."""
        required(request, "cluster_id", "run_id", "labels")
        cluster, run, groups = await self._renames.rename(
            current_caller(), request.cluster_id, request.run_id, names_of(request)
        )
        return group_pb2.PatchExecutionLabelsResponse(
            cluster_id=cluster.cluster_id,
            run_id=run.run_id,
            groups=[group_to_pb(group) for group in groups],
        )

    async def ExportExecution(
        self, request: artifact_pb2.ExportExecutionRequest, context: Context
    ) -> artifact_pb2.ExportExecutionResponse:
        """Say where a run's artifacts are, converted where another format was asked for."""
        required(request, "cluster_id", "run_id", others=faults_of_format(request))
        exported = await self._exports.export(
            current_caller(), request.cluster_id, request.run_id, format_of(request)
        )
        return exported_to_pb(exported)

    async def EnrichCollection(
        self, request: enrichment_pb2.EnrichCollectionRequest, context: Context
    ) -> enrichment_pb2.EnrichCollectionResponse:
        """Write a finished run's membership into a collection."""
        wanted = parse_enrichment(json_of(request))
        enriched = await self._enrichments.enrich(
            current_caller(), wanted, context.time_remaining()
        )
        return enriched_to_pb(enriched)

    async def GetVisualization(
        self, request: artifact_pb2.GetVisualizationRequest, context: Context
    ) -> artifact_pb2.GetVisualizationResponse:
        """Give the map of a run, made now where it was never asked for."""
        required(request, "cluster_id", others=faults_of_map(request))
        if is_picture(request):
            return await self._picture(request, context)
        shown = await self._maps.show(
            current_caller(),
            request.cluster_id,
            request.run_id or None,
            max_points=max_points_of(request),
            n_dims=n_dims_of(request),
            within_s=context.time_remaining(),
        )
        return map_to_pb(shown)

    async def _picture(
        self, request: artifact_pb2.GetVisualizationRequest, context: Context
    ) -> artifact_pb2.GetVisualizationResponse:
        shown, data = await self._pictures.data(
            current_caller(),
            request.cluster_id,
            request.run_id or None,
            picture_order_of(request),
            within_s=context.time_remaining(),
        )
        if request.format == HTML:
            return picture_to_pb(shown, html=await asyncio.to_thread(map_page, data))
        return picture_to_pb(shown, png=await asyncio.to_thread(map_png, data))


async def _searched(
    members: AsyncIterator[Member], search: str, window: MemberWindow
) -> AsyncIterator[Member]:
    """Give the members whose document id holds a text, from the window's place on."""
    if not search:
        async for member in members:
            yield member
        return
    text, found = search.casefold(), 0
    async for member in members:
        if text not in member.row["source_document_id"].casefold():
            continue
        found += 1
        if found > window.offset:
            yield member
        if window.limit is not None and found >= window.offset + window.limit:
            return


def _holds(group: Group, text: str) -> bool:
    parts = (group.cluster_id, group.label, group.summary or "", *group.keywords)
    return any(text in part.casefold() for part in parts)
