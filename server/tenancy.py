"""Who calls: organizations, namespaces and API keys (contract, section 2).

A key is 256 random bits, shown once and kept as SHA-256. Nothing here knows gRPC: `api/auth`
hands in what the headers said.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from server.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
    Violation,
)
from server.jobs.ids import new_id
from server.jobs.ledger import utc_now
from server.jobs.model import KeyRecord, NamespaceRecord, Role
from server.stores.base import JobStore

DEV_ORGANIZATION = "org_dev"
DEV_NAMESPACE = "default"
FIRST_TEMPLATE = "{collection_id}"
LATER_TEMPLATE = "{namespace_id}__{collection_id}"

_NAMESPACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_PREFIX = "sk_"
_RANKS: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}


@dataclass(frozen=True)
class Caller:
    """Who a call comes from, and where it acts."""

    organization_id: str
    namespace: NamespaceRecord
    role: Role

    @property
    def namespace_id(self) -> str:
        """The namespace that scopes every record this caller can see."""
        return self.namespace.namespace_id

    def require(self, role: Role) -> None:
        """Raise `ForbiddenError` unless the caller's role includes this one."""
        if _RANKS[self.role] < _RANKS[role]:
            raise ForbiddenError(
                f"this key has the role {self.role!r}; the call needs {role!r}",
                role=self.role,
                needed_role=role,
            )

    def qdrant_name(self, collection_id: str) -> str:
        """Give the Qdrant name of one of this namespace's collections."""
        return qdrant_name(self.namespace, collection_id)


def qdrant_name(namespace: NamespaceRecord, collection_id: str) -> str:
    """Apply a namespace's template to a collection id."""
    return namespace.collection_template.format(
        namespace_id=namespace.namespace_id, collection_id=collection_id
    )


class Tenancy:
    """Namespaces and keys in the store, and the check of a call's credentials."""

    def __init__(self, store: JobStore, *, dev: bool = False, template: str | None = None) -> None:
        self._store = store
        self._dev = dev
        self._template = template

    async def authenticate(self, bearer: str | None, namespace: str | None) -> Caller:
        """Find out who calls.

        Parameters
        ----------
        bearer : str or None
            The key from ``authorization: Bearer sk_…``, without the word Bearer.
        namespace : str or None
            Name or id from ``x-namespace``.

        Raises
        ------
        UnauthenticatedError
            No key, or one that is unknown or revoked.
        ForbiddenError
            No namespace named, or not one of the key's.
        """
        if self._dev:
            return await self._dev_caller(namespace or DEV_NAMESPACE)
        key = await self._key(bearer)
        if not namespace:
            raise ForbiddenError("the call names no namespace; send the header x-namespace")
        record = await self._store.find_namespace(key.organization_id, namespace)
        # One answer for "not yours" and "not there": a key cannot probe for names.
        if record is None or record.namespace_id not in key.namespace_ids:
            raise ForbiddenError(f"this key does not reach the namespace {namespace!r}")
        return Caller(key.organization_id, record, key.role)

    async def create_namespace(self, organization_id: str, name: str) -> NamespaceRecord:
        """Make a namespace; its collection template is fixed now (see NamespaceRecord)."""
        if not _NAMESPACE_NAME.fullmatch(name) or name.startswith("ns_") or "__" in name:
            raise InvalidRequestError(
                [
                    Violation(
                        "name",
                        f"{name!r} is no namespace name; 1-64 of ASCII letters, digits, '.', '_' "
                        "and '-', the first a letter or digit, without '__', not starting 'ns_'",
                    )
                ]
            )
        is_first = not await self._store.list_namespaces()
        template = self._template or (FIRST_TEMPLATE if is_first else LATER_TEMPLATE)
        if not is_first and "{namespace_id}" not in template:
            raise PreconditionError(
                f"the collection template {template!r} has no {{namespace_id}}, so two namespaces "
                "would share their collections; set SHOAL_COLLECTION_TEMPLATE to one that has it, "
                f"such as {LATER_TEMPLATE}"
            )
        record = NamespaceRecord(
            namespace_id=new_id("ns"),
            organization_id=organization_id,
            name=name,
            collection_template=template,
            created_at=utc_now(),
        )
        await self._store.insert_namespace(record)
        return record

    async def create_key(
        self, organization_id: str, namespaces: list[str], role: Role, description: str = ""
    ) -> tuple[str, KeyRecord]:
        """Make a key for namespaces (names or ids); the secret is in this answer only."""
        found = []
        for name in namespaces:
            namespace = await self._store.find_namespace(organization_id, name)
            if namespace is None:
                raise NotFoundError("namespace", name, "make it with `shoal namespaces create`")
            found.append(namespace.namespace_id)
        secret = _KEY_PREFIX + secrets.token_urlsafe(32)
        record = KeyRecord(
            key_id=new_id("key"),
            sha256=_digest(secret),
            organization_id=organization_id,
            role=role,
            namespace_ids=found,
            description=description,
            created_at=utc_now(),
        )
        await self._store.insert_key(record)
        return secret, record

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """End a key at once; servers look keys up on every call."""
        for record in await self._store.list_keys():
            if record.key_id == key_id:
                revoked = record.model_copy(update={"revoked_at": record.revoked_at or utc_now()})
                await self._store.replace_key(revoked)
                return revoked
        raise NotFoundError("key", key_id, "see `shoal keys list`")

    async def _key(self, bearer: str | None) -> KeyRecord:
        if not bearer:
            raise UnauthenticatedError("send the header 'authorization: Bearer sk_…'")
        # The store compares digests of 256-bit secrets: timing tells nothing about a secret.
        record = await self._store.find_key(_digest(bearer))
        if record is None or record.revoked_at is not None:
            raise UnauthenticatedError("this API key is not known or was revoked")
        return record

    async def _dev_caller(self, name: str) -> Caller:
        record = await self._store.find_namespace(DEV_ORGANIZATION, name)
        if record is None and name == DEV_NAMESPACE:
            try:
                record = await self.create_namespace(DEV_ORGANIZATION, name)
            except AlreadyExistsError:  # Two first calls at once; the other one made it.
                record = await self._store.find_namespace(DEV_ORGANIZATION, name)
        if record is None:
            raise ForbiddenError(
                f"there is no namespace {name!r}; make it with "
                f"`shoal namespaces create {name} --organization {DEV_ORGANIZATION}`"
            )
        return Caller(DEV_ORGANIZATION, record, "admin")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
