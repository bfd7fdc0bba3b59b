"""Short ways to fill a collection of two dimensions and to ask it."""

import grpc
import pytest
from qdrant_client.models import Filter, PointStruct


def put(client, name, payloads, vector=(0.0, 1.0)):
    points = [
        PointStruct(id=i, vector=list(vector), payload=payload)
        for i, payload in enumerate(payloads)
    ]
    client.upsert(name, points)


def found(client, name, *must, **filters):
    """Ids that a filter finds, in order."""
    chosen = Filter(must=list(must) or None, **filters)
    records, _ = client.scroll(name, scroll_filter=chosen, limit=1000, with_payload=False)
    assert client.count(name, count_filter=chosen).count == len(records)
    return [record.id for record in records]


def status_of(call):
    """Status and words of the gRPC error that a call must end with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()
