"""A run's shared tail: who is woken, and that a crowd of watchers keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from server.jobs.tails import WOKEN_AT_ONCE, Tail


async def test_a_crowd_is_woken_in_turns_with_everything_else() -> None:
    tail = Tail("clust_1")
    turns: list[str] = []

    async def watch(bell: asyncio.Event) -> None:
        await bell.wait()
        turns.append("watcher")

    async def call() -> None:
        """Go on one step at a time, as a call does that waits for the store and the network."""
        for _ in range(5):
            await asyncio.sleep(0)
        turns.append("call")

    with ExitStack() as stack:
        bells = [stack.enter_context(tail.bell()) for _ in range(40 * WOKEN_AT_ONCE)]
        watchers = [asyncio.create_task(watch(bell)) for bell in bells]
        await asyncio.sleep(0)
        tail.changed()
        await asyncio.gather(call(), *watchers)

    assert turns.count("watcher") == len(bells)
    assert turns.index("call") < 10 * WOKEN_AT_ONCE
    assert not tail.is_watched
