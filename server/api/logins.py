"""How often one peer may try a wrong key, with memory for so many peers and no more.

A key has 256 random bits, so nobody guesses one: the limit keeps a stranger, or a script with
an old key, from filling the log and keeping the store busy. A key that was good here a
while ago is looked up whatever its peer did, because behind a gateway all callers are one
peer; whether it still is good, only the store says.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from server.errors import QuotaError

PEERS_KEPT = 10_000
KEYS_KEPT = 10_000

K = TypeVar("K")
V = TypeVar("V")


class TooManyFailedLoginsError(QuotaError):
    """This peer sent too many wrong keys; wait as long as RetryInfo says."""

    reason = "TOO_MANY_FAILED_LOGINS"


@dataclass
class _Bucket:
    tokens: float
    filled_at_s: float


class FailedLogins:
    """A token bucket for each peer: every wrong key takes one, time gives them back.

    Parameters
    ----------
    per_minute : int
        Wrong keys at once, and again within each minute.
    now_s : callable
        A clock that never goes back, in seconds.
    """

    def __init__(self, per_minute: int = 30, now_s: Callable[[], float] = time.monotonic) -> None:
        self._limit = per_minute
        self._per_s = per_minute / 60
        self._now_s = now_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._good_keys: OrderedDict[bytes, None] = OrderedDict()

    def check(self, peer: str, key: str) -> None:
        """Raise `TooManyFailedLoginsError` if the peer has no try left and the key is not known."""
        bucket = self._bucket(_host(peer))
        if bucket is None or bucket.tokens >= 1 or _digest(key) in self._good_keys:
            return
        raise TooManyFailedLoginsError(
            f"too many calls with a wrong key came from this address; {self._limit} a minute are "
            "let through. Check the key and wait",
            retry_after_s=(1 - bucket.tokens) / self._per_s,
        )

    def failed(self, peer: str) -> None:
        """Note a wrong key."""
        host = _host(peer)
        bucket = self._bucket(host) or _Bucket(float(self._limit), self._now_s())
        bucket.tokens = max(bucket.tokens - 1, 0.0)
        _remember(self._buckets, host, bucket, PEERS_KEPT)

    def succeeded(self, key: str) -> None:
        """Note a good key."""
        _remember(self._good_keys, _digest(key), None, KEYS_KEPT)

    def _bucket(self, host: str) -> _Bucket | None:
        """Give the peer's bucket, filled up to now; None for a peer that did nothing wrong."""
        bucket = self._buckets.get(host)
        if bucket is None:
            return None
        now_s = self._now_s()
        bucket.tokens += (now_s - bucket.filled_at_s) * self._per_s
        bucket.filled_at_s = now_s
        if bucket.tokens >= self._limit:
            del self._buckets[host]
            return None
        return bucket


def _remember(kept: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > limit:
        kept.popitem(last=False)


def _host(peer: str) -> str:
    """Give the address of gRPC's ``ipv4:1.2.3.4:567``; of IPv6 the network, which is one site's."""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind != "ipv6":
        return kind
    address = ipaddress.IPv6Address(rest.partition("]")[0].lstrip("[").partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
