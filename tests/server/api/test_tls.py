"""TLS and mutual TLS: who may connect, and files that are replaced under a running server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from certificates import Authority, Files
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceServicer
from clusters.v1.task_service_pb2_grpc import TaskServiceServicer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.api.server import Services, build_grpc_server
from server.api.tls import TlsFiles, TlsFilesError

EMPTY = Services(ClusterServiceServicer(), TaskServiceServicer())
SERVING = health_pb2.HealthCheckResponse.SERVING
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def identity(authority: Authority) -> Files:
    return authority.sign("localhost", to="server")


@asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[int]:
    served = await build_grpc_server(EMPTY, listen="127.0.0.1:0", credentials=files.credentials())
    await served.server.start()
    yield served.port
    await served.server.stop(0)


async def probe(
    port: int, *, trusts: Authority, shows: Files | None = None
) -> int | grpc.StatusCode:
    """Ask for the server's health on a new connection."""
    credentials = grpc.ssl_channel_credentials(
        trusts.certificate.read_bytes(),
        shows.private_key.read_bytes() if shows else None,
        shows.certificate.read_bytes() if shows else None,
    )
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return int(answer.status)


def served_certificate(port: int) -> str:
    return ssl.get_server_certificate(("localhost", port))


async def test_a_client_trusts_the_authority_and_no_other(
    authority: Authority, identity: Files, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other")
    async with serving(TlsFiles(identity.certificate, identity.private_key)) as port:
        assert await probe(port, trusts=authority) == SERVING
        assert await probe(port, trusts=stranger) is UNAVAILABLE


async def test_mutual_tls_lets_only_clients_of_its_authority_in(
    authority: Authority, identity: Files, tmp_path: Path
) -> None:
    clients = Authority(tmp_path / "clients")
    known, unknown = clients.sign("client", to="known"), authority.sign("client", to="unknown")
    files = TlsFiles(identity.certificate, identity.private_key, clients.certificate)
    async with serving(files) as port:
        assert await probe(port, trusts=authority, shows=known) == SERVING
        assert await probe(port, trusts=authority, shows=unknown) is UNAVAILABLE
        assert await probe(port, trusts=authority) is UNAVAILABLE


async def test_nothing_is_answered_in_the_clear(identity: Files) -> None:
    async with (
        serving(TlsFiles(identity.certificate, identity.private_key)) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)

    assert raised.value.code() is UNAVAILABLE


async def test_a_renewed_certificate_is_shown_to_the_next_connection(
    authority: Authority, identity: Files
) -> None:
    async with serving(TlsFiles(identity.certificate, identity.private_key)) as port:
        before = await asyncio.to_thread(served_certificate, port)
        authority.sign("localhost", to="server")
        after = await asyncio.to_thread(served_certificate, port)
        answer = await probe(port, trusts=authority)

    assert before != after
    assert after in identity.certificate.read_text()
    assert answer == SERVING


async def test_a_new_client_authority_takes_over_without_a_restart(
    authority: Authority, identity: Files, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(old.certificate.read_bytes())
    files = TlsFiles(identity.certificate, identity.private_key, client_ca)
    client = new.sign("client", to="client")
    async with serving(files) as port:
        before = await probe(port, trusts=authority, shows=client)
        client_ca.write_bytes(new.certificate.read_bytes())
        after = await probe(port, trusts=authority, shows=client)

    assert (before, after) == (UNAVAILABLE, SERVING)


@pytest.mark.parametrize("damage", ["half", "gone", "another key"])
async def test_files_that_do_not_fit_leave_the_identity_as_it_is(
    authority: Authority, identity: Files, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = TlsFiles(identity.certificate, identity.private_key)
    async with serving(files) as port:
        if damage == "half":
            text = identity.certificate.read_text()
            identity.certificate.write_text(text[: len(text) // 3])
        elif damage == "gone":
            identity.private_key.unlink()
        else:
            other = authority.sign("localhost", to="other")
            identity.private_key.write_bytes(other.private_key.read_bytes())
        answers = [await probe(port, trusts=authority) for _ in range(2)]

    assert answers == [SERVING, SERVING]
    assert "are not used" in caplog.text


def test_files_that_do_not_fit_are_refused_at_the_start(
    authority: Authority, identity: Files, tmp_path: Path
) -> None:
    other = authority.sign("localhost", to="other")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for files, told in (
        (TlsFiles(identity.certificate, other.private_key), "key values mismatch"),
        (TlsFiles(tmp_path / "absent.pem", identity.private_key), "no such file"),
        (TlsFiles(nothing, identity.private_key), "cannot be used together"),
        (TlsFiles(identity.certificate, identity.private_key, nothing), "client CA"),
    ):
        with pytest.raises(TlsFilesError, match=told):
            files.credentials()
