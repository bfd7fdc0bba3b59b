"""Opening the SQLite file: its tables, its version, and words for what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import UnavailableError
from server.stores.documents import STORE_VERSION, StoreFileError, StoreVersionError

APPLICATION_ID = 0x53484F4C
"""Marks the file as shoal's ("SHOL"), so that no other program's database is touched."""

_TABLES = """
CREATE TABLE clusters (
    cluster_id TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL,
    cluster_name TEXT NOT NULL,
    request_id TEXT,
    revision INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    status TEXT NOT NULL,
    archived INTEGER NOT NULL,
    cluster_type TEXT NOT NULL,
    collection_ids TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description_folded TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    queued_us INTEGER,
    claimable_us INTEGER,
    document TEXT NOT NULL
);
CREATE UNIQUE INDEX clusters_name ON clusters (namespace_id, cluster_name);
CREATE UNIQUE INDEX clusters_request ON clusters (namespace_id, request_id)
    WHERE request_id IS NOT NULL;
CREATE INDEX clusters_created ON clusters (namespace_id, created_us, cluster_id);
CREATE INDEX clusters_updated ON clusters (namespace_id, updated_us, cluster_id);
CREATE INDEX clusters_claimable ON clusters (queued_us, cluster_id)
    WHERE claimable_us IS NOT NULL;

CREATE TABLE runs (
    cluster_id TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    namespace_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    queued_us INTEGER NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (cluster_id, run_id)
) WITHOUT ROWID;
CREATE INDEX runs_run ON runs (run_id);
CREATE INDEX runs_task ON runs (task_id);
CREATE INDEX runs_newest ON runs (namespace_id, queued_us);
CREATE INDEX runs_active ON runs (namespace_id) WHERE status IN ('pending', 'processing');

CREATE TABLE events (
    run_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    is_final INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (run_id, sequence)
) WITHOUT ROWID;

CREATE TABLE namespaces (
    namespace_id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (organization_id, name)
) WITHOUT ROWID;

CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    organization_id TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    document TEXT NOT NULL
) WITHOUT ROWID;
"""

_UNUSABLE_CODES = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked; stop that process or try again",
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_READONLY: "it is read-only for this user; mend its permissions",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; mend the folder's permissions",
}


@contextmanager
def words_for(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into `StoreFileError` and `UnavailableError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _UNUSABLE_CODES:
            raise _damaged(path, str(error)) from error
        if isinstance(error, sqlite3.OperationalError):
            advice = _ADVICE.get(code, "see the server's disk and log")
            raise UnavailableError(f"job store {path}: {error}; {advice}") from error
        raise


def open_database(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open or create the file, durable against kill -9 and power loss.

    Raises
    ------
    StoreFileError
        If it is no database, damaged, another program's, or cannot be created.
    StoreVersionError
        If a newer version wrote it. It is left as it was.
    """
    _create_private(path)
    with words_for(path):
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
        try:
            _check(connection, path)
            _use_wal(connection, busy_timeout_s)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _create_tables(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _create_private(path: Path) -> None:
    """Make the file readable by its owner only: it holds key hashes and callers' data."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreFileError(
            f"job store {path} cannot be opened ({error.strerror}); mend the path or its "
            "permissions, or set another one"
        ) from error


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours before anything is written to it."""
    has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if has_tables and _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreFileError(
            f"job store {path} is a database of another program; it was not touched, "
            "set another path"
        )
    _version(connection, path)
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise _damaged(path, problem)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Give the file's layout, 0 when it is new, or refuse a newer one."""
    version = _pragma(connection, "user_version")
    if version > STORE_VERSION:
        raise StoreVersionError(
            f"job store {path} was written by a newer version of shoal (layout {version}, this "
            f"version knows {STORE_VERSION}); upgrade this server or restore an older backup",
            state="NEWER",
        )
    return version


def _damaged(path: Path, problem: str) -> StoreFileError:
    return StoreFileError(
        f"job store {path} is damaged or no SQLite database ({problem}); restore it from a "
        "backup, or move it away with its -wal and -shm files to start with an empty one"
    )


def _use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch to WAL; SQLite does not wait for the lock here, so two first openers may meet."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; of several openers one does it, the others wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection, path) == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {STORE_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
