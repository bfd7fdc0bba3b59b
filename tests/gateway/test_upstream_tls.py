"""A server behind that speaks TLS only, and wants to know who calls."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from certificates import Authority
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from server.gateway.config import Address
from server.gateway.encryption import UpstreamTls
from tests.gateway.rest import envoy, until_ready


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def port(authority: Authority) -> Iterator[int]:
    """Where a server answers health checks of clients that it knows."""
    own = authority.sign("localhost", to="server")
    probes = health.HealthServicer()
    probes.set("", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    taken = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials(
            [(own.private_key.read_bytes(), own.certificate.read_bytes())],
            root_certificates=authority.certificate.read_bytes(),
            require_client_auth=True,
        ),
    )
    server.start()
    yield taken
    server.stop(0).wait()


def test_the_gateway_shows_who_it_is_and_trusts_whom_it_was_told(
    authority: Authority, port: int, tmp_path: Path
) -> None:
    client = authority.sign("gateway", to="client")
    tls = UpstreamTls(authority.certificate, client.certificate, client.private_key)

    log = tmp_path / "envoy.log"
    with envoy(Address("localhost", port), log, tls) as (address, process):
        until_ready(address, process, log)


def test_another_authority_s_server_is_not_behind_it(port: int, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    client = other.sign("gateway", to="client")
    tls = UpstreamTls(other.certificate, client.certificate, client.private_key)

    with (
        envoy(Address("localhost", port), tmp_path / "envoy.log", tls) as (address, _),
        httpx.Client(transport=httpx.HTTPTransport(retries=8)) as http,
    ):
        assert http.get(f"http://{address}/v1/clusters").status_code == 503
        assert http.get(f"http://{address}/healthz").status_code == 503
