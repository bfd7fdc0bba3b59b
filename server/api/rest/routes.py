"""Which RPC a REST request means: the paths that stand beside the RPCs in the protos.

Paths are matched as the gateway's transcoder does it, so that what is judged here is the
call that will be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clusters.v1 import cluster_service_pb2, task_service_pb2
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from server.errors import NotFoundError, ShoalError

_VERBS = ("get", "put", "post", "delete", "patch")


class RouteNotFoundError(NotFoundError):
    """No call has this path."""

    reason = "ROUTE_NOT_FOUND"

    def __init__(self, path: str) -> None:
        super().__init__("route", path, "docs/openapi.json lists those there are")


class MethodNotAllowedError(ShoalError):
    """The path has other methods than the one that was sent; `allow` lists them."""

    reason = "METHOD_NOT_ALLOWED"


@dataclass(frozen=True)
class Route:
    """A method and a path that stand for an RPC.

    Attributes
    ----------
    rpc : str
        ``/package.Service/Method``.
    segments : tuple of str
        Of the path; ``{name}`` takes any text for that field of the request.
    request : Descriptor
        Of the RPC's request message.
    has_body : bool
        Whether the body is the request (less the fields in the path); else it has no body.
    """

    rpc: str
    verb: str
    segments: tuple[str, ...]
    request: Descriptor
    has_body: bool

    @property
    def bound(self) -> frozenset[str]:
        """The request's fields that the path holds."""
        return frozenset(part[1:-1] for part in self.segments if part.startswith("{"))

    def matches(self, segments: Sequence[str]) -> bool:
        """Whether a request's path, as sent, is one of this route's."""
        return len(segments) == len(self.segments) and all(
            bool(sent) if own.startswith("{") else sent == own
            for own, sent in zip(self.segments, segments, strict=True)
        )


class Routes:
    """All routes of the service."""

    def __init__(self) -> None:
        services = (
            *cluster_service_pb2.DESCRIPTOR.services_by_name.values(),
            *task_service_pb2.DESCRIPTOR.services_by_name.values(),
        )
        found = [
            route
            for service in services
            for method in service.methods
            for route in _routes_of(method)
        ]
        # Where two fit, the one with fewer variables is meant: /v1/clusters/list.
        self._routes = sorted(found, key=lambda route: len(route.bound))

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, verb: str, path: str) -> Route:
        """Give the route of a request.

        Parameters
        ----------
        path : str
            As sent, without its query.

        Raises
        ------
        RouteNotFoundError, MethodNotAllowedError
            If no call has the path, or those that have it have other methods.
        """
        segments = path.removeprefix("/").split("/")
        fitting = [route for route in self._routes if route.matches(segments)]
        for route in fitting:
            if route.verb == verb:
                return route
        if not fitting:
            raise RouteNotFoundError(path)
        allow = ", ".join(sorted({route.verb for route in fitting}))
        raise MethodNotAllowedError(f"{verb} {path}: allowed are {allow}", allow=allow)


def _routes_of(method: MethodDescriptor) -> Iterator[Route]:
    options: MethodOptions = method.GetOptions()
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb not in _VERBS or each.body not in ("", "*"):
            raise NotImplementedError(f"{method.full_name}: no such path is known here")
        yield Route(
            rpc=f"/{method.containing_service.full_name}/{method.name}",
            verb=verb.upper(),
            segments=tuple(getattr(each, verb).removeprefix("/").split("/")),
            request=method.input_type,
            has_body=each.body == "*",
        )
