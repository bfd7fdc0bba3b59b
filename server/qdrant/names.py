"""What collection templates and shared collections are made with; imports nothing heavy."""

from __future__ import annotations

from typing import Final

SEPARATOR: Final = "/"
"""In a template: what stands before it is a Qdrant collection that several of ours share."""

COLLECTION_FIELD: Final = "collection_id"
"""Payload field by which documents of a shared collection say which one they belong to."""
