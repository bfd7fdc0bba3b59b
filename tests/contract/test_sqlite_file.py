"""The SQLite file: what a crash, a newer version, damage or a foreign file means."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from store_records import NAMESPACE, cluster

from server.errors import UnavailableError
from server.stores.base import ClusterQuery
from server.stores.documents import StoreFileError, StoreVersionError, UnreadableRecordError
from server.stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from server.stores.sqlite import SqliteStore
from store_records import event

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    while True:
        stored = await store.append_event(event())
        print(stored.sequence, flush=True)

asyncio.run(main())
"""


async def filled(path: Path) -> None:
    """Make a store with one cluster and close it."""
    store = SqliteStore(path)
    await store.open()
    await store.insert_cluster(cluster(1))
    await store.close()


def write_until_killed(path: Path) -> int:
    """Let a process append events, kill it in the middle, and give the last acknowledged one."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    ) as process:
        assert process.stdout is not None
        for _ in range(30):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
        return max([acknowledged, *(int(line) for line in rest if line.endswith("\n"))])


async def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    acknowledged = write_until_killed(path)

    store = SqliteStore(path)
    await store.open()
    numbers = [e.sequence for e in await store.events_after("run_1", 0, 10**6)]
    await store.close()
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= acknowledged >= 30


async def test_the_file_is_made_with_its_folder_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "jobs.db"
    await filled(path)
    assert path.stat().st_mode & 0o077 == 0


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open()

    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store._read(pragmas) == ["wal", 2, 1]  # 2 is FULL.
    await store.close()


async def test_a_newer_layout_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreVersionError, match=r"layout 99.*upgrade"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"these are not the rows you are looking for " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreFileError, match="restore it from a backup") as caught:
        await SqliteStore(path).open()
    assert str(path) in caught.value.message
    assert path.read_bytes() == before


async def test_a_damaged_file_is_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await filled(path)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreFileError, match="damaged"):
        await SqliteStore(path).open()


async def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreFileError, match="another program"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_path_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "jobs.db"):
        with pytest.raises(StoreFileError, match="cannot be opened"):
            await SqliteStore(path).open()


async def test_a_lock_held_too_long_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await filled(path)
    store = SqliteStore(path, busy_timeout_s=0.05)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(UnavailableError, match="locked"):
        await store.insert_cluster(cluster(2))
    assert (await store.list_clusters(ClusterQuery(NAMESPACE))).total == 1  # Reading goes on.
    other.execute("ROLLBACK")
    other.close()
    await store.insert_cluster(cluster(2))
    await store.close()


async def test_a_removed_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await filled(path)
    store = SqliteStore(path)
    await store.open()
    path.unlink()
    with pytest.raises(UnavailableError, match="removed"):
        await store.ping()
    await store.close()


async def test_a_foreign_document_is_told_and_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    await filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE clusters SET document = '{\"a\": 1}'")
    connection.close()
    store = SqliteStore(path)
    await store.open()
    await store.insert_cluster(cluster(2))

    with pytest.raises(UnreadableRecordError, match="clust_1"):
        await store.get_cluster(NAMESPACE, "clust_1")
    page = await store.list_clusters(ClusterQuery(NAMESPACE))
    assert [record.cluster_id for record in page.records] == ["clust_2"]
    assert "clust_1" in caplog.text
    await store.close()
