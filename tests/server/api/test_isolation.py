"""One tenant's key, tried on another tenant's names through every field that takes a text.

Each call is sent once for each text field and each name of the victim, the rest of it being
the stranger's own. Nothing of the victim may come back, and nothing of it may change.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
import pytest
from clusters.v1 import cluster_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

from tests.server.api.conftest import finish
from tests.server.api.test_auth import METHODS
from tests.server.api.world import MULTIMODAL, ORGANIZATION, Caller, World

CANARY = "canary"
STREAM_TIMEOUT_S = 0.3


@dataclass(frozen=True)
class Tenant:
    """A namespace with a collection, a cluster that found groups, and one whose run waits."""

    world: World
    caller: Caller
    collection_id: str
    qdrant_name: str
    cluster: cluster_pb2.Cluster
    waiting: cluster_pb2.Cluster

    @property
    def names(self) -> dict[str, str]:
        """Every name that leads to something of this tenant."""
        namespace = self.world.namespace
        cluster_id, run_id = self.cluster.cluster_id, self.cluster.last_run_id
        below = f"{namespace.namespace_id}/{cluster_id}/{run_id}"
        return {
            "cluster id": cluster_id,
            "cluster name": self.cluster.cluster_name,
            "run id": run_id,
            "waiting run id": self.waiting.last_run_id,
            "task id": self.cluster.last_execution_task_id,
            "collection id": self.collection_id,
            "name in Qdrant": self.qdrant_name,
            "guessed name in Qdrant": f"{namespace.namespace_id}__{self.collection_id}",
            "namespace id": namespace.namespace_id,
            "artifact path": f"../../{below}/members.parquet",
            "artifact folder": str(self.world.artifacts / below),
        }


async def tenant(
    world: World, client: QdrantClient, namespace: Any, collection_id: str, word: str
) -> Tenant:
    """Fill a namespace; `word` is in all its texts."""
    key = await world.key_for("admin", namespace.name)
    own = replace(world, namespace=namespace, key=key)
    caller = own.connect()
    name = namespace.collection_template.format(
        namespace_id=namespace.namespace_id, collection_id=collection_id
    )
    size = VectorParams(size=4, distance=Distance.COSINE)
    client.create_collection(name, vectors_config={MULTIMODAL: size})
    rows = np.random.default_rng(3).normal(size=(20, 4))
    client.upsert(
        name,
        [
            PointStruct(id=n, vector={MULTIMODAL: row.tolist()}, payload={"category": word})
            for n, row in enumerate(rows)
        ],
        wait=True,
    )
    body = {
        "collection_ids": [collection_id],
        "vector_config": {"clustering_method": "kmeans", "feature_uri": MULTIMODAL},
        "description": word,
        "metadata": {"note": word},
    }
    cluster = await finish(
        own, caller, {**body, "cluster_name": f"of {namespace.name}"}, collection_id,
        (f"{word} one", f"{word} two"),
    )  # fmt: skip
    waiting = await caller.create(body)
    return Tenant(own, caller, collection_id, name, cluster, waiting)


@pytest.fixture(params=["the first namespace", "a later namespace"])
async def tenants(
    request: pytest.FixtureRequest, world: World, client: QdrantClient
) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """The victim and the stranger; the first namespace's collections have plain names."""
    other = await world.tenancy.create_namespace(ORGANIZATION, "other")
    victim_space, stranger_space = world.namespace, other
    if request.param == "a later namespace":
        victim_space, stranger_space = stranger_space, victim_space
    tag = uuid.uuid4().hex[:8]
    victim = await tenant(world, client, victim_space, f"vault-{tag}", CANARY)
    stranger = await tenant(world, client, stranger_space, f"own-{tag}", "plain")
    yield victim, stranger
    for each in (victim, stranger):
        client.delete_collection(each.qdrant_name)


def texts(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the path of every field of a message that takes a text, and of every Struct."""
    for field in kind.fields:
        here = (*path, field.name)
        if field.message_type is None:
            if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
                yield here
        elif field.message_type.full_name == "google.protobuf.Struct":
            yield here
        elif len(path) < 3 and field.message_type.file.package == "clusters.v1":
            yield from texts(field.message_type, here)


def own_request(path: str, stranger: Tenant) -> dict[str, Any]:
    """Give a request of the stranger about its own things, with what each field needs."""
    known: dict[str, Any] = {
        "cluster_id": stranger.cluster.cluster_id,
        "run_id": stranger.cluster.last_run_id,
        "task_id": stranger.waiting.last_execution_task_id,
        "group_id": "cl_0",
        "collection_id": stranger.collection_id,
        "labels": [{"cluster_id": "cl_0", "label": "mine"}],
    }
    fields = [field.name for field in METHODS[path].input_type.fields]
    body = {name: known[name] for name in fields if name in known}
    if path.endswith("/CreateCluster"):
        body = {
            "collection_ids": [stranger.collection_id],
            "vector_config": {"clustering_method": "kmeans", "feature_uri": MULTIMODAL},
            "execute": False,
        }
    if path.endswith("/DeleteCluster"):
        body = {"cluster_id": "nothing"}  # The stranger's own cluster is needed again.
    return body


def with_text(request: Message, path: tuple[str, ...], text: str) -> Message:
    """Give a copy of a request with one of its texts replaced."""
    changed = type(request)()
    changed.CopyFrom(request)
    at: Any = changed
    for name in path[:-1]:
        at = getattr(at, name)
        if not isinstance(at, Message):
            at = at[0] if len(at) else at.add()
    field = at.DESCRIPTOR.fields_by_name[path[-1]]
    if field.message_type is not None:
        struct = getattr(at, field.name)
        (struct.add() if field.is_repeated else struct).update({"category": text})
    elif field.is_repeated:
        del getattr(at, field.name)[:]
        getattr(at, field.name).append(text)
    else:
        setattr(at, field.name, text)
    return changed


async def answer_to(caller: Caller, path: str, request: Message) -> bytes:
    """Make a call; gives all that came back, answers or error with its details."""
    got = b""
    try:
        if METHODS[path].server_streaming:
            stream = caller.channel.unary_stream(path)
            async for answer in stream(
                request.SerializeToString(), metadata=caller.metadata, timeout=STREAM_TIMEOUT_S
            ):
                got += answer
        else:
            unary = caller.channel.unary_unary(path)
            got = await unary(request.SerializeToString(), metadata=caller.metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            raise
        got += f"{error.details()} {error.trailing_metadata()}".encode()
    return got


async def state_of(victim: Tenant, client: QdrantClient) -> dict[str, Any]:
    """Give all that the victim has: records, files, documents."""
    namespace_id = victim.world.namespace.namespace_id
    records = [
        await victim.world.store.get_cluster(namespace_id, cluster.cluster_id)
        for cluster in (victim.cluster, victim.waiting)
    ]
    files = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (victim.world.artifacts / namespace_id).rglob("*")
        if path.is_file()
    }
    points, _ = client.scroll(victim.qdrant_name, limit=100, with_vectors=True)
    return {"records": records, "files": files, "documents": points}


@pytest.mark.parametrize("path", sorted(METHODS))
async def test_no_field_reaches_another_tenant(
    tenants: tuple[Tenant, Tenant], client: QdrantClient, path: str
) -> None:
    victim, stranger = tenants
    before = await state_of(victim, client)
    kind = METHODS[path].input_type
    own = json_format.ParseDict(
        own_request(path, stranger), message_factory.GetMessageClass(kind)()
    )
    leaks = []
    for field in texts(kind):
        for what, name in victim.names.items():
            got = await answer_to(stranger.caller, path, with_text(own, field, name))
            if CANARY.encode() in got:
                leaks.append(f"{'.'.join(field)} with the victim's {what}")

    assert leaks == []
    assert await state_of(victim, client) == before
    assert len(before["files"]) >= 3


async def test_the_victim_itself_sees_its_canary(tenants: tuple[Tenant, Tenant]) -> None:
    victim, _ = tenants
    for path in ("GetCluster", "ListGroups", "GetExecution", "ListMembers"):
        full = f"/clusters.v1.ClusterService/{path}"
        kind = message_factory.GetMessageClass(METHODS[full].input_type)
        own = json_format.ParseDict(own_request(full, victim), kind())
        assert CANARY.encode() in await answer_to(victim.caller, full, own), path


@pytest.mark.parametrize("which", ["name", "namespace_id"])
async def test_no_header_reaches_another_tenant(tenants: tuple[Tenant, Tenant], which: str) -> None:
    victim, stranger = tenants
    intruder = stranger.world.connect(namespace=getattr(victim.world.namespace, which))
    path = "/clusters.v1.ClusterService/ListClusters"
    kind = message_factory.GetMessageClass(METHODS[path].input_type)

    got = await answer_to(intruder, path, kind())

    assert b"does not reach" in got
    assert CANARY.encode() not in got
