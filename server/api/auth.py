"""Who calls, and whether they may: the credentials of a call, and the role each RPC needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from server.api.logins import FailedLogins
from server.errors import UnauthenticatedError
from server.jobs.model import Role
from server.metrics import Metrics
from server.tenancy import Caller, Tenancy

_CLUSTERS = "/clusters.v1.ClusterService/"
_TASKS = "/clusters.v1.TaskService/"

ROLE_OF: dict[str, Role] = {
    f"{_CLUSTERS}CreateCluster": "write",
    f"{_CLUSTERS}GetCluster": "read",
    f"{_CLUSTERS}ListClusters": "read",
    f"{_CLUSTERS}PatchCluster": "write",
    f"{_CLUSTERS}DeleteCluster": "write",
    f"{_CLUSTERS}ExecuteCluster": "write",
    f"{_CLUSTERS}GetLatestExecution": "read",
    f"{_CLUSTERS}GetExecution": "read",
    f"{_CLUSTERS}ListExecutions": "read",
    f"{_CLUSTERS}CancelExecution": "write",
    f"{_CLUSTERS}PatchExecutionLabels": "write",
    f"{_CLUSTERS}ListGroups": "read",
    f"{_CLUSTERS}ListMembers": "read",
    f"{_CLUSTERS}GetVisualization": "read",
    f"{_CLUSTERS}ExportExecution": "read",
    f"{_CLUSTERS}WatchExecution": "read",
    f"{_CLUSTERS}EnrichCollection": "write",
    f"{_TASKS}GetTask": "read",
    f"{_TASKS}ListTasks": "read",
    f"{_TASKS}KillTask": "write",
}
"""The role that each RPC needs. An RPC without a row is refused, and fails a test."""

OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.", "/envoy.service.auth.")
"""Services that need no key: probes and tools call them before they have one, and the gateway
asks about a caller whose key is part of the question."""

SHARED_S = 1.0
"""How old the answer to another stream's question may be."""

_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Give the caller of the RPC that this task serves."""
    return _caller.get()


def is_open(method: str) -> bool:
    """Whether an RPC (``/package.Service/Method``) may be called without a key."""
    return method.startswith(OPEN_SERVICES)


@dataclass(frozen=True)
class Credentials:
    """What a call shows of its caller: the key, the namespace it names, and its address."""

    key: str | None = field(repr=False)
    namespace: str | None
    peer: str

    @classmethod
    def of(cls, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> Credentials:
        """Read them from a call's headers."""
        headers = {name.lower(): value for name, value in metadata if isinstance(value, str)}
        return cls(_bearer(headers.get("authorization", "")), headers.get("x-namespace"), peer)


class Gate:
    """Lets calls in: by key, namespace and role, and no peer that tries keys all day."""

    def __init__(
        self,
        tenancy: Tenancy,
        logins: FailedLogins | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._tenancy = tenancy
        self._logins = logins or FailedLogins()
        self._metrics = metrics or Metrics()
        self._asked: dict[tuple[str | None, str | None], tuple[float, asyncio.Task[Caller]]] = {}

    async def admit(self, method: str, credentials: Credentials) -> Caller:
        """Authenticate a call, check its role, and make it the task's current caller.

        Raises
        ------
        UnauthenticatedError, ForbiddenError
            If the key, its namespace or its role does not allow the call.
        TooManyFailedLoginsError
            If the caller's address sent too many wrong keys.
        """
        caller = await self.check(method, credentials)
        # Each RPC is served in a task of its own, so nothing needs to be put back afterwards.
        _caller.set(caller)
        return caller

    async def check(self, method: str, credentials: Credentials) -> Caller:
        """Find out who calls and whether they may, now."""
        caller = await self._authenticate(credentials)
        caller.require(ROLE_OF[method])
        return caller

    async def check_again(self, method: str, credentials: Credentials) -> Caller:
        """Do as `check` for a stream that is open: those of one key share an answer for a while.

        A thousand watchers would else look their one key up a thousand times.
        """
        question, now_s = (credentials.key, credentials.namespace), time.monotonic()
        self._asked = {q: a for q, a in self._asked.items() if now_s - a[0] < SHARED_S}
        if question not in self._asked:
            asking = asyncio.create_task(self._authenticate(credentials))
            asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            self._asked[question] = now_s, asking
        # One stream's end is not that of the question.
        caller = await asyncio.shield(self._asked[question][1])
        caller.require(ROLE_OF[method])
        return caller

    async def _authenticate(self, credentials: Credentials) -> Caller:
        key = credentials.key
        if key is not None:
            self._logins.check(credentials.peer, key)
        try:
            caller = await self._tenancy.authenticate(key, credentials.namespace)
        except UnauthenticatedError:
            self._metrics.failed_logins.inc()
            if key is not None:
                self._logins.failed(credentials.peer)
            raise
        if key is not None:
            self._logins.succeeded(key)
        return caller


def _bearer(header: str) -> str | None:
    """Take the key out of ``Bearer sk_…``; another scheme is as good as no key."""
    scheme, _, key = header.partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None
