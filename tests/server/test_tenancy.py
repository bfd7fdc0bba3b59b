"""Who calls: keys, roles and namespaces, and that no two tenants meet in one Qdrant name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.config import load_settings
from server.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
)
from server.jobs.model import Role
from server.stores.sqlite import SqliteStore
from server.tenancy import DEV_ORGANIZATION, Tenancy

ORGANIZATION = "org_a"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def tenancy(store: SqliteStore) -> Tenancy:
    return Tenancy(store)


async def test_a_key_reaches_its_namespaces_by_name_and_by_id(tenancy: Tenancy) -> None:
    space = await tenancy.create_namespace(ORGANIZATION, "team")
    secret, record = await tenancy.create_key(ORGANIZATION, ["team"], "write")

    by_name = await tenancy.authenticate(secret, "team")
    by_id = await tenancy.authenticate(secret, space.namespace_id)

    assert by_name == by_id
    assert (by_name.organization_id, by_name.namespace_id) == (ORGANIZATION, space.namespace_id)
    assert secret not in record.model_dump_json()


@pytest.mark.parametrize("bearer", [None, "", "sk_wrong", "\N{SNOWMAN}"])
async def test_no_or_a_wrong_key_is_unauthenticated(tenancy: Tenancy, bearer: str | None) -> None:
    await tenancy.create_namespace(ORGANIZATION, "team")
    with pytest.raises(UnauthenticatedError):
        await tenancy.authenticate(bearer, "team")


async def test_a_revoked_key_is_unauthenticated_at_once(tenancy: Tenancy) -> None:
    await tenancy.create_namespace(ORGANIZATION, "team")
    secret, record = await tenancy.create_key(ORGANIZATION, ["team"], "read")
    first = await tenancy.revoke_key(record.key_id)
    again = await tenancy.revoke_key(record.key_id)

    assert first.revoked_at == again.revoked_at
    with pytest.raises(UnauthenticatedError):
        await tenancy.authenticate(secret, "team")
    with pytest.raises(NotFoundError):
        await tenancy.revoke_key("key_of_nobody")


async def test_other_namespaces_cannot_be_told_from_missing_ones(tenancy: Tenancy) -> None:
    await tenancy.create_namespace(ORGANIZATION, "mine")
    other = await tenancy.create_namespace(ORGANIZATION, "other")
    secret, _ = await tenancy.create_key(ORGANIZATION, ["mine"], "admin")
    told = []
    for name in ("other", other.namespace_id, "missing", None):
        with pytest.raises(ForbiddenError) as raised:
            await tenancy.authenticate(secret, name)
        told.append(str(raised.value).replace(repr(name), "NAME"))
    assert told[0] == told[1] == told[2]
    assert "x-namespace" in told[3]


async def test_a_name_in_another_organization_is_another_namespace(tenancy: Tenancy) -> None:
    ours = await tenancy.create_namespace(ORGANIZATION, "team")
    theirs = await tenancy.create_namespace("org_b", "team")
    secret, _ = await tenancy.create_key(ORGANIZATION, ["team"], "read")

    assert (await tenancy.authenticate(secret, "team")).namespace_id == ours.namespace_id
    with pytest.raises(ForbiddenError):
        await tenancy.authenticate(secret, theirs.namespace_id)
    with pytest.raises(NotFoundError):
        await tenancy.create_key(ORGANIZATION, [theirs.namespace_id], "read")
    with pytest.raises(AlreadyExistsError):
        await tenancy.create_namespace(ORGANIZATION, "team")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("read", ["read"]), ("write", ["read", "write"]), ("admin", ["read", "write", "admin"])],
)
async def test_a_role_includes_the_lesser_ones(
    tenancy: Tenancy, role: Role, allowed: list[Role]
) -> None:
    await tenancy.create_namespace(ORGANIZATION, "team")
    secret, _ = await tenancy.create_key(ORGANIZATION, ["team"], role)
    caller = await tenancy.authenticate(secret, "team")
    roles: list[Role] = ["read", "write", "admin"]
    for needed in roles:
        if needed in allowed:
            caller.require(needed)
        else:
            with pytest.raises(ForbiddenError) as raised:
                caller.require(needed)
            assert raised.value.facts == {"role": role, "needed_role": needed}


@pytest.mark.parametrize("name", ["", "ns_abc", "a__b", ".hidden", "ünï", "a b", "x" * 65, "a\n"])
async def test_a_name_that_could_be_mistaken_is_refused(tenancy: Tenancy, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        await tenancy.create_namespace(ORGANIZATION, name)


async def test_no_collection_id_of_one_namespace_spells_another_ones(tenancy: Tenancy) -> None:
    secrets = []
    for name in ("first", "second", "third"):
        await tenancy.create_namespace(ORGANIZATION, name)
        secrets.append((await tenancy.create_key(ORGANIZATION, [name], "read"))[0])
    first, second, third = [
        await tenancy.authenticate(secret, name)
        for secret, name in zip(secrets, ("first", "second", "third"), strict=True)
    ]
    assert first.qdrant_name("docs") == "docs"
    assert second.qdrant_name("docs") == f"{second.namespace_id}__docs"
    assert third.qdrant_name("docs") == f"{third.namespace_id}__docs"


async def test_a_second_namespace_needs_a_template_of_its_own(store: SqliteStore) -> None:
    shared = Tenancy(store, template="team_{collection_id}")
    await shared.create_namespace(ORGANIZATION, "first")
    with pytest.raises(PreconditionError, match="would share"):
        await shared.create_namespace("org_b", "second")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("docs", "lacks"),
        ("{collection_id}{collection_id}", "lacks"),
        ("{collection_id}{tenant}__", "no other fields"),
        ("{collection_id!r}", "plain"),
        ("{collection_id:>9}", "plain"),
        ("{collection_id", "cannot be read"),
        ("{namespace_id}-{collection_id}", "needs '__'"),
        ("{namespace_id}_{collection_id}_", "needs '__'"),
        ("/{collection_id}", "ends in"),
        ("{namespace_id}/a/{collection_id}", "ends in"),
        ("{namespace_id}/{collection_id}_x", "ends in"),
    ],
)
def test_a_template_that_makes_no_safe_names_is_refused_at_the_start(
    template: str, fault: str
) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        load_settings(collection_template=template)


@pytest.mark.parametrize(
    "template",
    ["{collection_id}", "a_{namespace_id}__{collection_id}", "{namespace_id}/{collection_id}"],
)
def test_a_safe_template_is_taken(template: str) -> None:
    assert load_settings(collection_template=template).collection_template == template


async def test_dev_takes_any_key_and_makes_its_namespace_once(store: SqliteStore) -> None:
    tenancy = Tenancy(store, dev=True)
    callers = await asyncio.gather(*(tenancy.authenticate(key, None) for key in (None, "x", "y")))
    assert len({caller.namespace_id for caller in callers}) == 1
    assert {(caller.organization_id, caller.role) for caller in callers} == {
        (DEV_ORGANIZATION, "admin")
    }
    with pytest.raises(ForbiddenError, match="shoal namespaces create"):
        await tenancy.authenticate(None, "other")


async def test_dev_reaches_no_other_organization(store: SqliteStore) -> None:
    theirs = await Tenancy(store).create_namespace(ORGANIZATION, "team")
    tenancy = Tenancy(store, dev=True)
    for name in ("team", theirs.namespace_id):
        with pytest.raises(ForbiddenError):
            await tenancy.authenticate("sk_any", name)
    assert (await tenancy.authenticate(None, None)).qdrant_name("docs") != "docs"
