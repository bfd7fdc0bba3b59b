"""Replies kept by content, so that a run over unchanged groups asks no model again.

One file for each reply, named by the hash of all that the reply depends on. Files appear
whole (written aside, then renamed), so processes may share a folder. A file's modification
time is when it expires: sweeping reads no contents. The cache is a convenience: whatever is
wrong with it is logged, and the model is asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from server.labeling.replies import Reply, Wanted, parse_reply

_SUFFIX: Final = ".json"
_TEMPORARY: Final = ".tmp"
_ABANDONED_AFTER_S: Final = 3600.0
_log = logging.getLogger(__name__)


def content_key(content: Mapping[str, Any]) -> str:
    """Hash what a reply depends on; equal contents give equal keys on any machine."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class LabelCache:
    """The replies under one folder.

    Parameters
    ----------
    folder : path
        Made when the first reply is kept. Give each namespace its own.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def get(self, key: str, wanted: Wanted, ttl_seconds: float) -> Reply | None:
        """Find a reply that is no older than `ttl_seconds`, and that still passes all checks."""
        path = self._path(key)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            age_s = time.time() - float(stored["stored_at"])
            reply = parse_reply(json.dumps(stored["reply"]), wanted)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("label cache: %s is ignored: %s: %s", path, type(error).__name__, error)
            return None
        if not isinstance(reply, Reply):
            _log.warning("label cache: %s is ignored: %s", path, reply.why)
            return None
        return reply if 0 <= age_s < ttl_seconds else None

    def put(self, key: str, reply: Reply, ttl_seconds: float) -> None:
        """Keep a reply for `ttl_seconds`."""
        path = self._path(key)
        now = time.time()
        kept = {"stored_at": now, "reply": reply.to_json()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=path.parent, suffix=_TEMPORARY)
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.utime(aside, (now, now + ttl_seconds))
            os.replace(aside, path)
        except OSError as error:
            _log.warning("label cache: %s could not be kept: %s", path, error)

    def sweep(self) -> int:
        """Delete what has expired, and what a killed process left half written; give how many."""
        now = time.time()
        n_deleted = 0
        for path in self._folder.glob("*/*"):
            slack_s = _ABANDONED_AFTER_S if path.suffix == _TEMPORARY else 0.0
            try:
                if path.suffix in (_SUFFIX, _TEMPORARY) and path.stat().st_mtime + slack_s < now:
                    path.unlink()
                    n_deleted += 1
            except FileNotFoundError:  # Another process swept it.
                continue
            except OSError as error:
                _log.warning("label cache: %s could not be swept: %s", path, error)
        return n_deleted

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{_SUFFIX}"
