"""`shoal doctor`: is everything there that a server needs? In words, with what to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import print_json, printable, say
from server.cli.faults import EXIT_FAILED
from server.cli.options import DataDirOption, JsonOption
from server.config import Settings, load_settings
from server.doctor.finding import Check, Finding, run_checks
from server.errors import InvalidRequestError

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "red")}


def doctor(
    data_dir: DataDirOption = None,
    workers: Annotated[
        bool, typer.Option("--workers/--no-workers", help="Start a worker, which takes seconds.")
    ] = True,
    json_output: JsonOption = False,
) -> None:
    """Try all that the settings name; exit code 1 if a server could not do its work.

    It changes no data: what it writes to try a place, it removes again.
    """
    findings = _examine(data_dir, with_workers=workers)
    if json_output:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _show(finding)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _examine(data_dir: Path | None, *, with_workers: bool) -> list[Finding]:
    try:
        settings = load_settings(data_dir=data_dir)
    except InvalidRequestError as error:
        return [
            Finding("settings", "fault", f"{violation.field}: {violation.description}")
            for violation in error.violations
        ]
    found = asyncio.run(run_checks(_checks(settings, with_workers=with_workers)))
    return [Finding("settings", "ok", "can be read"), *found]


def _checks(settings: Settings, *, with_workers: bool) -> Sequence[tuple[str, Check]]:
    # Loads Dask, Qdrant and the stores, which no other command waits for.
    from server.doctor import backing, machine

    # Dask sets its own level when it is loaded, and what goes wrong is told as a finding.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)

    checks = [
        ("job store", backing.check_store),
        ("qdrant", backing.check_qdrant),
        ("artifacts", backing.check_artifacts),
        ("workers", machine.check_workers),
        ("models", machine.check_models),
        ("tls", machine.check_tls),
        ("port", machine.check_ports),
        ("traces", machine.check_traces),
    ]
    return [
        (name, lambda check=check: check(settings))  # type: ignore[misc]
        for name, check in checks
        if with_workers or name != "workers"
    ]


def _show(finding: Finding) -> None:
    mark, style = _MARKS.get(finding.state, ("off", "dim"))
    say(f"{mark:8} {finding.check}: {printable(finding.told)}", style)
    if finding.advice:
        say(f"         → {printable(finding.advice)}")
