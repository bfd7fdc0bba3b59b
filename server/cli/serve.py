"""`shoal serve`: one server process, from settings to the last call."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Annotated, Any

import typer

from server.cli.console import print_json, say
from server.cli.options import DataDirOption, JsonOption
from server.config import Settings, load_settings

CALLS_SHARE = 0.2
"""Of the grace time, for calls; the rest is for runs. Watches can be resumed, work cannot."""

_SETTINGS = "Settings (each is also a variable SHOAL_…; flags win)"
_Flag = Annotated[str | None, typer.Option(rich_help_panel=_SETTINGS)]
_Count = Annotated[int | None, typer.Option(rich_help_panel=_SETTINGS)]
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
    )
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(_serve(settings, json_output=json_output))


async def _serve(settings: Settings, *, json_output: bool) -> None:
    # Loads Dask, Qdrant and the stores: commands that only call a server do without.
    from server.api.interceptor import CallInterceptor
    from server.api.rest.check import GatewayChecks
    from server.api.server import Services, build_grpc_server
    from server.api.service import ClusterService
    from server.api.task_service import TaskService
    from server.app import App

    if settings.log_level != "DEBUG":
        # Dask tells of every connection at INFO, and sets that itself when it is loaded.
        quiet = max(logging.WARNING, logging.getLevelNamesMapping()[settings.log_level])
        logging.getLogger("distributed").setLevel(quiet)
    stopping = _stop_on_signals()
    calls_grace_s = settings.shutdown_grace_s * CALLS_SHARE
    runs = {"shutdown_grace_s": settings.shutdown_grace_s - calls_grace_s}
    async with App(settings.model_copy(update=runs)) as app:
        served = await build_grpc_server(
            Services(ClusterService(app.clusters, app.results), TaskService(app.clusters)),
            listen=settings.listen,
            interceptors=[CallInterceptor(app.tenancy)],
            more=[GatewayChecks(app.tenancy).handler()],
        )
        await served.server.start()
        try:
            _announce(settings, served.port, json_output=json_output)
            await stopping.wait()
            say(f"stopping: calls and runs get {settings.shutdown_grace_s:g} s to end")
        finally:
            await served.health.enter_graceful_shutdown()
            await served.server.stop(calls_grace_s)


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
