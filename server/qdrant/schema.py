"""What a Qdrant collection holds, and which of its vectors a feature URI means."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from server.qdrant.client import qdrant_errors
from server.qdrant.errors import VectorNotFoundError

SCHEME = "mixpeek://"
_FEATURE_URI = re.compile(SCHEME + r"(?P<extractor>[^@/]+)@(?P<version>[^/]+)/(?P<output>.+)")

UNNAMED_VECTOR = ""


@dataclass(frozen=True)
class VectorSpec:
    """One dense vector of a collection.

    Attributes
    ----------
    size : int
        Dimensions.
    distance : str
        ``Cosine``, ``Euclid``, ``Dot`` or ``Manhattan``.
    multivector : bool
        Whether a point holds a matrix (several vectors) under this name.
    """

    size: int
    distance: str
    multivector: bool = False


@dataclass(frozen=True)
class CollectionSchema:
    """A collection as Qdrant describes it.

    Attributes
    ----------
    name : str
        As asked for; may be an alias.
    points_count : int
        Qdrant's own (possibly approximate) number of points.
    vectors : dict of str to VectorSpec
        Dense vectors by name; the unnamed vector is ``""``.
    payload_indexes : dict of str to str
        Field path to index type (``keyword``, ``integer``, …).
    sparse_vectors : tuple of str
        Names of sparse vectors.
    """

    name: str
    points_count: int
    vectors: dict[str, VectorSpec] = field(default_factory=dict)
    payload_indexes: dict[str, str] = field(default_factory=dict)
    sparse_vectors: tuple[str, ...] = ()

    def sizes(self) -> dict[str, int]:
        """Dimensions of each dense vector, by name."""
        return {name: spec.size for name, spec in self.vectors.items()}


def describe(client: QdrantClient, name: str) -> CollectionSchema:
    """Ask Qdrant what a collection (or the collection behind an alias) holds.

    Raises
    ------
    CollectionNotFoundError
        If there is no such collection or alias.
    QdrantUnavailableError
        If Qdrant does not answer.
    """
    with qdrant_errors(name):
        return schema_from_info(name, client.get_collection(name))


async def describe_async(client: AsyncQdrantClient, name: str) -> CollectionSchema:
    """`describe` for the asyncio client."""
    with qdrant_errors(name):
        return schema_from_info(name, await client.get_collection(name))


def schema_from_info(name: str, info: models.CollectionInfo) -> CollectionSchema:
    """Read a schema from qdrant-client's answer."""
    vectors = info.config.params.vectors
    named = {UNNAMED_VECTOR: vectors} if isinstance(vectors, models.VectorParams) else vectors
    return CollectionSchema(
        name=name,
        points_count=info.points_count or 0,
        vectors={
            vector_name: VectorSpec(
                size=params.size,
                distance=params.distance.value,
                multivector=params.multivector_config is not None,
            )
            for vector_name, params in (named or {}).items()
        },
        payload_indexes={
            path: index.data_type.value for path, index in (info.payload_schema or {}).items()
        },
        sparse_vectors=tuple(sorted(info.config.params.sparse_vectors or {})),
    )


def output_of(uri: str) -> str:
    """Give what a feature URI calls its output; a plain name as it is."""
    match = _FEATURE_URI.fullmatch(uri)
    return match["output"] if match else uri


def resolve_feature(schema: CollectionSchema, uri: str) -> str:
    """Find the vector of a collection that a feature URI names.

    ``mixpeek://{extractor}@{version}/{output}`` is looked up as
    ``{extractor}_{version}_{output}``, then ``{output}``, then the text as given, then
    the only vector of the collection.

    Returns
    -------
    str
        The Qdrant vector name; ``""`` is the unnamed vector.

    Raises
    ------
    VectorNotFoundError
        If none fits; lists the vectors there are and their sizes.
    """
    match = _FEATURE_URI.fullmatch(uri)
    candidates = [uri]
    if match:
        full = f"{match['extractor']}_{match['version']}_{match['output']}"
        candidates = [full, match["output"], uri]
    for candidate in candidates:
        if candidate in schema.vectors:
            return candidate
    if len(schema.vectors) == 1:
        return next(iter(schema.vectors))
    raise VectorNotFoundError(schema.name, uri, schema.sizes())
