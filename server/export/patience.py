"""Bearing with a Qdrant that is away for a moment, for a bounded time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from server.qdrant.errors import QdrantUnavailableError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long to bear with a Qdrant that is away, and how to wait between tries.

    Attributes
    ----------
    total_s : float
        Seconds from the first failure until it is given up.
    first_wait_s, longest_wait_s : float
        The wait doubles from the first to the longest.
    """

    total_s: float = 30.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0

    def bear(self, attempt: Callable[[], Answer], before_retry: Callable[[], None]) -> Answer:
        """Repeat an attempt while it raises `QdrantUnavailableError`, as long as allowed.

        `before_retry` is called after each wait and may raise to give up early.
        """
        deadline: float | None = None
        wait_s = self.first_wait_s
        while True:
            try:
                return attempt()
            except QdrantUnavailableError:
                now = time.monotonic()
                deadline = now + self.total_s if deadline is None else deadline
                if now >= deadline:
                    raise
            # Jitter, so that workers do not all come back in the same moment.
            time.sleep(min(wait_s * random.uniform(0.5, 1.0), deadline - now))
            wait_s = min(wait_s * 2, self.longest_wait_s)
            before_retry()


DEFAULT_PATIENCE: Final = Patience()
