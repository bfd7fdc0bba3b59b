"""`shoal import`: a Parquet file into a collection of the Qdrant that the settings name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.console import print_json, printable, say, stderr
from server.cli.options import DataDirOption, JsonOption
from server.cli.store import open_store
from server.config import Settings
from server.errors import InvalidRequestError, NotFoundError, Violation
from server.jobs.checks import COLLECTION_ID
from server.jobs.model import NamespaceRecord
from server.tenancy import DEV_NAMESPACE, DEV_ORGANIZATION, qdrant_name

if TYPE_CHECKING:  # Loading these takes a second, which other commands need not wait.
    from qdrant_client import QdrantClient

    from server.qdrant.importer import ImportReport


def import_file(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.parquet…")],
    collection: Annotated[str, typer.Option("--collection", metavar="NAME", help="Made if new.")],
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", help="Name or id (default: the only one, or 'default')."),
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option("--organization", help="Needed when two have a namespace of that name."),
    ] = None,
    vector: Annotated[
        list[str] | None,
        typer.Option(
            "--vector", metavar="COLUMN", help="Vector column; repeatable (default: all lists)."
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", metavar="COLUMN", help="Ids: integers or UUIDs (default: id)."),
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option("--distance", help="Cosine (default), Euclid, Dot or Manhattan."),
    ] = None,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Load Parquet files into a collection: lists of floats are vectors, the rest payload.

    Works beside a running server, whose embedded Qdrant it then uses, and without one.
    Importing the same ids again replaces those documents.
    """
    from server.qdrant.importer import import_parquet

    _check(collection, distance)
    settings, owner, is_new = asyncio.run(_find_namespace(data_dir, namespace, organization))
    with open_qdrant(settings) as client, progress_bar() as progress:
        report = import_parquet(
            client,
            qdrant_name(owner, collection),
            files,
            vectors=vector,
            id_column=id_column,
            distance=distance,
            progress=progress,
        )
    if json_output:
        print_json({**asdict(report), "collection": collection, "namespace": owner.name})
        return
    if is_new:
        say(f"made the namespace {owner.name!r} of {owner.organization_id}, for serve --dev")
    say_report(report, collection, owner.name)


def say_report(report: ImportReport, collection: str, namespace: str) -> None:
    """Say what an import did."""
    vectors = ", ".join(f"{name or '(unnamed)'} ({n})" for name, n in report.vectors.items())
    vectors = vectors or "none (no column is a list of floats), so group by attributes"
    say(
        f"imported {report.points:,} documents into {collection} of {namespace} "
        f"in {report.seconds:.1f} s; vectors: {vectors}"
    )
    if report.skipped:
        say(f"left out {report.skipped:,} rows, the first:")
        for skipped in report.skipped_rows:
            say(f"  row {skipped.row}: {printable(skipped.reason)}")


@contextmanager
def open_qdrant(settings: Settings) -> Iterator[QdrantClient]:
    """Connect to the settings' Qdrant; the embedded one is started where nobody runs it."""
    from server.qdrant.client import QdrantAddress, connect
    from server.qdrant.embedded.process import attach_or_start

    if settings.qdrant_url is not None:
        key = settings.qdrant_api_key
        address = QdrantAddress.from_url(
            settings.qdrant_url, api_key=key.get_secret_value() if key else None
        )
        with _closing(connect(address)) as client:
            yield client
        return
    with (
        attach_or_start(settings.data_dir) as embedded,
        _closing(connect(embedded.address)) as client,
    ):
        yield client


@contextmanager
def _closing(client: QdrantClient) -> Iterator[QdrantClient]:
    try:
        yield client
    finally:
        client.close()


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None] | None]:
    """Give a callback that moves a bar on standard error; None where nobody sees it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        bar = progress.add_task("importing", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _check(collection: str, distance: str | None) -> None:
    from qdrant_client.models import Distance

    violations = []
    if "__" in collection or not COLLECTION_ID.fullmatch(collection):
        violations.append(
            Violation(
                "--collection",
                f"{collection!r} is no collection id: ASCII letters, digits, '.', '_' and '-', "
                "the first a letter or digit, without '__'",
            )
        )
    distances = [known.value for known in Distance]
    if distance is not None and distance not in distances:
        allowed = ", ".join(distances)
        violations.append(Violation("--distance", f"{distance!r} is not one of {allowed}"))
    if violations:
        raise InvalidRequestError(violations)


async def _find_namespace(
    data_dir: Path | None, name: str | None, organization: str | None
) -> tuple[Settings, NamespaceRecord, bool]:
    """Find the namespace that owns the collection; says whether it was made just now."""
    async with open_store(data_dir) as (settings, store, tenancy):
        known = await store.list_namespaces(organization)
        if not known and name in (None, DEV_NAMESPACE) and organization in (None, DEV_ORGANIZATION):
            # What `serve --dev` does with its first call.
            return settings, await tenancy.create_namespace(DEV_ORGANIZATION, DEV_NAMESPACE), True
        if name is None and len(known) > 1:
            name = DEV_NAMESPACE
        found = [each for each in known if name in (None, each.name, each.namespace_id)]
    if not found:
        raise NotFoundError(
            "namespace", name or "", "see `shoal namespaces list`, make it with `… create`"
        )
    if len(found) > 1:
        owners = ", ".join(each.organization_id for each in found)
        raise InvalidRequestError(
            [Violation("--organization", f"needed: {name!r} is a namespace of each of {owners}")]
        )
    return settings, found[0], False
