"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.faults import remember_json

_CONNECTION = "Connection"

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help="The server to call (SHOAL_SERVER; default: 127.0.0.1:50051).",
        rich_help_panel=_CONNECTION,
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="sk_…",
        help="API key (SHOAL_KEY, which the process list does not show).",
        rich_help_panel=_CONNECTION,
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="Namespace name or id (SHOAL_NAMESPACE).",
        rich_help_panel=_CONNECTION,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print JSON, for scripts; errors too.", callback=remember_json, is_eager=True
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the embedded stores (SHOAL_DATA_DIR)."),
]
ClusterArgument = Annotated[str, typer.Argument(metavar="CLUSTER", help="Id or name.")]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="A run other than the newest.")
]
TitleFieldOption = Annotated[
    str | None,
    typer.Option(
        "--title-field",
        metavar="FIELD",
        help="Payload field that stands for a document (default: title, name, text, …).",
    ),
]
