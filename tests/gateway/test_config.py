"""The one template, and how `shoal gateway` fails when it cannot start."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from shoal_command import ROOT, call_shoal

from server.gateway.__main__ import NOTICE
from server.gateway.config import IN_CONTAINERS, Address, Gateway
from server.gateway.envoy import find, free
from tests.gateway.rest import CONTRACT

GATEWAY = Gateway(Address("::1", 8080), Address("shoal.local", 50051), CONTRACT)


def test_what_containers_run_is_the_template_filled_in() -> None:
    assert (ROOT / "docker/envoy.yaml").read_text() == NOTICE + IN_CONTAINERS.config()


def test_envoy_takes_the_configuration() -> None:
    done = subprocess.run(
        [find(), "--mode", "validate", "--config-yaml", GATEWAY.config()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_nothing_cuts_a_quiet_stream() -> None:
    listener = yaml.safe_load(GATEWAY.config())["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes: list[dict[str, Any]] = manager["route_config"]["virtual_hosts"][0]["routes"]

    assert manager["stream_idle_timeout"] == "0s"
    assert [one["route"]["timeout"] for one in routes if "route" in one] == ["0s", "0s"]


def test_hosts_are_text_whatever_is_in_them() -> None:
    odd = Gateway(Address('a"}: [', 1), Address("${x}", 2), Path('/a "b"'))
    listener = yaml.safe_load(odd.config())["static_resources"]["listeners"][0]

    assert listener["address"]["socket_address"]["address"] == 'a"}: ['


@pytest.mark.parametrize("text", ["8080", ":8080", "host:", "host:x", "host:70000", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    done = call_shoal("gateway", "--listen", text)

    assert done.code == 2
    assert f"'{text}' is not host:port" in done.err


def test_a_taken_port_is_refused() -> None:
    """Also one that is taken by another Envoy, which would share it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = call_shoal("gateway", "--listen", address, "--json")

    assert done.code == 6
    assert '"reason": "GATEWAY_FAILED"' in done.err
    assert f"cannot listen on {address}" in done.err


def test_port_zero_becomes_a_free_one() -> None:
    assert free(Address("127.0.0.1", 0)).port > 0
    assert str(Address.parse("[::1]:80", "listen")) == "[::1]:80"
