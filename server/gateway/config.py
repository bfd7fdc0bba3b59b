"""Envoy's configuration, from the one template `envoy.yaml` beside this file."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from server.errors import InvalidRequestError, Violation
from server.gateway.encryption import PLAIN, UpstreamTls

TEMPLATE = Path(__file__).with_name("envoy.yaml")

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest gRPC message that the server takes."""

MAX_BODY_BYTES = MAX_MESSAGE_BYTES - 128 * 1024
"""The largest REST body: with its headers it travels to the server in one message, to be judged."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The largest answer, as protobuf, of a call that is no stream: maps of many points are large."""


@dataclass(frozen=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read ``host:port``, or ``[host]:port`` for IPv6; `name` says whose address it is.

        Raises
        ------
        InvalidRequestError
            If it is none.
        """
        host, _, port = text.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise InvalidRequestError(
                [Violation(name, f"{text!r} is not host:port with a port up to 65535")]
            )
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Gateway:
    """Where a gateway listens and what it stands before.

    Attributes
    ----------
    contract : Path
        The folder with `descriptor_set.binpb` and `openapi.json`, as Envoy will see it.
    tls : UpstreamTls or None
        How the server behind is reached; None: in plain text.
    """

    listen: Address
    upstream: Address
    contract: Path
    tls: UpstreamTls | None = None

    def config(self) -> str:
        """Give Envoy's configuration, in YAML."""
        values = {
            "listen_host": json.dumps(self.listen.host),
            "listen_port": self.listen.port,
            "upstream_host": json.dumps(self.upstream.host),
            "upstream_port": self.upstream.port,
            "upstream_socket": PLAIN if self.tls is None else self.tls.socket(self.upstream.host),
            "descriptor_set": json.dumps(str(self.contract / "descriptor_set.binpb")),
            "openapi": json.dumps(str(self.contract / "openapi.json")),
            "max_body_bytes": MAX_BODY_BYTES,
            "max_message_bytes": MAX_MESSAGE_BYTES,
            "max_answer_bytes": MAX_ANSWER_BYTES,
        }
        return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


IN_CONTAINERS = Gateway(
    listen=Address("0.0.0.0", 8080),
    upstream=Address("shoal", 50051),
    contract=Path("/etc/shoal"),
)
"""What docker/envoy.yaml says."""
