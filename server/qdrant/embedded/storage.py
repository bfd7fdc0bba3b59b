"""All collections of one data directory, their aliases, and the lock on it.

    <root>/lock                 held (flock) by the one process that owns the storage
    <root>/aliases.json         alias to collection name
    <root>/collections/<uuid>/  one folder per collection, see `shards`

Listings are plain dicts that are replaced, never changed, so readers need no lock and an
alias switch of many actions is seen whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

from qdrant_client import grpc as pb

from server.qdrant.embedded.errors import (
    BadRequestError,
    MissingError,
    TakenError,
    missing_collection,
)
from server.qdrant.embedded.shards import Collection, IdleCloser, sync_folder, write_atomically
from server.qdrant.errors import StorageLockedError

MAX_NAME_LENGTH = 255
_FORBIDDEN_IN_NAMES = frozenset('<>:"/\\|?*\0\x1f')


class Storage:
    """Collections and aliases under one folder, owned by one process.

    Parameters
    ----------
    root : Path
        Made if missing.
    interval_s, idle_s : float
        Seconds between two flushes, and until an unused shard is closed.
    max_open : int
        Shards above this number are closed as soon as nobody uses them.

    Raises
    ------
    StorageLockedError
        If another process owns the folder.
    """

    def __init__(
        self, root: Path, *, interval_s: float = 5.0, idle_s: float = 60.0, max_open: int = 32
    ) -> None:
        self.root = root
        self._folder = root / "collections"
        self._alias_file = root / "aliases.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_descriptor = _lock(root)
        self._change = threading.RLock()
        self._sweep()
        loaded = [Collection.load(f) for f in self._folder.iterdir() if f.is_dir()]
        self._collections = {c.name: c for c in loaded}
        self._aliases = self._load_aliases()
        self._closer = IdleCloser(
            lambda: list(self._collections.values()),
            interval_s=interval_s,
            idle_s=idle_s,
            max_open=max_open,
        )
        self._closer.start()

    def _sweep(self) -> None:
        # What a crash left: folders that were never listed, or no longer are.
        for prefix in (".new-*", ".del-*"):
            for leftover in self._folder.glob(prefix):
                shutil.rmtree(leftover)

    def _load_aliases(self) -> dict[str, str]:
        if not self._alias_file.exists():
            return {}
        stored: dict[str, str] = json.loads(self._alias_file.read_text(encoding="utf-8"))
        # A crash between the two steps of a delete leaves aliases without a collection.
        return {alias: name for alias, name in stored.items() if name in self._collections}

    def names(self) -> list[str]:
        """Names of all collections, sorted; no aliases."""
        return sorted(self._collections)

    def aliases(self) -> dict[str, str]:
        """Alias to collection name. Not to be changed."""
        return self._aliases

    def find(self, name: str) -> Collection:
        """The collection of that name or alias; MissingError if there is none."""
        collection = self._collections.get(self._aliases.get(name, name))
        if collection is None:
            raise missing_collection(name)
        return collection

    def exists(self, name: str) -> bool:
        """Whether a collection or an alias has that name."""
        return self._aliases.get(name, name) in self._collections

    def create(self, config: pb.CreateCollection) -> Collection:
        """Make an empty collection. TakenError if its name is a collection's or an alias."""
        name = config.collection_name
        _check_name(name)
        with self._change:
            if name in self._collections:
                raise TakenError(f"Wrong input: Collection `{name}` already exists!")
            if name in self._aliases:
                raise TakenError(
                    f"Wrong input: Can't create collection with name {name}. "
                    "Alias with the same name already exists"
                )
            collection = Collection.create(self._folder / uuid.uuid4().hex, config)
            self._collections = {**self._collections, name: collection}
            return collection

    def delete(self, name: str) -> bool:
        """Delete a collection and its aliases. False if there is none of that name."""
        with self._change:
            collection = self._collections.get(name)
            if collection is None:
                return False

            def unlist() -> None:
                self._collections = {k: c for k, c in self._collections.items() if k != name}
                self._store_aliases({a: c for a, c in self._aliases.items() if c != name})

            collection.drop(unlist)
            return True

    def change_aliases(self, actions: Sequence[pb.AliasOperations]) -> None:
        """Apply all actions in one step, or none if one of them is wrong."""
        with self._change:
            changed = dict(self._aliases)
            for action in actions:
                self._change_alias(changed, action)
            # Whoever switches an alias to a collection takes its points for safe.
            for name in set(changed.values()) - set(self._aliases.values()):
                self._collections[name].flush()
            self._store_aliases(changed)

    def _change_alias(self, aliases: dict[str, str], action: pb.AliasOperations) -> None:
        kind = action.WhichOneof("action")
        if kind == "create_alias":
            alias, target = action.create_alias.alias_name, action.create_alias.collection_name
            if target not in self._collections:
                raise missing_collection(target)
            self._check_alias_name(alias)
            aliases[alias] = target
        elif kind == "rename_alias":
            old, new = action.rename_alias.old_alias_name, action.rename_alias.new_alias_name
            if old not in aliases:
                raise MissingError(f"Not found: Alias {old} does not exists!")
            self._check_alias_name(new)
            aliases[new] = aliases.pop(old)
        elif kind == "delete_alias":
            # Qdrant, too, lets a missing alias pass.
            aliases.pop(action.delete_alias.alias_name, None)
        else:
            raise BadRequestError("Wrong input: an alias action is empty")

    def _check_alias_name(self, alias: str) -> None:
        _check_name(alias)
        if alias in self._collections:
            raise TakenError(f"Wrong input: Collection `{alias}` already exists!")

    def _store_aliases(self, aliases: dict[str, str]) -> None:
        if aliases == self._aliases:
            return
        write_atomically(self._alias_file, json.dumps(aliases, indent=1, sort_keys=True))
        self._aliases = aliases

    def close(self) -> None:
        """Flush and close every shard and give the lock back."""
        self._closer.stop()
        with self._change:
            for collection in self._collections.values():
                collection.close()
        os.close(self._lock_descriptor)


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME_LENGTH:
        raise BadRequestError(
            f"Wrong input: a name has 1 to {MAX_NAME_LENGTH} characters, got {len(name)}"
        )
    wrong = sorted(set(name) & _FORBIDDEN_IN_NAMES)
    if wrong:
        raise BadRequestError(f"Wrong input: name {name!r} contains {wrong}, which is not allowed")


def _lock(root: Path) -> int:
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageLockedError(
            f"the embedded Qdrant storage {str(root)!r} is in use by process {owner}; "
            "only one process may hold it: connect to that one or stop it",
            owner_pid=owner,
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    sync_folder(root)
    return descriptor
