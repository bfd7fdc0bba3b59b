"""`shoal serve`: one server process, from settings to the last call."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from server import logs
from server.cli.console import print_json, say
from server.cli.options import DataDirOption, JsonOption
from server.config import LOOPBACK_HOSTS, Settings, load_settings

OLD_COLLECTED_SELDOM = 1000
"""Collections of younger objects before one of all, which a thousand open watches make long."""

log = logging.getLogger(__name__)

CALLS_SHARE = 0.2
"""Of the grace time, for calls, after the rest for runs. Watches can be resumed, work cannot."""

_SETTINGS = "Settings (each is also a variable SHOAL_…; flags win)"
_Flag = Annotated[str | None, typer.Option(rich_help_panel=_SETTINGS)]
_Count = Annotated[int | None, typer.Option(rich_help_panel=_SETTINGS)]
_File = Annotated[Path | None, typer.Option(rich_help_panel=_SETTINGS)]
_Seconds = Annotated[float | None, typer.Option(rich_help_panel=_SETTINGS)]


def serve(
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes a free one."),
    ] = None,
    dev: Annotated[
        bool | None,
        typer.Option("--dev", help="Any or no key, namespace 'default', loopback only."),
    ] = None,
    data_dir: DataDirOption = None,
    qdrant_url: _Flag = None,
    artifacts_url: _Flag = None,
    collection_template: _Flag = None,
    mongodb_database: _Flag = None,
    device: _Flag = None,
    workers: _Count = None,
    threads: _Count = None,
    dask_address: _Flag = None,
    keep_runs: _Count = None,
    max_active_runs: _Count = None,
    lease_s: _Seconds = None,
    shutdown_grace_s: _Seconds = None,
    log_level: _Flag = None,
    log_format: _Flag = None,
    tls_cert: _File = None,
    tls_key: _File = None,
    tls_client_ca: _File = None,
    metrics_listen: _Flag = None,
    otel_endpoint: _Flag = None,
    failed_logins_per_minute: _Count = None,
    json_output: JsonOption = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second signal ends at once.

    Secrets are variables only, where the process list does not show them:
    SHOAL_MONGODB_URI and SHOAL_QDRANT_API_KEY.
    """
    settings = load_settings(
        listen=listen,
        dev=dev,
        data_dir=data_dir,
        qdrant_url=qdrant_url,
        artifacts_url=artifacts_url,
        collection_template=collection_template,
        mongodb_database=mongodb_database,
        device=device,
        workers=workers,
        threads=threads,
        dask_address=dask_address,
        keep_runs=keep_runs,
        max_active_runs=max_active_runs,
        lease_s=lease_s,
        shutdown_grace_s=shutdown_grace_s,
        log_level=log_level,
        log_format=log_format,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        metrics_listen=metrics_listen,
        otel_endpoint=otel_endpoint,
        failed_logins_per_minute=failed_logins_per_minute,
    )
    logs.configure(settings.logs)
    asyncio.run(_serve(settings, json_output=json_output))


async def _serve(settings: Settings, *, json_output: bool) -> None:
    # Loads Dask, Qdrant and the stores: commands that only call a server do without.
    from server.api.auth import Gate
    from server.api.interceptor import CallInterceptor
    from server.api.logins import FailedLogins
    from server.api.rest.check import GatewayChecks
    from server.api.server import Services, build_grpc_server
    from server.api.service import ClusterService
    from server.api.task_service import TaskService
    from server.app import App

    logs.quiet_libraries(settings.log_level)  # Dask sets its own level when it is loaded.
    stopping = _stop_on_signals()
    credentials = _credentials(settings)
    logins = FailedLogins(settings.failed_logins_per_minute)
    calls_grace_s = settings.shutdown_grace_s * CALLS_SHARE
    runs_grace_s = settings.shutdown_grace_s - calls_grace_s
    # Without a drain (a fault, before serving) nobody waits for runs.
    async with App(settings.model_copy(update={"shutdown_grace_s": 0.0})) as app:
        gate = Gate(app.tenancy, logins, app.metrics)
        served = await build_grpc_server(
            Services(
                ClusterService(app.clusters, app.results), TaskService(app.clusters, app.workers)
            ),
            listen=settings.listen,
            credentials=credentials,
            interceptors=[CallInterceptor(gate, metrics=app.metrics, traces=app.tracing)],
            more=[GatewayChecks(gate).handler()],
        )
        # What was loaded stays: to walk through it again and again would stop every call for
        # a tenth of a second each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], OLD_COLLECTED_SELDOM)
        await served.server.start()
        try:
            _announce(settings, served.port, json_output=json_output)
            await stopping.wait()
            say(f"stopping: runs and calls get {settings.shutdown_grace_s:g} s to end")
        finally:
            await served.health.enter_graceful_shutdown()
            await app.drain(runs_grace_s)
            await served.server.stop(calls_grace_s)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Read the TLS files; warn where keys would travel in the clear."""
    from server.api.tls import TlsFiles

    if settings.tls_cert is not None and settings.tls_key is not None:
        files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        return files.credentials()
    if settings.listen.rpartition(":")[0] not in LOOPBACK_HOSTS:
        log.warning(
            "no TLS: API keys and data cross the network in the clear, unless a proxy encrypts "
            "them; set SHOAL_TLS_CERT and SHOAL_TLS_KEY"
        )
    return None


def _stop_on_signals() -> asyncio.Event:
    """Give an event that the first signal sets; the second one ends the process."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    watched = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        stopping.set()
        for each in watched:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in watched:
        loop.add_signal_handler(each, stop)
    return stopping


def _announce(settings: Settings, port: int, *, json_output: bool) -> None:
    address = f"{settings.listen.rpartition(':')[0]}:{port}"
    facts = {
        "address": address,
        "tls": _tls_words(settings),
        "namespaces": ("dev (any key; namespace 'default')" if settings.dev else "by API key"),
        "jobs": (
            f"MongoDB database {settings.mongodb_database}"
            if settings.mongodb_uri is not None
            else f"SQLite {settings.database_path}"
        ),
        "vectors": (
            f"Qdrant {_without_credentials(settings.qdrant_url)}"
            if settings.qdrant_url is not None
            else f"embedded Qdrant in {settings.data_dir}"
        ),
        "artifacts": _without_credentials(settings.artifacts),
        "device": _device(settings),
    }
    if json_output:
        print_json(facts, indent=None)
    else:
        say("shoal serves " + " · ".join(_words(facts)))


def _tls_words(settings: Settings) -> str:
    if settings.tls_cert is None:
        return "off"
    return "on" if settings.tls_client_ca is None else "mutual"


def _words(facts: dict[str, Any]) -> list[str]:
    return [value if name == "address" else f"{name}: {value}" for name, value in facts.items()]


def _device(settings: Settings) -> str:
    """Say where runs compute. The worker decides: looking here would take a CUDA context."""
    if settings.device == "auto":
        return "auto (a GPU when the worker finds one, else the CPU; each run says which)"
    return settings.device


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
