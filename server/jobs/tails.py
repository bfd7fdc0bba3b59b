"""The newest events of one run, and its record, shared by all who watch it on this server.

A thousand watchers of a run would read each event and each change of the record a thousand
times; so what is stored here, or found once by looking, is kept for a while. It is only ever
a shortcut: who is too far behind reads the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import islice

from server.jobs.model import ClusterRecord, EventRecord

KEPT = 256
"""Events of a run that are kept; a watcher further behind reads the store."""

WOKEN_AT_ONCE = 16
"""Watchers whose turn comes together: a thousand at once would keep every call waiting."""


class Tail:
    """A run's last events without a gap, and the bells of its watchers.

    Parameters
    ----------
    cluster_id : str
        The cluster that the run belongs to.

    Attributes
    ----------
    last : int or None
        The highest sequence that is known to be stored; None until somebody has looked.
    changes : int
        Grows when the run's record may have changed without an event.
    """

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.last: int | None = None
        self.changes = 0
        self._cluster: tuple[int, ClusterRecord] | None = None
        self._reading = asyncio.Lock()
        self._recent: deque[EventRecord] = deque(maxlen=KEPT)
        self._bells: set[asyncio.Event] = set()

    @property
    def is_watched(self) -> bool:
        """Whether anybody is here."""
        return bool(self._bells)

    def begin(self, last: int) -> None:
        """Take note of the highest stored sequence, where none is known yet."""
        if self.last is None:
            self.last = last
            self._ring()

    def add(self, event: EventRecord) -> None:
        """Take a stored event and wake the watchers; an old one is not taken."""
        if self.last is not None and event.sequence <= self.last:
            return
        if self.last is not None and event.sequence > self.last + 1:
            self._recent.clear()  # Others told something in between, which the store has.
        self.last = event.sequence
        self._recent.append(event)
        self._ring()

    def changed(self) -> None:
        """Wake the watchers to look at the record."""
        self.changes += 1
        self._ring()

    def found(self, revision: int | None) -> None:
        """Take note of the stored revision of the record, None for one that is deleted."""
        if self._cluster is not None and self._cluster[1].revision != revision:
            self.changed()

    async def cluster(self, read: Callable[[], Awaitable[ClusterRecord]]) -> ClusterRecord:
        """Give the record, read anew by the first who asks after a change."""
        async with self._reading:
            changes = self.changes  # A change while it is read makes what was read old.
            if self._cluster is None or self._cluster[0] != changes:
                self._cluster = changes, await read()
            return self._cluster[1]

    def after(self, sequence: int) -> list[EventRecord] | None:
        """Give the events after a sequence; None where only the store can tell."""
        if self.last is None:
            return None
        if sequence >= self.last:
            return []
        if self._recent and self._recent[0].sequence <= sequence + 1:
            return [event for event in self._recent if event.sequence > sequence]
        return None

    @contextmanager
    def bell(self) -> Iterator[asyncio.Event]:
        """Give one watcher its own bell, so that no other can silence it."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    def _ring(self) -> None:
        self._ring_some(iter(list(self._bells)))

    def _ring_some(self, bells: Iterator[asyncio.Event]) -> None:
        """Wake a few watchers now, and the others behind what else the loop has to do."""
        some = list(islice(bells, WOKEN_AT_ONCE))
        for bell in some:
            bell.set()
        if some:
            asyncio.get_running_loop().call_soon(self._ring_some, bells)
