"""Calls to Qdrant that fail in passing are repeated, and no page is lost or doubled."""

import threading
from concurrent import futures

import grpc
import pytest
from qdrant_client import grpc as pb

from server.export.patience import Patience
from server.export.scroll import ScrollQuery, scroll_pages
from server.qdrant.client import QdrantAddress, channel
from server.qdrant.errors import QdrantRefusedError, QdrantUnavailableError

N_POINTS = 7
QUICK = Patience(total_s=5, first_wait_s=0.01, longest_wait_s=0.02)


def serve(answer):
    """A gRPC server whose Scroll is `answer(request, context)`; returns it and its address."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=pb.ScrollPoints.FromString,
        response_serializer=pb.ScrollResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("qdrant.Points", {"Scroll": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, QdrantAddress("127.0.0.1", port, api_key="secret")


def page(request):
    start = request.offset.num
    stop = min(start + request.limit, N_POINTS)
    answer = pb.ScrollResponse(
        result=[pb.RetrievedPoint(id=pb.PointId(num=i)) for i in range(start, stop)]
    )
    if stop < N_POINTS:
        answer.next_page_offset.num = stop
    return answer


def read(answer, **options):
    server, address = serve(answer)
    try:
        with channel(address) as wire:
            query = ScrollQuery("docs", page_size=3)
            pages = scroll_pages(wire, address, query, patience=QUICK, **options)
            return [point for records in pages for point in records.ids.to_pylist()]
    finally:
        server.stop(None).wait()


def test_a_passing_fault_is_repeated_until_the_page_comes():
    calls = []

    def answer(request, context):
        calls.append(request.offset.num)
        if len(calls) % 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return page(request)

    assert read(answer) == [str(i) for i in range(N_POINTS)]
    assert calls == [0, 0, 0, 3, 3, 3, 6, 6, 6]


def test_a_fault_that_stays_ends_the_read():
    def answer(request, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    server, address = serve(answer)
    brief = Patience(total_s=0.1, first_wait_s=0.01, longest_wait_s=0.02)
    with channel(address) as wire, pytest.raises(QdrantUnavailableError, match="gone"):
        list(scroll_pages(wire, address, ScrollQuery("docs"), patience=brief))
    server.stop(None).wait()


def test_a_refusal_is_not_repeated():
    calls = []

    def answer(request, context):
        calls.append(1)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such index")

    with pytest.raises(QdrantRefusedError, match="no such index"):
        read(answer)
    assert len(calls) == 1


def test_the_key_travels_with_every_call():
    keys = []

    def answer(request, context):
        keys.append(dict(context.invocation_metadata())["api-key"])
        return page(request)

    read(answer)
    assert keys == ["secret"] * 3


def test_the_next_page_is_asked_for_while_this_one_is_in_use():
    second = threading.Event()

    def answer(request, context):
        if request.offset.num == 3:
            second.set()
        return page(request)

    server, address = serve(answer)
    with channel(address) as wire:
        pages = scroll_pages(wire, address, ScrollQuery("docs", page_size=3), patience=QUICK)
        assert next(pages).ids.to_pylist() == ["0", "1", "2"]
        assert second.wait(10)
        pages.close()
    server.stop(None).wait()
