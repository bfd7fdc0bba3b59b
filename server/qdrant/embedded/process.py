"""The embedded Qdrant as a child process: starting, finding and stopping it.

The child writes `<data_dir>/qdrant/address.json` (readable by its user only) once it
answers. Whoever has the data directory can then find it; its random key keeps other
users of the machine out. The child ends with its parent: it watches its standard input,
whose other end only the parent holds.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from qdrant_client import grpc as pb

import server
from server.qdrant.client import QdrantAddress, channel
from server.qdrant.errors import EmbeddedStartError, StorageLockedError

FOLDER = "qdrant"
ADDRESS_FILE = "address.json"
LOG_FILE = "server.log"
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
    process : subprocess.Popen or None
        The child; None when another process's server was found and is only used.
    """

    address: QdrantAddress
    process: subprocess.Popen[str] | None

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
        """End the child after its calls in progress; nothing to do for a found one."""
        if self.process is None or self.process.stdin is None:
            return
        self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

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
    child = EmbeddedQdrant(QdrantAddress("127.0.0.1", port), process)
    try:
        child.address = _first_words(process, timeout_s, root / LOG_FILE)
    except BaseException:
        child.stop()
        raise
    return child


def attach_or_start(data_dir: Path | str, *, timeout_s: float = START_TIMEOUT_S) -> EmbeddedQdrant:
    """Use the embedded Qdrant that another process runs on `data_dir`, or start one.

    Raises
    ------
    StorageLockedError
        If a process holds the storage but does not answer within `timeout_s` seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        address = read_address(data_dir)
        if address is not None and answers(address):
            return EmbeddedQdrant(address, None)
        try:
            return start_embedded(data_dir, timeout_s=timeout_s)
        except StorageLockedError:
            # Its owner may be starting or stopping just now.
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(0.1)


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
