"""`shoal keys`: make, list and revoke API keys, in the store itself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, cast, get_args

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
from server.errors import InvalidRequestError, Violation
from server.jobs.model import KeyRecord, Role

app = typer.Typer(help="Make, list and revoke API keys, in the job store.", no_args_is_help=True)


@app.command()
def create(
    namespace: Annotated[
        list[str],
        typer.Option("--namespace", metavar="NAME", help="Namespace it reaches; repeatable."),
    ],
    role: Annotated[
        str, typer.Option("--role", help="read; write: also create and change; or admin.")
    ] = "write",
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    organization: OrganizationOption = DEFAULT_ORGANIZATION,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a key. Its secret is shown now and never again."""
    if role not in get_args(Role):
        allowed = ", ".join(get_args(Role))
        raise InvalidRequestError([Violation("--role", f"{role!r} is not one of {allowed}")])

    async def make() -> tuple[str, KeyRecord]:
        async with open_store(data_dir) as (_, _, tenancy):
            return await tenancy.create_key(
                checked_organization(organization), namespace, cast("Role", role), description
            )

    secret, record = asyncio.run(make())
    if json_output:
        print_json({**_public(record), "secret": secret})
        return
    say(secret)
    say(f"{record.key_id}: {role} in {', '.join(namespace)}. This is the only time it is shown.")


@app.command("list")
def list_keys(
    organization: Annotated[
        str | None, typer.Option("--organization", help="Only those of this one.")
    ] = None,
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """List keys, oldest first, revoked ones too; never their secrets."""

    async def read() -> list[KeyRecord]:
        async with open_store(data_dir) as (_, store, _):
            return await store.list_keys(organization)

    records = asyncio.run(read())
    if json_output:
        print_json([_public(record) for record in records])
        return
    rows = [
        [
            record.key_id,
            record.role,
            record.organization_id,
            when(record.created_at),
            when(record.revoked_at),
            ", ".join(record.namespace_ids),
            record.description,
        ]
        for record in records
    ]
    headings = ["key", "role", "organization", "created (UTC)", "revoked", "namespaces", "for"]
    stdout().print(table(headings, rows))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id, key_…; see `keys list`.")],
    data_dir: DataDirOption = None,
    json_output: JsonOption = False,
) -> None:
    """End a key at once; running servers refuse it from the next call on."""

    async def end() -> KeyRecord:
        async with open_store(data_dir) as (_, _, tenancy):
            return await tenancy.revoke_key(key_id)

    record = asyncio.run(end())
    if json_output:
        print_json(_public(record))
    else:
        say(f"revoked {record.key_id}")


def _public(record: KeyRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"sha256"})
