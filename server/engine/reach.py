"""Whether the workers of a Dask cluster reach what a run needs, tried before any run.

The server writes a small file where artifacts go, and every worker reads it and connects to
Qdrant. So a folder that all machines share passes, and one that only this machine has does not,
whatever its path looks like.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import fsspec

from server.engine.engine import Engine
from server.errors import PreconditionError
from server.qdrant.client import QdrantAddress

CONNECT_TIMEOUT_S = 3.0


class OutOfReachError(PreconditionError):
    """Workers of the Dask cluster do not reach the artifacts or Qdrant."""

    reason = "OUT_OF_REACH"


@dataclass(frozen=True)
class Landmark:
    """What a worker is to find.

    Attributes
    ----------
    artifacts_url : str
        Where artifacts go.
    name, content : str
        A file there.
    qdrant : tuple of str and int, or None
        Host and port.
    """

    artifacts_url: str
    name: str
    content: str
    qdrant: tuple[str, int] | None


async def require_reach(engine: Engine, artifacts_url: str, qdrant: QdrantAddress | None) -> None:
    """Try the way of every worker to the artifacts, and to Qdrant if it is given.

    Raises
    ------
    OutOfReachError
        Naming each worker that does not get there, and what to set.
    """
    token = uuid4().hex
    address = None if qdrant is None else (qdrant.host, qdrant.grpc_port)
    landmark = Landmark(artifacts_url, f".shoal-reach-{token}", token, address)
    await asyncio.to_thread(_set, landmark)
    try:
        answers = await engine.everywhere(find, landmark)
    finally:
        await asyncio.to_thread(_remove, landmark)
    if faults := _told(answers):
        raise OutOfReachError(f"workers of the Dask cluster do not get along: {'; '.join(faults)}")


def find(landmark: Landmark) -> list[str]:
    """Look for a landmark, in a worker; give what is wrong."""
    faults = []
    fs, root = fsspec.url_to_fs(landmark.artifacts_url)
    try:
        found = fs.cat_file(f"{root}/{landmark.name}").decode()
    except OSError as error:
        found = type(error).__name__
    if found != landmark.content:
        faults.append(
            f"what this server writes to {landmark.artifacts_url} is not there ({found}); set "
            "SHOAL_ARTIFACTS_URL to what all machines reach"
        )
    if landmark.qdrant is not None:
        try:
            socket.create_connection(landmark.qdrant, timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            host, port = landmark.qdrant
            faults.append(
                f"Qdrant at {host}:{port} cannot be connected to ({error}); set SHOAL_QDRANT_URL "
                "to what all machines reach"
            )
    return faults


def _told(answers: Mapping[str, list[str] | Exception]) -> list[str]:
    """Say what is wrong, and where; one line for all workers that say the same."""
    of_fault: dict[str, list[str]] = {}
    for worker, answer in answers.items():
        if isinstance(answer, OSError):
            continue  # Gone since it was asked.
        for fault in [repr(answer)] if isinstance(answer, Exception) else answer:
            of_fault.setdefault(fault, []).append(worker)
    return [f"from {', '.join(workers)}: {fault}" for fault, workers in of_fault.items()]


def _set(landmark: Landmark) -> None:
    fs, root = fsspec.url_to_fs(landmark.artifacts_url)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/{landmark.name}", landmark.content.encode())


def _remove(landmark: Landmark) -> None:
    fs, root = fsspec.url_to_fs(landmark.artifacts_url)
    fs.rm_file(f"{root}/{landmark.name}")
