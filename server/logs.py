"""How the service logs: text for people or one JSON object a line, with ids as fields.

What is bound with `bind` (the run, the cluster) stands on every line that is logged in the
same task or thread afterwards, also on lines of libraries. The secrets of the settings are
taken out of every line: ours hold none, but a library may quote an address with its password.
"""

from __future__ import annotations

import json
import logging
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from server import tracing

LogFormat = Literal["text", "json"]

HIDDEN = "[hidden]"

_KEYS = re.compile(r"\bsk_[A-Za-z0-9_-]{20,}")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MIN_SECRET_CHARACTERS = 4

_bound: ContextVar[dict[str, str]] = ContextVar("log_fields", default={})  # noqa: B039  # Never changed.


@dataclass(frozen=True)
class LogSettings:
    """How a process logs; workers get the server's own.

    Attributes
    ----------
    level : str
        Least severity that is logged.
    secrets : tuple of str
        Texts that are replaced wherever they would appear.
    """

    level: str = "INFO"
    format: LogFormat = "text"
    secrets: tuple[str, ...] = field(default=(), repr=False)


def configure(settings: LogSettings) -> None:
    """Let this process log to standard error as the settings say, from now on."""
    handler = _Handler()
    handler.setFormatter(_formatter(settings))
    root = logging.getLogger()
    root.handlers = [*(each for each in root.handlers if not isinstance(each, _Handler)), handler]
    root.setLevel(settings.level)
    quiet_libraries(settings.level)


def quiet_libraries(level: str) -> None:
    """Let libraries that tell of every connection at INFO do so only at DEBUG."""
    if level == "DEBUG":
        return
    least = max(logging.WARNING, logging.getLevelNamesMapping()[level])
    for name in ("distributed", "httpx"):
        logging.getLogger(name).setLevel(least)


def bind(**fields: str) -> None:
    """Put fields on every later line of this task or thread, and of those it starts."""
    _bound.set({**_bound.get(), **fields})


def _formatter(settings: LogSettings) -> logging.Formatter:
    kind = _JsonFormatter if settings.format == "json" else _TextFormatter
    return kind(settings.secrets)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Ours, to be told from handlers of others when it is replaced."""


class _SafeFormatter(logging.Formatter):
    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__(_TEXT)
        # Longest first: one secret may be part of another.
        self._secrets = sorted(
            (secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARACTERS),
            key=len,
            reverse=True,
        )

    def format(self, record: logging.LogRecord) -> str:
        """Give the line without secrets."""
        line = self.line(record)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return _KEYS.sub(HIDDEN, line)

    def line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError


class _TextFormatter(_SafeFormatter):
    def line(self, record: logging.LogRecord) -> str:
        """Give the line, with the bound fields after the message."""
        text = super(_SafeFormatter, self).format(record)
        named = " ".join(f"{name}={value}" for name, value in _bound.get().items())
        first, newline, rest = text.partition("\n")
        return f"{first} [{named}]{newline}{rest}" if named else text


class _JsonFormatter(_SafeFormatter):
    def line(self, record: logging.LogRecord) -> str:
        """Give one JSON object: what every line has, then the fields of this one."""
        body: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_bound.get(),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        extra.setdefault("trace_id", tracing.trace_id_of(tracing.current()))
        body |= {name: value for name, value in extra.items() if value is not None}
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False, default=str)
