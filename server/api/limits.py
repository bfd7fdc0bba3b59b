"""The window of a list call: how many rows, from where on; checked, and turned into a cursor.

A cursor is opaque to callers. It names the place after the last row given and the query it
belongs to, and carries a checksum: what was changed on the way is refused, not guessed at.
It is no secret and grants nothing, since every query is scoped to the caller's namespace.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from server.errors import InvalidRequestError, Violation

DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000
MAX_OFFSET = 1_000_000
MAX_SEARCH_CHARACTERS = 256
MAX_RANK = 2**32 - 1
"""Ranks travel as uint32."""

_CHECKSUM_BYTES = 8


class ListRequest(Protocol):
    """What every list request declares; all but `offset` have presence."""

    @property
    def limit(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def page(self) -> int: ...
    @property
    def cursor(self) -> str: ...
    @property
    def search(self) -> str: ...
    @property
    def include_total(self) -> bool: ...

    def HasField(self, field_name: Any, /) -> bool:
        """Whether a field with presence was sent."""


@dataclass(frozen=True)
class Window:
    """Part of a list.

    Attributes
    ----------
    limit, offset : int
        Rows at most, and rows before the first one.
    after : str or None
        Id of the row before the first one, when a cursor named it.
    query : str
        Fingerprint of the filter and order, which a cursor must agree with.
    """

    limit: int
    offset: int
    after: str | None
    query: str

    @property
    def page(self) -> int:
        """The page this window starts on, from 1."""
        return self.offset // self.limit + 1

    def cursor_after(self, n_rows: int, last_id: str) -> str:
        """Make the cursor for the rows after this window's `n_rows`."""
        return _encode({"o": self.offset + n_rows, "a": last_id, "q": self.query})


def window_of(request: ListRequest, *, query: dict[str, Any]) -> Window:
    """Check a list request's paging fields; limit wins over page_size, cursor over page and offset.

    Parameters
    ----------
    query : dict
        Filter and order, as JSON: a cursor is good for the same query (and search) only.

    Raises
    ------
    InvalidRequestError
        With every fault of the paging fields.
    """
    violations: list[Violation] = []
    limit = _limit(request, violations)
    if len(request.search) > MAX_SEARCH_CHARACTERS:
        violations.append(Violation("search", f"longer than {MAX_SEARCH_CHARACTERS} characters"))
    text = json.dumps({**query, "search": request.search}, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    offset, after = _start(request, limit, fingerprint, violations)
    if violations:
        raise InvalidRequestError(violations)
    return Window(limit, offset, after, fingerprint)


@dataclass(frozen=True)
class MemberWindow:
    """Part of a group's members.

    Attributes
    ----------
    after_rank : int
        Rank of the last member that the caller has seen; 0 before the first.
    offset : int
        Members to skip after that.
    limit : int or None
        Members at most; None gives all.
    """

    after_rank: int
    offset: int
    limit: int | None


def member_window_of(request: ListRequest) -> MemberWindow:
    """Check the paging fields of a stream, which has no pages unless a limit makes them.

    Raises
    ------
    InvalidRequestError
        With every fault of the paging fields.
    """
    violations: list[Violation] = []
    limit = None
    for name in ("page_size", "limit"):
        if request.HasField(name):
            limit = getattr(request, name)
            if limit == 0:
                violations.append(Violation(name, "sent 0; leave it out to get all members"))
    if request.HasField("page") and request.page == 0:
        violations.append(Violation("page", "sent 0; pages are counted from 1"))
    if request.page and limit is None:
        violations.append(Violation("page", "needs limit or page_size"))
    after_rank, offset = 0, (request.page - 1) * (limit or 0) if request.page else request.offset
    if request.cursor:
        offset = 0
        if request.cursor.isascii() and request.cursor.isdigit():
            after_rank = min(int(request.cursor[:10]), MAX_RANK)
        else:
            violations.append(
                Violation("cursor", f"sent {request.cursor!r}; the rank of a member is allowed")
            )
    if violations:
        raise InvalidRequestError(violations)
    return MemberWindow(after_rank, offset, limit)


def wants_total(request: ListRequest) -> bool:
    """Whether all matches are counted, which is the default."""
    return request.include_total or not request.HasField("include_total")


def _limit(request: ListRequest, violations: list[Violation]) -> int:
    names = [name for name in ("limit", "page_size") if request.HasField(name)]
    for name in names:
        value = getattr(request, name)
        if not 1 <= value <= MAX_LIMIT:
            violations.append(Violation(name, f"sent {value}; 1 to {MAX_LIMIT} are allowed"))
    sent = getattr(request, names[0]) if names else DEFAULT_LIMIT
    return min(max(sent, 1), MAX_LIMIT)


def _start(
    request: ListRequest, limit: int, fingerprint: str, violations: list[Violation]
) -> tuple[int, str | None]:
    if request.HasField("page") and request.page == 0:
        violations.append(Violation("page", "sent 0; pages are counted from 1"))
    if request.cursor:
        try:
            return _read(request.cursor, fingerprint)
        except ValueError as error:
            violations.append(Violation("cursor", str(error)))
            return 0, None
    name = "page" if request.page else "offset"
    offset = (request.page - 1) * limit if request.page else request.offset
    if offset > MAX_OFFSET:
        violations.append(
            Violation(name, f"starts at row {offset}; beyond {MAX_OFFSET} only a cursor goes")
        )
    return offset, None


def _encode(place: dict[str, Any]) -> str:
    text = json.dumps(place, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_checksum(text) + text).decode().rstrip("=")


def _read(cursor: str, query: str) -> tuple[int, str]:
    damaged = ValueError("is not one of this server's cursors; send next_cursor as it was given")
    try:
        raw = base64.b64decode(
            cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise damaged from error
    checksum, text = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    if checksum != _checksum(text):
        raise damaged
    place = json.loads(text)
    if place["q"] != query:
        raise ValueError("belongs to another query; filter, sort and search must stay the same")
    return place["o"], place["a"]


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(b"shoal cursor 1\0" + text).digest()[:_CHECKSUM_BYTES]
