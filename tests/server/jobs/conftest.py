"""The session's Qdrant for these tests."""

from qdrant_fixtures import *  # noqa: F403
