"""Qdrant's Points service on Edge shards."""

from __future__ import annotations

import time
from typing import Any

import grpc
import qdrant_edge as edge
from qdrant_client import grpc as pb

from server.qdrant.embedded import updates
from server.qdrant.embedded.checks import VectorLayout, no_shard_key
from server.qdrant.embedded.convert import (
    payload_selector,
    to_id,
    to_retrieved,
    to_scored,
    vector_selector,
)
from server.qdrant.embedded.errors import BadRequestError
from server.qdrant.embedded.filters import edge_id, optional_filter
from server.qdrant.embedded.indexes import index_schema
from server.qdrant.embedded.search import order_by, query_request, search_request
from server.qdrant.embedded.storage import Storage

DEFAULT_SCROLL_LIMIT = 10
DEFAULT_FACET_LIMIT = 10

_COMPLETED = pb.UpdateResult(operation_id=0, status=pb.UpdateStatus.Completed)


class PointsService(pb.PointsServicer):
    """Reads and writes of points. Calls that are missing here answer UNIMPLEMENTED."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # Writes: every check first, then Edge, so that a refused request changes nothing.

    def _write(self, request: Any, planner: updates.Planner) -> pb.PointsOperationResponse:
        started = time.monotonic()
        no_shard_key(request)
        collection = self._storage.find(request.collection_name)
        planned = planner(request, VectorLayout(collection.config))
        with collection.write_lock, collection.shard(is_write=True) as shard:
            for operation in planned:
                shard.update(operation)
        return _done(started)

    def Upsert(
        self, request: pb.UpsertPoints, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.upsert)

    def Delete(
        self, request: pb.DeletePoints, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.delete)

    def UpdateVectors(
        self, request: pb.UpdatePointVectors, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.update_vectors)

    def DeleteVectors(
        self, request: pb.DeletePointVectors, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.delete_vectors)

    def SetPayload(
        self, request: pb.SetPayloadPoints, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.set_payload)

    def OverwritePayload(
        self, request: pb.SetPayloadPoints, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.overwrite_payload)

    def DeletePayload(
        self, request: pb.DeletePayloadPoints, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.delete_payload)

    def ClearPayload(
        self, request: pb.ClearPayloadPoints, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        return self._write(request, updates.clear_payload)

    def UpdateBatch(
        self, request: pb.UpdateBatchPoints, context: grpc.ServicerContext
    ) -> pb.UpdateBatchResponse:
        started = time.monotonic()
        collection = self._storage.find(request.collection_name)
        layout = VectorLayout(collection.config)
        planned = [updates.batch(operation, layout) for operation in request.operations]
        with collection.write_lock, collection.shard(is_write=True) as shard:
            for operations in planned:
                for operation in operations:
                    shard.update(operation)
        return pb.UpdateBatchResponse(
            result=[_COMPLETED] * len(planned), time=time.monotonic() - started
        )

    def CreateFieldIndex(
        self, request: pb.CreateFieldIndexCollection, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        started = time.monotonic()
        collection = self._storage.find(request.collection_name)
        operation = edge.UpdateOperation.create_field_index(
            request.field_name, index_schema(request)
        )
        with collection.write_lock, collection.shard(is_write=True) as shard:
            shard.update(operation)
        return _done(started)

    def DeleteFieldIndex(
        self, request: pb.DeleteFieldIndexCollection, context: grpc.ServicerContext
    ) -> pb.PointsOperationResponse:
        started = time.monotonic()
        collection = self._storage.find(request.collection_name)
        operation = edge.UpdateOperation.delete_field_index(request.field_name)
        with collection.write_lock, collection.shard(is_write=True) as shard:
            shard.update(operation)
        return _done(started)

    # Reads.

    def Get(self, request: pb.GetPoints, context: grpc.ServicerContext) -> pb.GetResponse:
        started = time.monotonic()
        no_shard_key(request)
        ids = [edge_id(point_id) for point_id in request.ids]
        with self._storage.find(request.collection_name).shard() as shard:
            records = shard.retrieve(
                ids, payload_selector(request, default=True), vector_selector(request)
            )
        return pb.GetResponse(result=to_retrieved(records), time=time.monotonic() - started)

    def Scroll(self, request: pb.ScrollPoints, context: grpc.ServicerContext) -> pb.ScrollResponse:
        started = time.monotonic()
        no_shard_key(request)
        limit = request.limit if request.HasField("limit") else DEFAULT_SCROLL_LIMIT
        if limit < 1:
            raise BadRequestError("Wrong input: limit must be 1 or more")
        is_ordered = request.HasField("order_by")
        if is_ordered and request.HasField("offset"):
            raise BadRequestError("Wrong input: Cannot use an `offset` when using `order_by`")
        query = edge.ScrollRequest(
            offset=edge_id(request.offset) if request.HasField("offset") else None,
            limit=limit,
            filter=optional_filter(request),
            with_payload=payload_selector(request, default=True),
            with_vector=vector_selector(request),
            order_by=order_by(request.order_by) if is_ordered else None,
        )
        with self._storage.find(request.collection_name).shard() as shard:
            records, following = shard.scroll(query)
        return pb.ScrollResponse(
            result=to_retrieved(records),
            next_page_offset=None if following is None else to_id(following),
            time=time.monotonic() - started,
        )

    def Count(self, request: pb.CountPoints, context: grpc.ServicerContext) -> pb.CountResponse:
        started = time.monotonic()
        no_shard_key(request)
        query = edge.CountRequest(
            exact=request.exact if request.HasField("exact") else True,
            filter=optional_filter(request),
        )
        with self._storage.find(request.collection_name).shard() as shard:
            count = shard.count(query)
        return pb.CountResponse(result=pb.CountResult(count=count), time=time.monotonic() - started)

    def Facet(self, request: pb.FacetCounts, context: grpc.ServicerContext) -> pb.FacetResponse:
        started = time.monotonic()
        no_shard_key(request)
        query = edge.FacetRequest(
            key=request.key,
            limit=request.limit if request.HasField("limit") else DEFAULT_FACET_LIMIT,
            exact=request.exact,
            filter=optional_filter(request),
        )
        with self._storage.find(request.collection_name).shard() as shard:
            hits = shard.facet(query).hits
        return pb.FacetResponse(
            hits=[pb.FacetHit(value=_facet_value(hit.value), count=hit.count) for hit in hits],
            time=time.monotonic() - started,
        )

    def Search(self, request: pb.SearchPoints, context: grpc.ServicerContext) -> pb.SearchResponse:
        started = time.monotonic()
        no_shard_key(request)
        collection = self._storage.find(request.collection_name)
        query = search_request(request, VectorLayout(collection.config))
        with collection.shard() as shard:
            found = shard.query(query)
        return pb.SearchResponse(result=to_scored(found), time=time.monotonic() - started)

    def Query(self, request: pb.QueryPoints, context: grpc.ServicerContext) -> pb.QueryResponse:
        started = time.monotonic()
        return pb.QueryResponse(result=self._query(request), time=time.monotonic() - started)

    def QueryBatch(
        self, request: pb.QueryBatchPoints, context: grpc.ServicerContext
    ) -> pb.QueryBatchResponse:
        started = time.monotonic()
        results = []
        for query in request.query_points:
            query.collection_name = request.collection_name
            results.append(pb.BatchResult(result=self._query(query)))
        return pb.QueryBatchResponse(result=results, time=time.monotonic() - started)

    def _query(self, request: pb.QueryPoints) -> list[pb.ScoredPoint]:
        no_shard_key(request)
        collection = self._storage.find(request.collection_name)
        layout = VectorLayout(collection.config)
        with collection.shard() as shard:
            return to_scored(shard.query(query_request(request, layout, shard)))


def _done(started_s: float) -> pb.PointsOperationResponse:
    return pb.PointsOperationResponse(result=_COMPLETED, time=time.monotonic() - started_s)


def _facet_value(value: str | int | bool) -> pb.FacetValue:
    if isinstance(value, bool):
        return pb.FacetValue(bool_value=value)
    if isinstance(value, int):
        return pb.FacetValue(integer_value=value)
    return pb.FacetValue(string_value=str(value))
