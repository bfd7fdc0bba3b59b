"""Watching a run from here: events as they come, over broken connections too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from clusters.v1 import watch_pb2

from server.cli.connection import Connection
from server.cli.faults import CallFailedError
from server.jobs.model import FINAL_STATUSES

RECONNECT_FOR_S = 60.0
"""How long a lost server is looked for before the watch gives up."""
RECONNECT_EVERY_S = 0.5


@dataclass
class Watch:
    """What to watch, and how far it has been seen; `run_id` is filled by the first event."""

    cluster_id: str
    run_id: str | None = None
    seen: int = 0

    @property
    def command(self) -> str:
        """The command that goes on from here."""
        run = f" --run {self.run_id}" if self.run_id else ""
        after = f" --after {self.seen}" if self.seen else ""
        return f"shoal watch {self.cluster_id}{run}{after}"


def follow(connection: Connection, watch: Watch) -> Iterator[watch_pb2.ExecutionEvent]:
    """Give the events of a run up to its final one.

    A stream that breaks is taken up again after the last event seen, so none is lost and
    none comes twice. Heartbeats are not given.

    Raises
    ------
    CallFailedError
        If the server refuses, or stays away for `RECONNECT_FOR_S` seconds.
    """
    gone_since_s: float | None = None
    while True:
        try:
            for event in _stream(connection, watch):
                gone_since_s = None
                if event.heartbeat:
                    continue
                watch.run_id = event.run_id
                watch.seen = event.sequence
                yield event
                if event.status in FINAL_STATUSES:
                    return
        except CallFailedError as error:
            # Before the first event there is nothing to resume: an absent server is news.
            if error.code is not grpc.StatusCode.UNAVAILABLE or watch.run_id is None:
                raise
            gone_since_s = gone_since_s or time.monotonic()
            if time.monotonic() - gone_since_s > RECONNECT_FOR_S:
                error.message += f"; the run goes on by itself, see it with `{watch.command}`"
                raise
        time.sleep(RECONNECT_EVERY_S)


def _stream(connection: Connection, watch: Watch) -> Iterator[watch_pb2.ExecutionEvent]:
    request = watch_pb2.WatchExecutionRequest(
        cluster_id=watch.cluster_id, run_id=watch.run_id, after_sequence=watch.seen
    )
    for event in connection.stream(connection.clusters.WatchExecution, request):
        # A stream that ends before its run says why in an event that is no news of the run;
        # the status that follows says it too.
        if event.error and event.status not in FINAL_STATUSES:
            continue
        yield event
