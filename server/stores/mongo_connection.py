"""A connection to MongoDB through Motor, which is imported here only.

Only calls are used that PyMongo's AsyncMongoClient has too (aggregations go through `command`,
because `aggregate` is awaited in one and not in the other), so that changing over is one import.

What was acknowledged is on the disks of a majority; what was read is too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.read_concern import ReadConcern

from server.errors import PreconditionError, UnavailableError
from server.stores import mongo_schema as schema
from server.stores.mongo_schema import Fields, words_for


class MongoConnection:
    """One database of a MongoDB server, and what may be asked of any.

    Parameters
    ----------
    uri : str
        ``mongodb://`` address. It may hold a password, so no message repeats it.
    database : str
        Name of the database; its collections and indexes are made by `open`.
    timeout_s : float
        How long a call waits for a server or its answer, in seconds, before UnavailableError.
    """

    def __init__(self, uri: str, database: str, timeout_s: float = 10.0) -> None:
        self._uri = uri
        self._name = database
        self._timeout_ms = int(timeout_s * 1000)
        self._client: Any = None
        self._open_database: Any = None

    async def open(self) -> None:
        """Connect and create missing indexes.

        Raises
        ------
        PreconditionError
            If the address is not valid.
        StoreVersionError
            If a newer version set this database up. Nothing is changed.
        """
        if self._client is not None:
            return
        try:
            self._client = AsyncIOMotorClient(
                self._uri,
                appname="shoal",
                serverSelectionTimeoutMS=self._timeout_ms,
                connectTimeoutMS=self._timeout_ms,
                socketTimeoutMS=self._timeout_ms,
            )
        except (InvalidURI, ConfigurationError, ValueError):
            # Without the driver's words: they can quote a piece of the password.
            raise PreconditionError(
                "the MongoDB address is not valid; it must look like mongodb://user:password@"
                "host:27017 with special characters of user and password percent-encoded"
            ) from None
        self._open_database = self._client.get_database(
            self._name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=self._timeout_ms, j=True),
        )
        try:
            with words_for(self._name):
                await schema.prepare(self._open_database)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections."""
        client, self._client, self._open_database = self._client, None, None
        if client is not None:
            client.close()

    async def ping(self) -> None:
        """Ask the server for a sign of life, or raise `UnavailableError`."""
        with words_for(self._name):
            await self._database.command("ping")

    async def clock(self) -> datetime:
        """Give the server's time, in whole milliseconds."""
        with words_for(self._name):
            answer = await self._database.command("isMaster")
        told: datetime = answer["localTime"]
        return told if told.tzinfo is not None else told.replace(tzinfo=UTC)

    @property
    def _database(self) -> Any:
        if self._open_database is None:
            raise UnavailableError(f"job store {self._name!r} is closed")
        return self._open_database

    async def _aggregate(self, *stages: Fields, over: str = "clusters") -> list[Fields]:
        """Run a pipeline whose answer is small enough for one batch."""
        answer = await self._database.command(
            "aggregate",
            over,
            pipeline=list(stages),
            cursor={"batchSize": 100_000},
            readConcern={"level": "majority"},
        )
        rows: list[Fields] = answer["cursor"]["firstBatch"]
        return rows
