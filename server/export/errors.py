"""Why an export fails a run.

RunFailure
├── SourceMissingError        a collection or a vector that the run needs is not there (any more)
├── UnsupportedVectorError    a sparse vector, which no method here can group
├── VectorSizeError           the collections' vectors differ in size
├── NoUsableDocumentsError    documents pass the filter, but none has a usable vector
├── ExportStorageError        the folder cannot be written, or its disk is full
├── ExportStoppedError        the caller asked to stop
└── MalformedResponseError    Qdrant's answer is not what its protocol says
"""

from __future__ import annotations

from server.errors import RunFailure


class SourceMissingError(RunFailure):
    """A collection or a vector that the run needs is not there."""

    reason = "SOURCE_MISSING"


class UnsupportedVectorError(RunFailure):
    """The vector is sparse; only dense vectors and multi-vectors (by their mean) are read."""

    reason = "UNSUPPORTED_VECTOR"


class VectorSizeError(RunFailure):
    """Vectors that go into one column differ in their number of dimensions."""

    reason = "VECTOR_SIZE"


class NoUsableDocumentsError(RunFailure):
    """All documents that pass the filter lack the vector, or theirs cannot be used."""

    reason = "NO_USABLE_DOCUMENTS"


class ExportStorageError(RunFailure):
    """The artifacts' folder cannot be written; the message has the path and the free bytes."""

    reason = "EXPORT_STORAGE"


class ExportStoppedError(RunFailure):
    """The export ended early because its caller asked it to; nothing was left behind."""

    reason = "EXPORT_STOPPED"


class MalformedResponseError(RunFailure):
    """Qdrant's answer cannot be read; the versions of client and server may not fit."""

    reason = "MALFORMED_RESPONSE"
