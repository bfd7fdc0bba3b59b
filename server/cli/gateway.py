"""`shoal gateway`: REST for a server that speaks gRPC, by Envoy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import clusters.v1
import typer

from server.cli.connection import client_settings, target_of
from server.cli.console import print_json, say
from server.cli.options import JsonOption
from server.gateway.config import Address, Gateway
from server.gateway.encryption import UpstreamTls
from server.gateway.envoy import become, find, free


class LogLevel(StrEnum):
    """Envoy's own words."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def gateway(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes a free one.")
    ] = "127.0.0.1:8080",
    upstream: Annotated[
        str | None,
        typer.Option(
            "--upstream",
            metavar="HOST:PORT",
            help="The server behind, https://… for TLS (SHOAL_SERVER; default: 127.0.0.1:50051).",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="Least severity that Envoy logs.")
    ] = LogLevel.WARNING,
    json_output: JsonOption = False,
) -> None:
    """Serve REST until SIGTERM or Ctrl-C: Envoy before a running `shoal serve`.

    /openapi.json describes the calls; /healthz says whether the server behind answers.
    """
    program = find()
    settings = client_settings(server=upstream)
    target, is_encrypted = target_of(settings)
    tls = UpstreamTls(settings.tls_ca, settings.client_cert, settings.client_key)
    wanted = Gateway(
        listen=free(Address.parse(listen, "--listen")),
        upstream=Address.parse(target, "--upstream"),
        contract=Path(clusters.v1.__file__).parent,
        tls=tls if is_encrypted else None,
    )
    facts = {"address": str(wanted.listen), "upstream": str(wanted.upstream)}
    if json_output:
        print_json(facts, indent=None)
    else:
        say(f"REST on http://{wanted.listen} for the server at {wanted.upstream}")
    become(program, wanted, log_level=log_level)
