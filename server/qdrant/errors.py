"""What can go wrong between shoal and Qdrant.

ShoalError
├── UnavailableError
│   ├── QdrantUnavailableError      Qdrant does not answer
│   └── EmbeddedStartError          the embedded server did not come up
├── NotFoundError
│   ├── CollectionNotFoundError     no such Qdrant collection
│   └── VectorNotFoundError         the collection has no such vector; lists those there are
├── PreconditionError
│   ├── QdrantRefusedError          Qdrant answered with an error of its own
│   ├── StorageLockedError          another process holds the embedded storage
│   └── VectorSizeMismatchError     the collection's vector has another size or distance
└── InvalidRequestError
    └── ImportFileError             a Parquet file that cannot become points
"""

from __future__ import annotations

from server.errors import (
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    Violation,
)


class QdrantUnavailableError(UnavailableError):
    """Qdrant does not answer, or not in time; a later try may succeed."""

    reason = "QDRANT_UNAVAILABLE"


class EmbeddedStartError(UnavailableError):
    """The embedded Qdrant's process ended or stayed silent while it was starting."""

    reason = "QDRANT_EMBEDDED_START"


class CollectionNotFoundError(NotFoundError):
    """Qdrant has no collection (or alias) of that name."""

    reason = "COLLECTION_NOT_FOUND"

    def __init__(self, collection: str, hint: str = "") -> None:
        super().__init__("collection", collection, hint)


class VectorNotFoundError(NotFoundError):
    """The collection has no such vector; the message lists those it has, with their sizes."""

    reason = "VECTOR_NOT_FOUND"

    def __init__(self, collection: str, vector: str, available: dict[str, int]) -> None:
        listed = ", ".join(
            f"{name or '(unnamed)'} ({size} dimensions)" for name, size in sorted(available.items())
        )
        super().__init__(
            "vector",
            vector,
            f"collection {collection!r} has {listed or 'no dense vectors'}",
            collection=collection,
        )


class QdrantRefusedError(PreconditionError):
    """Qdrant answered with an error; `code` is its gRPC status, the message its own words."""

    reason = "QDRANT_REFUSED"


class StorageLockedError(PreconditionError):
    """Another process holds the embedded storage, and only one may."""

    reason = "QDRANT_STORAGE_LOCKED"


class VectorSizeMismatchError(PreconditionError):
    """A collection that exists has vectors of another size or distance than the data."""

    reason = "VECTOR_SIZE_MISMATCH"


class ImportFileError(InvalidRequestError):
    """A file that cannot become points: its columns, its ids or its format."""

    reason = "IMPORT_FILE_INVALID"

    def __init__(self, field: str, description: str, **facts: object) -> None:
        super().__init__([Violation(field=field, description=description)], **facts)
