"""The job store that the settings name."""

from __future__ import annotations

from server.config import Settings
from server.stores.base import JobStore
from server.stores.sqlite import SqliteStore


def make_store(settings: Settings) -> JobStore:
    """Give the job store that the settings name, not yet open."""
    if settings.mongodb_uri is not None:
        # Loading motor takes a third of a second, which SQLite's users need not wait.
        from server.stores.mongo import MongoStore

        return MongoStore(settings.mongodb_uri.get_secret_value(), settings.mongodb_database)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return SqliteStore(settings.database_path)
