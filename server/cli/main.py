"""The command `shoal`: its groups and its options."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from server.cli import (
    clusters,
    comparing,
    connection,
    demo,
    doctor,
    gateway,
    groups,
    handover,
    health,
    importing,
    keys,
    mapping,
    namespaces,
    reporting,
    run,
    serve,
    top,
)
from server.cli.console import say
from server.cli.faults import EXIT_CODES_HELP, ReportingGroup, hide_tracebacks

app = typer.Typer(
    cls=ReportingGroup,
    help="Find the groups in Qdrant collections, on a GPU or without one.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"shoal {version('shoal')}")
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where shoal itself failed.")
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca", help="PEM of the authority that signed the server (SHOAL_TLS_CA)."
        ),
    ] = None,
    client_cert: Annotated[
        Path | None,
        typer.Option("--client-cert", help="PEM of the own certificate (SHOAL_CLIENT_CERT)."),
    ] = None,
    client_key: Annotated[
        Path | None, typer.Option("--client-key", help="PEM of its key (SHOAL_CLIENT_KEY).")
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options of all commands."""
    connection.use_tls(tls_ca=tls_ca, client_cert=client_cert, client_key=client_key)
    if not traceback:
        hide_tracebacks()


_SERVING = "Serving and data"
_ACCESS = "Namespaces and keys"
_RUNS = "Clusters and runs"

app.command("serve", rich_help_panel=_SERVING)(serve.serve)
app.command("gateway", rich_help_panel=_SERVING)(gateway.gateway)
app.command("health", rich_help_panel=_SERVING)(health.health)
app.command("run", rich_help_panel=_RUNS)(run.run)
app.command("watch", rich_help_panel=_RUNS)(run.watch)
app.command("execute", rich_help_panel=_RUNS)(run.execute)
app.command("cancel", rich_help_panel=_RUNS)(clusters.cancel)
app.command("list", rich_help_panel=_RUNS)(clusters.list_clusters)
app.command("get", rich_help_panel=_RUNS)(clusters.get)
app.command("groups", rich_help_panel=_RUNS)(groups.groups)
app.command("members", rich_help_panel=_RUNS)(groups.members)
app.command("top", rich_help_panel=_RUNS)(top.show_top)
app.command("map", rich_help_panel=_RUNS)(mapping.draw_map)
app.command("report", rich_help_panel=_RUNS)(reporting.report)
app.command("compare", rich_help_panel=_RUNS)(comparing.compare_runs)
app.command("rename", rich_help_panel=_RUNS)(handover.rename)
app.command("export", rich_help_panel=_RUNS)(handover.export)
app.command("enrich", rich_help_panel=_RUNS)(handover.enrich)
app.command("delete", rich_help_panel=_RUNS)(clusters.delete)
app.command("import", rich_help_panel=_SERVING)(importing.import_file)
app.add_typer(namespaces.app, name="namespaces", rich_help_panel=_ACCESS)
app.add_typer(keys.app, name="keys", rich_help_panel=_ACCESS)
app.command("doctor", rich_help_panel=_SERVING)(doctor.doctor)
app.command("demo", rich_help_panel=_SERVING)(demo.demo)
