"""The child process: ``python -m server.qdrant.embedded --data-dir DIR``.

Says one line of JSON on standard output, its address or why it cannot start, and ends on
SIGTERM, SIGINT or, with ``--with-parent``, when its standard input is closed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from server.qdrant.client import QdrantAddress
from server.qdrant.embedded.process import ADDRESS_FILE, FOLDER, wait_for_users, write_address
from server.qdrant.embedded.services import serve
from server.qdrant.embedded.storage import Storage
from server.qdrant.errors import StorageLockedError

HOST = "127.0.0.1"
GRACE_S = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; the exit status is 0 unless the start failed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    root = Path(options.data_dir) / FOLDER
    try:
        storage = Storage(root, idle_s=options.idle_s)
    except StorageLockedError as error:
        _say({"locked": error.message})
        return 3
    try:
        key = secrets.token_urlsafe(32)
        server, port = serve(storage, host=HOST, port=options.port, api_key=key)
        address = QdrantAddress(host=HOST, grpc_port=port, api_key=key)
        write_address(root, address)
        _say({"address": asdict(address)})
        if options.with_parent:
            threading.Thread(target=_watch_parent, args=(stop, root), daemon=True).start()
        stop.wait()
        (root / ADDRESS_FILE).unlink(missing_ok=True)
        server.stop(GRACE_S).wait()
    except OSError as error:
        _say({"error": str(error)})
        return 1
    finally:
        storage.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m server.qdrant.embedded")
    parser.add_argument("--data-dir", required=True, help="the folder above qdrant/")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    parser.add_argument("--idle-s", type=float, default=60.0, help="close shards unused so long")
    parser.add_argument(
        "--with-parent", action="store_true", help="end when standard input is closed"
    )
    return parser


def _say(words: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _watch_parent(stop: threading.Event, root: Path) -> None:
    # A raw read: Python's own stdin would hold a lock that blocks interpreter exit.
    while os.read(0, 4096):
        pass
    wait_for_users(root)
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
