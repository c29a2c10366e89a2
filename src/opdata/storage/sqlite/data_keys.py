"""Data keys in an SQLite file, and the sealed records that are moved from one to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from opdata.audit import Entry
from opdata.model import KEY_ID_BYTES, DataKey, key_id_of
from opdata.storage.data_keys import Resealed, SealedRecord
from opdata.storage.scans import AFTER_ANY_NAME
from opdata.storage.sqlite.audit import append
from opdata.storage.sqlite.connection import SQL, scalar
from opdata.storage.sqlite.database import Database


class SqliteDataKeys:
    """See `DataKeys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, operator_id: int) -> Sequence[DataKey]:
        """See `DataKeys.of`."""
        return [DataKey(*row) for row in await self._database.rows("data_keys", operator_id)]

    async def all(self) -> Sequence[DataKey]:
        """See `DataKeys.all`."""
        return [DataKey(*row) for row in await self._database.rows("data_keys", None)]

    async def add(self, key: DataKey, *, audit: Entry) -> bool:
        """See `DataKeys.add`."""
        values = (
            *(key.operator_id, key.key_id, key.master_key_id, key.salt, key.fingerprint_key),
            key.created_at_ms,
        )

        def task(connection: apsw.Connection) -> bool:
            connection.execute(SQL["add_data_key"], values)
            added = connection.changes() > 0
            if added:
                append(connection, key.operator_id, audit)
            return added

        return await self._database.write(task)

    async def count_seals(self, operator_id: int, key_id: int, count: int) -> int:
        """See `DataKeys.count_seals`."""

        def task(connection: apsw.Connection) -> int:
            return int(scalar(connection, "count_seals", operator_id, key_id, count) or 0)

        return await self._database.write(task)

    async def retire(self, operator_id: int, before: int, now_ms: int) -> None:
        """See `DataKeys.retire`."""
        await self._database.run("retire_data_keys", operator_id, before, now_ms)

    async def census(
        self, operator_id: int, *, after: str, walk: int
    ) -> tuple[Mapping[int, int], str | None]:
        """See `DataKeys.census`."""

        def read(connection: apsw.Connection) -> tuple[Mapping[int, int], str | None]:
            walked_to = scalar(connection, "walk_end", operator_id, after, walk)
            values = (operator_id, after, walked_to or AFTER_ANY_NAME)
            counts: dict[int, int] = {}
            for id_bytes, count in connection.execute(SQL["seal_census"], values):
                key_id = key_id_of(id_bytes)
                counts[key_id] = counts.get(key_id, 0) + count
            return counts, walked_to

        return await self._database.read(read)

    async def sealed_before(
        self, operator_id: int, key_id: int, *, after: str, walk: int
    ) -> tuple[Sequence[SealedRecord], str | None]:
        """See `DataKeys.sealed_before`."""
        least = key_id.to_bytes(KEY_ID_BYTES, "big")

        def read(connection: apsw.Connection) -> tuple[Sequence[SealedRecord], str | None]:
            walked_to = scalar(connection, "walk_end", operator_id, after, walk)
            values = (operator_id, after, walked_to or AFTER_ANY_NAME, least)
            rows = connection.execute(SQL["sealed_before"], values)
            return [SealedRecord(*row) for row in rows], walked_to

        return await self._database.read(read)

    async def reseal(self, records: Sequence[Resealed], *, under: DataKey) -> int:
        """See `DataKeys.reseal`."""
        values: list[tuple[Any, ...]] = [
            (under.operator_id, one.external_id, one.before, one.after) for one in records
        ]
        key = (under.operator_id, under.key_id, under.salt)

        def task(connection: apsw.Connection) -> int:
            if scalar(connection, "has_data_key", *key) is None:
                return 0
            before = connection.total_changes()
            connection.executemany(SQL["reseal"], values)
            return connection.total_changes() - before

        return await self._database.write(task)


def add_first_data_key(connection: apsw.Connection, operator_id: int) -> None:
    """The first data key of an operator that is being created."""
    connection.execute(SQL["add_first_data_key"], (operator_id,))
