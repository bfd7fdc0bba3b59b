"""What a server computes with and who it talks to: workers, device, models, ports, TLS, traces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from server.api.tls import TlsFiles, TlsFilesError
from server.config import LOOPBACK_HOSTS, Settings
from server.doctor.certificates import days_left
from server.doctor.finding import Finding
from server.engine.engine import Engine
from server.engine.model import EngineSettings
from server.engine.reach import require_reach
from server.errors import ShoalError
from server.jobs.stages.probing import WorkerFacts, probe_worker
from server.labeling.client import find_fault
from server.qdrant.client import QdrantAddress
from server.tracing import Tracing

CERTIFICATE_DAYS = 14
LOW_MEMORY_BYTES = 1024**3
CONNECT_TIMEOUT_S = 5.0


async def check_workers(settings: Settings) -> Sequence[Finding]:
    """Start a worker (or reach the Dask cluster) and look for the device from inside it."""
    where = settings.dask_address or "a local worker"
    quiet = replace(settings.logs, level="ERROR")
    engine = Engine(
        EngineSettings(1, settings.threads, settings.dask_address, settings.device, quiet)
    )
    try:
        await engine.start()
        facts = await engine.run("doctor", probe_worker, settings.device, lambda report: None)
        if settings.dask_address is not None:
            await require_reach(engine, settings.artifacts, _qdrant_of(settings))
    except (ShoalError, OSError) as error:
        advice = "look at the worker's log; SHOAL_DASK_ADDRESS must name a scheduler with workers"
        return [Finding("workers", "fault", f"{where} does not start: {error}", advice)]
    finally:
        await engine.close()
    return [Finding("workers", "ok", f"{where} runs what it is given"), _device(facts)]


def _qdrant_of(settings: Settings) -> QdrantAddress | None:
    """Give the Qdrant that others keep; the embedded one is this machine's own."""
    return None if settings.qdrant_url is None else QdrantAddress.from_url(settings.qdrant_url)


def _device(facts: WorkerFacts) -> Finding:
    free = f"{facts.free_memory_bytes / 1024**3:,.1f} GiB of memory are free"
    if facts.device is None:
        advice = "set SHOAL_DEVICE=auto to compute on the CPU, or mend the driver"
        return Finding("device", "fault", facts.reason, advice)
    told = f"{facts.device}: {facts.reason}; {free}"
    if facts.free_memory_bytes < LOW_MEMORY_BYTES:
        advice = "make room: a run needs 1.6 times its vectors and 1 GB"
        return Finding("device", "warning", told, advice)
    return Finding("device", "ok", told)


async def check_models(settings: Settings) -> Sequence[Finding]:
    """Ask each configured provider for its models: its address and its key are tried so."""
    providers = settings.labeling.providers
    if not providers:
        return [Finding("models", "off", "no provider of language models is set")]
    return await asyncio.gather(*(_provider(settings, number) for number in range(len(providers))))


async def _provider(settings: Settings, number: int) -> Finding:
    provider = settings.labeling.providers[number]
    failure = await find_fault(provider, settings.labeling)
    name = f"model provider {provider.name}"
    if failure is None:
        return Finding(name, "ok", f"{provider.base_url} answers and takes the key")
    told = f"{provider.base_url}: {failure.why}" + (
        f" ({failure.detail})" if failure.detail else ""
    )
    advice = (
        f"mend SHOAL_{provider.name.upper()}_API_KEY or its base URL"
        if failure.kind == "settings"
        else "runs go on without it: their groups get names from the documents' own words"
    )
    # Without its models a run still ends, with other names: no server is useless for that.
    return Finding(name, "warning", told, advice)


async def check_tls(settings: Settings) -> Sequence[Finding]:
    """Read the TLS files as the server does, and see how long the certificate lasts."""
    if settings.tls_cert is None or settings.tls_key is None:
        return [_plain(settings)]
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    try:
        await asyncio.to_thread(files.check)
        left = await asyncio.to_thread(days_left, files)
    except TlsFilesError as error:
        return [Finding("tls", "fault", error.message, "replace the files; a running server "
                        "keeps the identity it has")]  # fmt: skip
    kind = "TLS" if settings.tls_client_ca is None else "mutual TLS"
    told = f"{kind}; the certificate lasts {left:.0f} more days"
    if left < 0:
        return [Finding("tls", "fault", "the certificate has expired", "renew it")]
    if left < CERTIFICATE_DAYS:
        return [Finding("tls", "warning", told, "renew it")]
    return [Finding("tls", "ok", told)]


def _plain(settings: Settings) -> Finding:
    if settings.listen.rpartition(":")[0] in LOOPBACK_HOSTS:
        return Finding("tls", "off", "no TLS; only this machine is listened to")
    return Finding(
        "tls", "warning", f"no TLS on {settings.listen}: keys cross the network in the clear",
        "set SHOAL_TLS_CERT and SHOAL_TLS_KEY, unless a proxy in front encrypts",
    )  # fmt: skip


async def check_ports(settings: Settings) -> Sequence[Finding]:
    """See whether the addresses can be listened on."""
    found = [_port("port", settings.listen, "SHOAL_LISTEN")]
    if settings.metrics_listen is not None:
        found.append(_port("metrics port", settings.metrics_listen, "SHOAL_METRICS_LISTEN"))
    return found


def _port(check: str, address: str, variable: str) -> Finding:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host.strip("[]"), int(port)))
        except OSError as error:
            told = f"{address} cannot be listened on: {(error.strerror or str(error)).lower()}"
            advice = f"if no shoal server runs there already, choose another with {variable}"
            return Finding(check, "warning", told, advice)
    return Finding(check, "ok", f"{address} is free")


async def check_traces(settings: Settings) -> Sequence[Finding]:
    """See whether a collector of traces can be reached, if one is set."""
    endpoint = settings.otel_endpoint
    if endpoint is None:
        return [Finding("traces", "off", "SHOAL_OTEL_ENDPOINT is not set")]
    Tracing(endpoint)
    parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4317)
        writer.close()
    except (OSError, ValueError) as error:
        told = f"nothing answers at {endpoint}: {error or 'no answer in time'}"
        advice = "start the collector or mend SHOAL_OTEL_ENDPOINT; calls and runs go on without"
        return [Finding("traces", "warning", told, advice)]
    return [Finding("traces", "ok", f"{endpoint} answers")]
