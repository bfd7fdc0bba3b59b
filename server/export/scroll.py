"""Pages of a collection in Qdrant's own order, the next one fetched while one is parsed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import numpy as np
from qdrant_client import grpc as pb
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from server.export.errors import ExportStoppedError
from server.export.patience import DEFAULT_PATIENCE, Patience
from server.export.protobytes import Spans
from server.export.wire import PointKey, Records, id_key, outline, parse_page, point_key
from server.qdrant.client import QdrantAddress, qdrant_errors
from server.qdrant.shared import place_of

_METHOD = "/qdrant.Points/Scroll"


@dataclass(frozen=True)
class IdRange:
    """Points from one id up to, but without, another, in Qdrant's order; None: no bound.

    The bounds are ``PointId`` messages as bytes.
    """

    start: bytes | None = None
    stop: bytes | None = None


EVERYTHING: Final = IdRange()


@dataclass(frozen=True)
class ScrollQuery:
    """What to read of one collection.

    Attributes
    ----------
    qdrant_name : str
        The collection (or alias), or a name in a shared one.
    vector_names : tuple of str
        Wanted vectors; ``""`` is the unnamed one. Empty: no vectors travel.
    filter : qdrant_client.models.Filter or None
        What Qdrant checks.
    payload_keys : tuple of str or None
        Selectors of payload keys that travel; empty for no payload, None for all of it.
    page_size : int
        Points per call.
    """

    qdrant_name: str
    vector_names: tuple[str, ...] = ()
    filter: models.Filter | None = None
    payload_keys: tuple[str, ...] | None = ()
    page_size: int = 2500

    def request(self, offset: bytes | None) -> pb.ScrollPoints:
        """The protobuf request for the page that starts at an offset."""
        place = place_of(self.qdrant_name)
        chosen = place.only(self.filter)
        request = pb.ScrollPoints(
            collection_name=place.collection,
            limit=self.page_size,
            with_payload=_payload_selector(self.payload_keys),
            with_vectors=_vectors_selector(self.vector_names),
        )
        if chosen is not None:
            request.filter.CopyFrom(RestToGrpc.convert_filter(chosen))
        if offset is not None:
            request.offset.CopyFrom(pb.PointId.FromString(offset))
        return request


def scroll_pages(
    channel: grpc.Channel,
    address: QdrantAddress,
    query: ScrollQuery,
    within: IdRange = EVERYTHING,
    *,
    patience: Patience = DEFAULT_PATIENCE,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[Records]:
    """Read a collection page by page.

    Parameters
    ----------
    channel : grpc.Channel
        From `server.qdrant.client.channel`; may be shared.
    address : QdrantAddress
        For the credentials and the time limit of each call.
    query : ScrollQuery
        What to read.
    within : IdRange, optional
        Which of its points.
    patience : Patience, optional
        For calls that find Qdrant away. Each page starts with fresh patience.
    should_stop : callable, optional
        Asked before every page and between tries; true ends with `ExportStoppedError`.

    Raises
    ------
    QdrantUnavailableError
        If Qdrant stayed away for longer than the patience.
    """
    caller = _Caller(channel, address, query.qdrant_name, patience, should_stop)
    stop = None if within.stop is None else id_key(within.stop, 0, len(within.stop))
    request = query.request(within.start)
    pending = caller.start(request)
    try:
        while True:
            data = caller.finish(pending, request)
            records, following = outline(data)
            if stop is not None and following is not None:
                following = None if id_key(following, 0, len(following)) >= stop else following
            if following is not None:
                request = query.request(following)
                pending = caller.start(request)
            elif stop is not None:
                records = _before(stop, data, records)
            if len(records.start):
                yield parse_page(data, records, query.vector_names)
            if following is None:
                return
    finally:
        pending.cancel()  # Of no effect on a call that has ended.


def _before(stop: PointKey, data: bytes, records: Spans) -> Spans:
    """Choose the records of a page that come before an id."""
    places = list(zip(records.start.tolist(), records.stop.tolist(), strict=True))
    n_before = bisect_left(places, stop, key=lambda place: point_key(data, *place))
    return records.at(np.arange(n_before))


class _Caller:
    """Raw unary Scroll calls, repeated while Qdrant is away."""

    def __init__(
        self,
        channel: grpc.Channel,
        address: QdrantAddress,
        collection: str,
        patience: Patience,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._call = channel.unary_unary(
            _METHOD,
            request_serializer=pb.ScrollPoints.SerializeToString,
            response_deserializer=None,
        )
        self._address = address
        self._collection = collection
        self._patience = patience
        self._should_stop = should_stop

    def start(self, request: pb.ScrollPoints) -> grpc.Future[bytes]:
        self._check_stop()
        return self._call.future(
            request, timeout=self._address.timeout_s, metadata=tuple(self._address.metadata())
        )

    def finish(self, pending: grpc.Future[bytes], request: pb.ScrollPoints) -> bytes:
        calls = [pending]

        def attempt() -> bytes:
            with qdrant_errors(self._collection):
                return (calls.pop() if calls else self.start(request)).result()

        return self._patience.bear(attempt, self._check_stop)

    def _check_stop(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise ExportStoppedError(f"reading of collection {self._collection!r} was stopped")


def _payload_selector(keys: Sequence[str] | None) -> pb.WithPayloadSelector:
    if keys is None:
        return pb.WithPayloadSelector(enable=True)
    if not keys:
        return pb.WithPayloadSelector(enable=False)
    return pb.WithPayloadSelector(include=pb.PayloadIncludeSelector(fields=list(keys)))


def _vectors_selector(names: Sequence[str]) -> pb.WithVectorsSelector:
    if not names:
        return pb.WithVectorsSelector(enable=False)
    if "" in names:  # The unnamed vector cannot be named; the parser drops what else comes.
        return pb.WithVectorsSelector(enable=True)
    return pb.WithVectorsSelector(include=pb.VectorsSelector(names=list(names)))
