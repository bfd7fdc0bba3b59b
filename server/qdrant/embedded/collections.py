"""Qdrant's Collections service and its health check on the embedded storage."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TypeVar

import grpc
from qdrant_client import grpc as pb

from server.qdrant.embedded import checks
from server.qdrant.embedded.errors import UnsupportedError
from server.qdrant.embedded.indexes import schema_info
from server.qdrant.embedded.shards import Collection
from server.qdrant.embedded.storage import Storage

TITLE = "qdrant edge, embedded in shoal"

# What Qdrant reports where nothing else was set. Clients insist on some of them.
_HNSW = pb.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10000)
_OPTIMIZERS = pb.OptimizersConfigDiff(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=0,
    indexing_threshold=10000,
    flush_interval_sec=5,
)
_WAL = pb.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0, wal_retain_closed=1)


class CollectionsService(pb.CollectionsServicer):
    """Collections and aliases. Calls that are missing here answer UNIMPLEMENTED."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def Get(
        self, request: pb.GetCollectionInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetCollectionInfoResponse:
        started = time.monotonic()
        info = collection_info(self._storage.find(request.collection_name))
        return pb.GetCollectionInfoResponse(result=info, time=time.monotonic() - started)

    def List(
        self, request: pb.ListCollectionsRequest, context: grpc.ServicerContext
    ) -> pb.ListCollectionsResponse:
        return pb.ListCollectionsResponse(
            collections=[pb.CollectionDescription(name=n) for n in self._storage.names()]
        )

    def Create(
        self, request: pb.CreateCollection, context: grpc.ServicerContext
    ) -> pb.CollectionOperationResponse:
        started = time.monotonic()
        checks.collection_settings(request)
        self._storage.create(request)
        return _done(started)

    def Update(
        self, request: pb.UpdateCollection, context: grpc.ServicerContext
    ) -> pb.CollectionOperationResponse:
        started = time.monotonic()
        collection = self._storage.find(request.collection_name)
        collection.reconfigure(_updated(collection.config, request))
        return _done(started)

    def Delete(
        self, request: pb.DeleteCollection, context: grpc.ServicerContext
    ) -> pb.CollectionOperationResponse:
        started = time.monotonic()
        was_there = self._storage.delete(request.collection_name)
        return pb.CollectionOperationResponse(result=was_there, time=time.monotonic() - started)

    def CollectionExists(
        self, request: pb.CollectionExistsRequest, context: grpc.ServicerContext
    ) -> pb.CollectionExistsResponse:
        exists = self._storage.exists(request.collection_name)
        return pb.CollectionExistsResponse(result=pb.CollectionExists(exists=exists))

    def UpdateAliases(
        self, request: pb.ChangeAliases, context: grpc.ServicerContext
    ) -> pb.CollectionOperationResponse:
        started = time.monotonic()
        self._storage.change_aliases(request.actions)
        return _done(started)

    def ListAliases(
        self, request: pb.ListAliasesRequest, context: grpc.ServicerContext
    ) -> pb.ListAliasesResponse:
        return _alias_list(self._storage.aliases())

    def ListCollectionAliases(
        self, request: pb.ListCollectionAliasesRequest, context: grpc.ServicerContext
    ) -> pb.ListAliasesResponse:
        name = self._storage.find(request.collection_name).name
        return _alias_list({a: c for a, c in self._storage.aliases().items() if c == name})


class HealthService(pb.QdrantServicer):
    """Says that the server answers, and what it is."""

    def HealthCheck(
        self, request: pb.HealthCheckRequest, context: grpc.ServicerContext
    ) -> pb.HealthCheckReply:
        return pb.HealthCheckReply(title=TITLE, version=version("qdrant-edge-py"))


def collection_info(collection: Collection) -> pb.CollectionInfo:
    """What Qdrant would say of the collection."""
    with collection.shard() as shard:
        info = shard.info()
    config = collection.config
    return pb.CollectionInfo(
        status=pb.CollectionStatus.Green,
        optimizer_status=pb.OptimizerStatus(ok=True),
        segments_count=info.segments_count,
        points_count=info.points_count,
        indexed_vectors_count=info.indexed_vectors_count,
        payload_schema={path: schema_info(i) for path, i in info.payload_schema.items()},
        config=pb.CollectionConfig(
            params=pb.CollectionParams(
                shard_number=1,
                replication_factor=1,
                write_consistency_factor=1,
                on_disk_payload=True,
                vectors_config=config.vectors_config,
                sparse_vectors_config=(
                    config.sparse_vectors_config
                    if config.HasField("sparse_vectors_config")
                    else None
                ),
            ),
            hnsw_config=_merged(_HNSW, config.hnsw_config),
            optimizer_config=_merged(_OPTIMIZERS, config.optimizers_config),
            wal_config=_merged(_WAL, config.wal_config),
            metadata=config.metadata,
        ),
    )


_Settings = TypeVar("_Settings", pb.HnswConfigDiff, pb.OptimizersConfigDiff, pb.WalConfigDiff)


def _merged(defaults: _Settings, changes: _Settings) -> _Settings:
    merged = type(defaults)()
    merged.CopyFrom(defaults)
    merged.MergeFrom(changes)
    return merged


_UPDATABLE = frozenset(
    {"collection_name", "timeout", "optimizers_config", "hnsw_config", "params", "metadata"}
)


def _updated(config: pb.CreateCollection, request: pb.UpdateCollection) -> pb.CreateCollection:
    """Merge index tuning and metadata, which change nothing stored; refuse the rest."""
    for field, _ in request.ListFields():
        if field.name not in _UPDATABLE:
            raise UnsupportedError(f"changing {field.name} is not supported by the embedded Qdrant")
    changed = pb.CreateCollection()
    changed.CopyFrom(config)
    changed.optimizers_config.MergeFrom(request.optimizers_config)
    changed.hnsw_config.MergeFrom(request.hnsw_config)
    for key, value in request.metadata.items():
        changed.metadata[key].CopyFrom(value)
    return changed


def _alias_list(aliases: dict[str, str]) -> pb.ListAliasesResponse:
    return pb.ListAliasesResponse(
        aliases=[
            pb.AliasDescription(alias_name=alias, collection_name=name)
            for alias, name in sorted(aliases.items())
        ]
    )


def _done(started_s: float) -> pb.CollectionOperationResponse:
    return pb.CollectionOperationResponse(result=True, time=time.monotonic() - started_s)
