"""A connection to a Dask scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from dask.distributed import Client, LocalCluster
from distributed.versions import VersionMismatchWarning

CONNECT_TIMEOUT_S = 5
"""How long a scheduler gets to answer."""

Hear = Callable[[tuple[float, Any]], None]
"""Takes an event of a topic: when it was logged, and what."""


async def connect(to: LocalCluster | str) -> Client:
    """Connect to a scheduler, or raise what kept it from answering."""
    with warnings.catch_warnings():  # We compare versions ourselves, and in words.
        warnings.simplefilter("ignore", VersionMismatchWarning)
        client = Client(to, asynchronous=True, set_as_default=False, timeout=CONNECT_TIMEOUT_S)
        try:
            await client
        except BaseException:
            await disconnect(client)
            raise
    return client


async def disconnect(client: Client) -> None:
    """Leave a scheduler, which may be away."""
    await client.close(timeout=CONNECT_TIMEOUT_S)
