"""One collection on disk: its metadata file and its Edge shard, opened on demand.

An open shard costs about eight threads and its memory, so shards are opened by their
first use and closed when nobody has used them for a while. A shard is a folder:

    <uuid>/collection.json   name and settings, a CreateCollection message
    <uuid>/shard/            Edge's own files

Edge keeps the interpreter lock during its calls, so a long native call stops this
process; large writes are therefore cut into pieces by the callers.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import json_format
from qdrant_client import grpc as pb
from qdrant_edge import EdgeShard

from server.qdrant.embedded.convert import edge_config
from server.qdrant.embedded.errors import missing_collection

log = logging.getLogger(__name__)

METADATA_FILE = "collection.json"
SHARD_FOLDER = "shard"


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old or the new text, never a part."""
    staged = path.with_name(path.name + ".new")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Collection:
    """A collection: settings, and a shard that is open only while it is used.

    Attributes
    ----------
    config : CreateCollection
        Settings as created, with later updates merged in. Replaced, never changed.
    write_lock : threading.Lock
        Held during a write, so that the operations of one batch stay together.
    """

    def __init__(self, folder: Path, config: pb.CreateCollection) -> None:
        self.folder = folder
        self.config = config
        self.write_lock = threading.Lock()
        self._state = threading.Condition()
        self._shard: EdgeShard | None = None
        self._users = 0
        self._last_use_s = 0.0
        self._is_dirty = False
        self._is_dropped = False

    @classmethod
    def create(cls, folder: Path, config: pb.CreateCollection) -> Collection:
        """Make the folder, the metadata and an empty shard. The folder must not exist."""
        staged = folder.with_name(f".new-{folder.name}")
        try:
            (staged / SHARD_FOLDER).mkdir(parents=True)
            EdgeShard.create(str(staged / SHARD_FOLDER), edge_config(config)).close()
            write_atomically(staged / METADATA_FILE, json_format.MessageToJson(config))
            staged.rename(folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        sync_folder(folder.parent)
        return cls(folder, config)

    @classmethod
    def load(cls, folder: Path) -> Collection:
        """Read the metadata of an existing collection; its shard stays closed."""
        text = (folder / METADATA_FILE).read_text(encoding="utf-8")
        return cls(folder, json_format.ParseDict(json.loads(text), pb.CreateCollection()))

    @property
    def name(self) -> str:
        """The collection's own name, never an alias."""
        return self.config.collection_name

    def reconfigure(self, config: pb.CreateCollection) -> None:
        """Store new settings."""
        write_atomically(self.folder / METADATA_FILE, json_format.MessageToJson(config))
        self.config = config

    @contextmanager
    def shard(self, *, is_write: bool = False) -> Iterator[EdgeShard]:
        """Lend the shard, opening it if needed; it cannot be closed meanwhile."""
        with self._state:
            if self._is_dropped:
                raise missing_collection(self.name)
            if self._shard is None:
                self._shard = EdgeShard.load(str(self.folder / SHARD_FOLDER))
            shard = self._shard
            self._users += 1
            self._is_dirty |= is_write
        try:
            yield shard
        finally:
            with self._state:
                self._users -= 1
                self._is_dirty |= is_write
                self._last_use_s = time.monotonic()
                self._state.notify_all()

    @property
    def last_use_s(self) -> float:
        """When the last call ended, by the monotonic clock."""
        return self._last_use_s

    @property
    def is_open(self) -> bool:
        """Whether the shard holds threads and memory now."""
        return self._shard is not None

    def flush(self) -> None:
        """Write what is pending through to the disk, so that it survives a power loss."""
        with self._state:
            if self._shard is None or not self._is_dirty:
                return
            self._is_dirty = False
            self._users += 1
            shard = self._shard
        try:
            shard.flush()
        finally:
            with self._state:
                self._users -= 1
                self._state.notify_all()

    def close_if_idle(self, idle_s: float) -> bool:
        """Close the shard when nobody uses it and its last use is `idle_s` seconds ago."""
        with self._state:
            is_idle = time.monotonic() - self._last_use_s >= idle_s
            if self._shard is None or self._users or not is_idle:
                return False
            self._close()
            return True

    def close(self) -> None:
        """Wait for the calls in progress, then flush and close the shard."""
        with self._state:
            self._state.wait_for(lambda: self._users == 0)
            self._close()

    def drop(self, unlist: Callable[[], None]) -> None:
        """Refuse new calls, wait for those in progress, close, unlist, delete the files."""
        with self._state:
            self._is_dropped = True
            self._state.wait_for(lambda: self._users == 0)
            self._close()
            unlist()
        doomed = self.folder.with_name(f".del-{self.folder.name}")
        self.folder.rename(doomed)
        sync_folder(doomed.parent)
        shutil.rmtree(doomed)

    def _close(self) -> None:
        if self._shard is None:
            return
        if self._is_dirty:
            self._shard.flush()
            self._is_dirty = False
        self._shard.close()
        self._shard = None


class IdleCloser:
    """A thread that flushes what was written and closes what is idle, every few seconds."""

    def __init__(
        self,
        collections: Callable[[], list[Collection]],
        *,
        interval_s: float,
        idle_s: float,
        max_open: int,
    ) -> None:
        self._collections = collections
        self._interval_s = interval_s
        self._idle_s = idle_s
        self._max_open = max_open
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="idle-closer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the pass in progress."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            for collection in self._collections():
                try:
                    collection.flush()
                    collection.close_if_idle(self._idle_s)
                except Exception:
                    log.exception("flush of collection %r failed", collection.name)
            self._close_surplus()

    def _close_surplus(self) -> None:
        is_open = sorted((c for c in self._collections() if c.is_open), key=lambda c: c.last_use_s)
        for collection in is_open[: max(0, len(is_open) - self._max_open)]:
            collection.close_if_idle(0.0)
