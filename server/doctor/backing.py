"""The stores a server works on: jobs, vectors, artifacts; and whether clocks agree."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from server.config import Settings
from server.doctor.finding import Finding, State
from server.jobs.ledger import utc_now
from server.qdrant.client import QdrantAddress, connect_async, qdrant_errors
from server.qdrant.embedded import attach_or_start
from server.stores.base import JobStore
from server.stores.choice import make_store

LOW_DISK_BYTES = 2 * 1024**3
MAX_SKEW_S = 1.0
"""Leases are minutes of one clock and read by another; this much never matters."""


async def check_store(settings: Settings) -> Sequence[Finding]:
    """Open the job store, and compare its clock with ours."""
    if settings.mongodb_uri is None and not settings.database_path.exists():
        return [_folder_finding("job store", settings.data_dir)]
    store = make_store(settings)
    await store.open()
    try:
        await store.ping()
        return [await _tenants(settings, store), await _clock(settings, store)]
    finally:
        await store.close()


async def check_qdrant(settings: Settings) -> Sequence[Finding]:
    """Ask Qdrant for its collections; start the embedded one for that if need be."""
    async with _qdrant(settings) as (address, where):
        client = connect_async(address)
        try:
            with qdrant_errors():
                collections = (await client.get_collections()).collections
        finally:
            await client.close()
    return [Finding("qdrant", "ok", f"{where} answers; {len(collections)} collections")]


async def check_artifacts(settings: Settings) -> Sequence[Finding]:
    """Write, read and remove a file where artifacts go, and look at the room there."""
    return [await asyncio.to_thread(_try_artifacts, settings.artifacts)]


async def _tenants(settings: Settings, store: JobStore) -> Finding:
    namespaces = await store.list_namespaces()
    keys = [key for key in await store.list_keys() if key.revoked_at is None]
    where = "SQLite" if settings.mongodb_uri is None else "MongoDB"
    told = f"{where} answers; {len(namespaces)} namespaces, {len(keys)} keys"
    if keys or settings.dev:
        return Finding("job store", "ok", told)
    return Finding(
        "job store", "warning", f"{told}, so nobody can call",
        "make a namespace and a key: `shoal namespaces create NAME`, then "
        "`shoal keys create --namespace NAME`",
    )  # fmt: skip


async def _clock(settings: Settings, store: JobStore) -> Finding:
    asked_at = utc_now()
    theirs = await store.clock()
    halfway = asked_at + (utc_now() - asked_at) / 2
    ahead_s = (halfway - theirs).total_seconds()
    newest = await _newest_record(store)
    if newest is not None and (newest - utc_now()).total_seconds() > MAX_SKEW_S:
        return Finding(
            "clock", "warning", f"a stored record is from {newest:%Y-%m-%d %H:%M:%S} UTC, which "
            "is still to come: this clock went back, or another server's is ahead",
            "let NTP keep the clocks of all servers",
        )  # fmt: skip
    if abs(ahead_s) <= MAX_SKEW_S:
        return Finding("clock", "ok", f"{utc_now():%Y-%m-%d %H:%M:%S} UTC")
    word = "ahead of" if ahead_s > 0 else "behind"
    state: State = "fault" if abs(ahead_s) > settings.lease_s / 3 else "warning"
    return Finding(
        "clock", state, f"this clock is {abs(ahead_s):.1f} s {word} the job store's",
        f"let NTP keep both: leases last {settings.lease_s:g} s, and a server whose clock is "
        "wrong takes runs too early or too late",
    )  # fmt: skip


async def _newest_record(store: JobStore) -> datetime | None:
    namespaces, keys = await store.list_namespaces(), await store.list_keys()
    moments = [*(n.created_at for n in namespaces), *(key.created_at for key in keys)]
    return max(moments, default=None)


@asynccontextmanager
async def _qdrant(settings: Settings) -> Any:
    if settings.qdrant_url is not None:
        key = settings.qdrant_api_key
        address = QdrantAddress.from_url(
            settings.qdrant_url, api_key=key.get_secret_value() if key else None
        )
        yield address, f"Qdrant at {address.target}"
        return
    embedded = await asyncio.to_thread(attach_or_start, settings.data_dir)
    try:
        yield embedded.address, f"the embedded Qdrant in {settings.data_dir}"
    finally:
        await asyncio.to_thread(embedded.stop)


def _try_artifacts(url: str) -> Finding:
    advice = "mend SHOAL_ARTIFACTS_URL, its credentials or its permissions"
    name = f".shoal-doctor-{uuid4().hex}"
    try:
        fs, root = fsspec.url_to_fs(url)
        fs.makedirs(root, exist_ok=True)
        path = f"{root.rstrip('/')}/{name}"
        fs.pipe_file(path, b"shoal")
        is_same = fs.cat_file(path) == b"shoal"
        fs.rm_file(path)
    except Exception as error:  # Every file system has errors of its own.
        return Finding("artifacts", "fault", f"cannot write to {_shown(url)}: {error}", advice)
    if not is_same:
        told = f"{_shown(url)} gives back other bytes than were written"
        return Finding("artifacts", "fault", told, advice)
    if not isinstance(fs, LocalFileSystem):
        return Finding("artifacts", "ok", f"{_shown(url)} can be written")
    return _room("artifacts", Path(root))


def _room(check: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    told = f"{folder} can be written; {free / 1024**3:,.1f} GiB are free"
    if free >= LOW_DISK_BYTES:
        return Finding(check, "ok", told)
    return Finding(
        check, "warning", told,
        "make room: an export takes 4 bytes for each dimension of each document",
    )  # fmt: skip


def _folder_finding(check: str, folder: Path) -> Finding:
    """Say whether a folder could be made and written, without making it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding(check, "ok", f"SQLite in {folder}, made when the server starts")
    return Finding(
        check, "fault", f"{folder} cannot be made: {there} cannot be written by this user",
        "mend its permissions, or set SHOAL_DATA_DIR",
    )  # fmt: skip


def _shown(url: str) -> str:
    """Give a URL without the credentials that it may hold."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
