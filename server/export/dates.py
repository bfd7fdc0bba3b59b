"""RFC 3339 dates as instants.

Accepted are ``2024-05-01`` (midnight UTC) and ``2024-05-01T12:30:00`` with an optional
fraction and an optional offset (``Z`` or ``+02:00``; none means UTC); a space may stand for
the ``T``. Qdrant reads every one of these, so a date range may be sent to it. Other text,
leap seconds included, is not a date.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?)?"
)
_EPOCH_DAYS = date(1970, 1, 1).toordinal()


@lru_cache(maxsize=65536)
def parse_instant(text: str) -> int | None:
    """Nanoseconds since 1970-01-01T00:00:00Z, finer digits cut off; None if not a date."""
    if not 10 <= len(text) <= 64:
        return None
    parts = _DATE.fullmatch(text)
    if parts is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, off_h, off_m = parts.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAYS
    except ValueError:
        return None
    if hour is None:
        return days * 86_400 * 10**9
    if int(hour) > 23 or int(minute) > 59 or int(second) > 59:
        return None
    seconds = days * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    if sign is not None:
        if int(off_h) > 23 or int(off_m) > 59:
            return None
        offset = int(off_h) * 3600 + int(off_m) * 60
        seconds += offset if sign == "-" else -offset
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0")[:9])


def instant_to_datetime(nanoseconds: int) -> datetime | None:
    """The instant in UTC, cut to whole microseconds; None outside the years 1 to 9999."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
