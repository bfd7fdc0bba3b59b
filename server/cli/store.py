"""The job store of this machine's settings, for the commands that work on it directly."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from server.config import Settings, load_settings
from server.errors import InvalidRequestError, Violation
from server.stores.base import JobStore
from server.stores.choice import make_store
from server.tenancy import Tenancy

DEFAULT_ORGANIZATION = "org_default"

_ORGANIZATION_ID = re.compile(r"org_[A-Za-z0-9]+")

OrganizationOption = Annotated[
    str,
    typer.Option("--organization", metavar="org_…", help="Organization; that of --dev is org_dev."),
]


@asynccontextmanager
async def open_store(data_dir: Path | None) -> AsyncIterator[tuple[Settings, JobStore, Tenancy]]:
    """Open the store that settings and flags name, and close it afterwards."""
    settings = load_settings(data_dir=data_dir)
    store = make_store(settings)
    await store.open()
    try:
        yield settings, store, Tenancy(store, template=settings.collection_template)
    finally:
        await store.close()


def checked_organization(organization: str) -> str:
    """Give the id back, or raise `InvalidRequestError`."""
    if not _ORGANIZATION_ID.fullmatch(organization):
        raise InvalidRequestError(
            [Violation("--organization", f"{organization!r} is not org_ and letters or digits")]
        )
    return organization


def when(moment: datetime | None) -> str:
    """Say a time of a record, in UTC; nothing for None."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")
