"""The embedded Qdrant as a child process: starting, finding and stopping it.

The child writes `<data_dir>/qdrant/address.json` (readable by its user only) once it
answers. Whoever has the data directory can then find it; its random key keeps other
users of the machine out. The child ends with its parent: it watches its standard input,
whose other end only the parent holds. Processes that attached to it hold a shared lock on
`users.lock` meanwhile, and the child waits for them before it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import grpc
from qdrant_client import grpc as pb

import server
from server.qdrant.client import QdrantAddress, channel
from server.qdrant.errors import EmbeddedStartError, StorageLockedError

FOLDER = "qdrant"
ADDRESS_FILE = "address.json"
LOG_FILE = "server.log"
USERS_FILE = "users.lock"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 2.0


@dataclass
class EmbeddedQdrant:
    """A running embedded Qdrant; also a context manager that stops it.

    Attributes
    ----------
    address : QdrantAddress
        Where it answers, with its key.
    root : Path
        The storage's folder.
    process : subprocess.Popen or None
        The child; None when another process's server was found and is only used.
    user_descriptor : int or None
        Holds the lock that keeps a found server up.
    """

    address: QdrantAddress
    root: Path
    process: subprocess.Popen[str] | None = None
    user_descriptor: int | None = None

    @property
    def is_owned(self) -> bool:
        """Whether `stop` ends it."""
        return self.process is not None

    @property
    def is_alive(self) -> bool:
        """Whether it answers (found) or its process runs (owned)."""
        if self.process is None:
            return answers(self.address)
        return self.process.poll() is None

    def stop(self) -> None:
        """End the child after its calls in progress, or stop using a found one.

        While other processes use the child it is left running, and ends after the last.
        """
        if self.user_descriptor is not None:
            os.close(self.user_descriptor)
            self.user_descriptor = None
        if self.process is None or self.process.stdin is None:
            return
        self.process.stdin.close()
        if _has_users(self.root):
            return
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            if _has_users(self.root):
                return
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_embedded(
    data_dir: Path | str, *, port: int = 0, timeout_s: float = START_TIMEOUT_S
) -> EmbeddedQdrant:
    """Start the embedded Qdrant for a data directory and wait until it answers.

    Blocks for about a second; call it in a thread from a coroutine.

    Raises
    ------
    StorageLockedError
        If another process holds the storage.
    EmbeddedStartError
        If the child ends, or says nothing for `timeout_s` seconds.
    """
    root = Path(data_dir).absolute() / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "server.qdrant.embedded", "--with-parent"]
    command += ["--data-dir", str(root.parent), "--port", str(port)]
    with (root / LOG_FILE).open("a", encoding="utf-8") as log_file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            # `-m` looks in the working directory first: the child runs the same code as
            # its parent, installed or not.
            cwd=Path(server.__file__).parent.parent,
            # Ctrl-C in a terminal is for the parent, which then stops its child in order.
            start_new_session=True,
        )
    try:
        address = _first_words(process, timeout_s, root / LOG_FILE)
    except BaseException:
        process.kill()
        process.wait()
        _close(process.stdin)
        raise
    finally:
        _close(process.stdout)  # It has nothing more to say.
    return EmbeddedQdrant(address, root, process)


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        pipe.close()


def attach_or_start(data_dir: Path | str, *, timeout_s: float = START_TIMEOUT_S) -> EmbeddedQdrant:
    """Use the embedded Qdrant that another process runs on `data_dir`, or start one.

    A found one stays up until `stop`, also when its own parent ends before.

    Raises
    ------
    StorageLockedError
        If a process holds the storage but does not answer within `timeout_s` seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = _attach(Path(data_dir).absolute())
        if found is not None:
            return found
        try:
            return start_embedded(data_dir, timeout_s=timeout_s)
        except StorageLockedError:
            # Its owner may be starting or stopping just now.
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(0.1)


def _attach(data_dir: Path) -> EmbeddedQdrant | None:
    address = read_address(data_dir)
    if address is None:
        return None
    root = data_dir / FOLDER
    descriptor = _users_file(root)
    # Without the lock it is just ending.
    if not _locks(descriptor, fcntl.LOCK_SH) or not answers(address):
        os.close(descriptor)
        return None
    return EmbeddedQdrant(address, root, user_descriptor=descriptor)


def _users_file(root: Path) -> int:
    return os.open(root / USERS_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _has_users(root: Path) -> bool:
    """Whether others are attached. The child itself holds the lock alone while it ends."""
    descriptor = _users_file(root)
    try:
        return not _locks(descriptor, fcntl.LOCK_EX) and _locks(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locks(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_users(root: Path) -> None:
    """Block until nobody is attached, and keep others from attaching until this process ends."""
    fcntl.flock(_users_file(root), fcntl.LOCK_EX)


def read_address(data_dir: Path | str) -> QdrantAddress | None:
    """The address that the last server of a data directory left; it may be gone."""
    try:
        text = (Path(data_dir) / FOLDER / ADDRESS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return QdrantAddress(**json.loads(text))


def write_address(root: Path, address: QdrantAddress) -> None:
    """Leave the address, key included, where only this user can read it."""
    staged = root / f"{ADDRESS_FILE}.new"
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(address), file)
    staged.rename(root / ADDRESS_FILE)


def answers(address: QdrantAddress) -> bool:
    """Whether a Qdrant answers there, with this key."""
    with channel(address) as opened:
        try:
            # Not the health check: a real Qdrant answers that one without a key.
            collections = pb.CollectionsStub(opened)  # type: ignore[no-untyped-call]
            collections.List(
                pb.ListCollectionsRequest(), timeout=_PROBE_TIMEOUT_S, metadata=address.metadata()
            )
        except grpc.RpcError:
            return False
    return True


def _first_words(process: subprocess.Popen[str], timeout_s: float, log_path: Path) -> QdrantAddress:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise EmbeddedStartError(
            f"the embedded Qdrant did not start within {timeout_s:g} s "
            f"(exit status {process.poll()}); see {str(log_path)!r}"
        )
    words = json.loads(line)
    if "locked" in words:
        raise StorageLockedError(words["locked"])
    if "error" in words:
        raise EmbeddedStartError(f"the embedded Qdrant did not start: {words['error']}")
    return QdrantAddress(**words["address"])
