"""Several collections of a namespace inside one Qdrant collection, told apart by a payload field.

A collection template with a slash, such as ``{namespace_id}/{collection_id}``, makes names that
Qdrant itself does not know: what stands before the slash is the Qdrant collection, what stands
behind it is the value of `COLLECTION_FIELD` in the payload of the documents that belong there.
The clients here take such names like any other, and add that condition to every read and write.
A call that they do not translate meets a name that Qdrant has no collection of, so that nothing
can reach the documents of another collection, or of another tenant, by forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import RestToGrpc

from server.qdrant.errors import CollectionNotFoundError
from server.qdrant.names import COLLECTION_FIELD, SEPARATOR

Chosen = models.Filter | Sequence[Any] | None
"""Documents, by a filter or by their ids; None for all."""


@dataclass(frozen=True)
class Place:
    """Where documents lie: a Qdrant collection, or those in it that name one of ours.

    Attributes
    ----------
    collection : str
        As Qdrant knows it.
    shared_as : str or None
        What `COLLECTION_FIELD` says in its documents; None: all of the Qdrant collection.
    """

    collection: str
    shared_as: str | None

    def only(self, chosen: Chosen = None) -> Any:
        """Give what was chosen, less what is not here; as it is where nothing is shared."""
        if self.shared_as is None:
            return chosen
        must: list[models.Condition] = [
            models.FieldCondition(
                key=COLLECTION_FIELD, match=models.MatchValue(value=self.shared_as)
            )
        ]
        if isinstance(chosen, models.Filter):
            must.append(chosen)
        elif chosen is not None:
            must.append(models.HasIdCondition(has_id=list(chosen)))
        return models.Filter(must=must)


def place_of(name: str) -> Place:
    """Read a name that a collection template made."""
    collection, slash, shared_as = name.partition(SEPARATOR)
    return Place(collection, shared_as if slash else None)


class SharingClient(QdrantClient):
    """A client that knows names with a slash, in the calls that the service makes on documents."""

    def get_collection(
        self, collection_name: str, *args: Any, **kwargs: Any
    ) -> models.CollectionInfo:
        """Describe the Qdrant collection, with the number of documents that are ours.

        Raises
        ------
        CollectionNotFoundError
            If a shared one has no document of that collection.
        """
        place = place_of(collection_name)
        info = super().get_collection(place.collection, *args, **kwargs)
        if place.shared_as is None:
            return info
        own = self.count(collection_name, exact=True).count
        return _told(info, own, collection_name)

    def count(
        self, collection_name: str, count_filter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Count documents."""
        place = place_of(collection_name)
        return super().count(place.collection, place.only(count_filter), *args, **kwargs)

    def facet(
        self, collection_name: str, key: str, facet_filter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Count the values of a field."""
        place = place_of(collection_name)
        return super().facet(place.collection, key, place.only(facet_filter), *args, **kwargs)

    def scroll(
        self, collection_name: str, scroll_filter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Read documents in order."""
        place = place_of(collection_name)
        return super().scroll(place.collection, place.only(scroll_filter), *args, **kwargs)

    def retrieve(
        self, collection_name: str, ids: Sequence[Any], with_payload: Any = True,
        with_vectors: Any = False, *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Read documents by id."""
        place = place_of(collection_name)
        if place.shared_as is None:
            return super().retrieve(
                collection_name, ids, with_payload, with_vectors, *args, **kwargs
            )
        found, _ = super().scroll(
            place.collection,
            place.only(ids),
            limit=max(1, len(ids)),
            with_payload=with_payload,
            with_vectors=with_vectors,
        )
        return found

    def set_payload(
        self, collection_name: str, payload: dict[str, Any], points: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Write fields into documents."""
        place = place_of(collection_name)
        return super().set_payload(place.collection, payload, place.only(points), *args, **kwargs)

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Take fields from documents."""
        place = place_of(collection_name)
        return super().delete_payload(place.collection, keys, place.only(points), *args, **kwargs)

    def query_points(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """Search among documents, or draw some."""
        place = place_of(collection_name)
        kwargs["query_filter"] = place.only(kwargs.get("query_filter"))
        return super().query_points(place.collection, *args, **kwargs)

    def update_batch(
        self, collection_name: str, request: pb.UpdateBatchPoints, timeout_s: int
    ) -> None:
        """Write or take fields, several operations as one request.

        Parameters
        ----------
        request : UpdateBatchPoints
            The operations; the collection's name is put in here.

        Raises
        ------
        TypeError
            If an operation is none on payloads, and the collection a shared one.
        """
        place = place_of(collection_name)
        if place.shared_as is not None:
            operations = [_narrowed(operation, place) for operation in request.operations]
            request = pb.UpdateBatchPoints(operations=operations)
        request.collection_name, request.wait = place.collection, True
        self.grpc_points.UpdateBatch(request, timeout=timeout_s)

    def present(
        self, collection_name: str, ids: Sequence[pb.PointId], timeout_s: int
    ) -> list[pb.RetrievedPoint]:
        """Give the documents that there are of some ids, with nothing but their ids."""
        place = place_of(collection_name)
        nothing: dict[str, Any] = {
            "with_payload": pb.WithPayloadSelector(enable=False),
            "with_vectors": pb.WithVectorsSelector(enable=False),
        }
        if place.shared_as is None:
            asked = pb.GetPoints(collection_name=place.collection, ids=ids, **nothing)
            return list(self.grpc_points.Get(asked, timeout=timeout_s).result)
        chosen = _own_of(place, pb.Condition(has_id=pb.HasIdCondition(has_id=ids)))
        scrolled = pb.ScrollPoints(
            collection_name=place.collection, filter=chosen, limit=max(1, len(ids)), **nothing
        )
        return list(self.grpc_points.Scroll(scrolled, timeout=timeout_s).result)


class AsyncSharingClient(AsyncQdrantClient):
    """`SharingClient` for asyncio, with the calls that the server itself makes."""

    async def get_collection(
        self, collection_name: str, *args: Any, **kwargs: Any
    ) -> models.CollectionInfo:
        """As `SharingClient.get_collection`."""
        place = place_of(collection_name)
        info = await super().get_collection(place.collection, *args, **kwargs)
        if place.shared_as is None:
            return info
        own = await super().count(place.collection, place.only(), exact=True)
        return _told(info, own.count, collection_name)

    async def scroll(
        self, collection_name: str, scroll_filter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Read documents in order."""
        place = place_of(collection_name)
        return await super().scroll(place.collection, place.only(scroll_filter), *args, **kwargs)

    async def retrieve(
        self, collection_name: str, ids: Sequence[Any], with_payload: Any = True,
        with_vectors: Any = False, *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Read documents by id."""
        place = place_of(collection_name)
        if place.shared_as is None:
            return await super().retrieve(
                collection_name, ids, with_payload, with_vectors, *args, **kwargs
            )
        found, _ = await super().scroll(
            place.collection,
            place.only(ids),
            limit=max(1, len(ids)),
            with_payload=with_payload,
            with_vectors=with_vectors,
        )
        return found


def _told(info: models.CollectionInfo, own: int, name: str) -> models.CollectionInfo:
    if not own:
        raise CollectionNotFoundError(name)
    return info.model_copy(update={"points_count": own})


def _narrowed(operation: pb.PointsUpdateOperation, place: Place) -> pb.PointsUpdateOperation:
    """Let an operation on payloads reach only what is here."""
    kind = operation.WhichOneof("operation")
    if kind not in ("set_payload", "delete_payload"):
        raise TypeError(f"{kind} cannot be held to a shared collection")
    narrowed = pb.PointsUpdateOperation.FromString(operation.SerializeToString())
    selector = getattr(narrowed, kind).points_selector
    if selector.HasField("filter"):
        chosen = pb.Condition(filter=selector.filter)
    else:
        chosen = pb.Condition(has_id=pb.HasIdCondition(has_id=selector.points.ids))
    selector.CopyFrom(pb.PointsSelector(filter=_own_of(place, chosen)))
    return narrowed


def _own_of(place: Place, chosen: pb.Condition) -> pb.Filter:
    own = RestToGrpc.convert_filter(place.only())
    return pb.Filter(must=[*own.must, chosen])
