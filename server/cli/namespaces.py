"""`shoal namespaces`: make and list namespaces, in the store itself."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from server.cli.console import print_json, say, stdout, table
from server.cli.options import DataDirOption, JsonOption
from server.cli.store import (
    DEFAULT_ORGANIZATION,
    OrganizationOption,
    checked_organization,
    open_store,
    when,
)
from server.jobs.model import NamespaceRecord

app = typer.Typer(help="Make and list namespaces, in the job store.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Unique in the organization.")],
    organization: OrganizationOption = DEFAULT_ORGANIZATION,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a namespace; a running server knows it at once."""

    async def make() -> NamespaceRecord:
        async with open_store(data_dir) as (_, _, tenancy):
            return await tenancy.create_namespace(checked_organization(organization), name)

    record = asyncio.run(make())
    if json_output:
        print_json(record.model_dump(mode="json"))
        return
    say(f"created {record.name} ({record.namespace_id}) in {record.organization_id}")
    say(f"its collections are named {record.collection_template} in Qdrant")


@app.command("list")
def list_namespaces(
    organization: Annotated[
        str | None, typer.Option("--organization", help="Only those of this one.")
    ] = None,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """List namespaces, oldest first."""

    async def read() -> list[NamespaceRecord]:
        async with open_store(data_dir) as (_, store, _):
            return await store.list_namespaces(organization)

    records = asyncio.run(read())
    if json_output:
        print_json([record.model_dump(mode="json") for record in records])
        return
    rows = [
        [
            record.namespace_id,
            record.name,
            record.organization_id,
            when(record.created_at),
            record.collection_template,
        ]
        for record in records
    ]
    headings = ["namespace", "name", "organization", "created (UTC)", "names in Qdrant"]
    stdout().print(table(headings, rows))
