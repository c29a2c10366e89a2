"""Data keys in a PostgreSQL database, and the sealed records that are moved from one to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opdata.audit import Entry
from opdata.model import KEY_ID_BYTES, DataKey, key_id_of
from opdata.storage.data_keys import Resealed, SealedRecord
from opdata.storage.postgres.audit import append
from opdata.storage.postgres.connection import SQL, Connection, joined
from opdata.storage.postgres.database import Database, Transaction
from opdata.storage.scans import AFTER_ANY_NAME


class PostgresDataKeys:
    """See `DataKeys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, operator_id: int) -> Sequence[DataKey]:
        """See `DataKeys.of`."""
        return [DataKey(*row) for row in await self._database.rows("data_keys", operator_id)]

    async def all(self) -> Sequence[DataKey]:
        """See `DataKeys.all`."""
        return [DataKey(*row) for row in await self._database.rows("data_keys_of_all")]

    async def add(self, key: DataKey, *, audit: Entry) -> bool:
        """See `DataKeys.add`."""

        async def work(transaction: Transaction) -> bool:
            added = await _add(transaction.connection, key)
            if added:
                await append(transaction, key.operator_id, audit)
            return added

        return await self._database.transaction(work, operator_id=key.operator_id)

    async def count_seals(self, operator_id: int, key_id: int, count: int) -> int:
        """See `DataKeys.count_seals`."""

        async def work(transaction: Transaction) -> int:
            found = await transaction.connection.fetchval(
                SQL["count_seals"], operator_id, key_id, count
            )
            return int(found or 0)

        return await self._database.transaction(work, operator_id=operator_id)

    async def retire(self, operator_id: int, before: int, now_ms: int) -> None:
        """See `DataKeys.retire`."""
        await self._database.run("retire_data_keys", operator_id, before, now_ms)

    async def census(
        self, operator_id: int, *, after: str, walk: int
    ) -> tuple[Mapping[int, int], str | None]:
        """See `DataKeys.census`."""
        counts: dict[int, int] = {}
        async with self._database.connection() as connection:
            walked_to = await connection.fetchval(SQL["walk_end"], operator_id, after, walk)
            end = walked_to or AFTER_ANY_NAME
            for id_bytes, count in await connection.fetch(
                SQL["seal_census"], operator_id, after, end
            ):
                key_id = key_id_of(id_bytes)
                counts[key_id] = counts.get(key_id, 0) + count
        return counts, walked_to

    async def sealed_before(
        self, operator_id: int, key_id: int, *, after: str, walk: int
    ) -> tuple[Sequence[SealedRecord], str | None]:
        """See `DataKeys.sealed_before`."""
        least = key_id.to_bytes(KEY_ID_BYTES, "big")
        async with self._database.connection() as connection:
            walked_to = await connection.fetchval(SQL["walk_end"], operator_id, after, walk)
            end = walked_to or AFTER_ANY_NAME
            rows = await connection.fetch(SQL["sealed_before"], operator_id, after, end, least)
        return [SealedRecord(*row) for row in rows], walked_to

    async def reseal(self, records: Sequence[Resealed], *, under: DataKey) -> int:
        """See `DataKeys.reseal`."""
        values = (
            joined([one.external_id for one in records]),
            joined([one.before.hex() for one in records]),
            joined([one.after.hex() for one in records]),
        )

        operator_id = under.operator_id
        key = (operator_id, under.key_id, under.salt)

        async def work(transaction: Transaction) -> int:
            connection = transaction.connection
            if await connection.fetchval(SQL["hold_data_key"], *key) is None:
                return 0
            done = await connection.execute(SQL["reseal"], operator_id, *values)
            return int(done.rpartition(" ")[2])

        return await self._database.transaction(work, operator_id=operator_id)


async def add_first_data_key(
    connection: Connection, operator_id: int, salt: bytes, now_ms: int
) -> None:
    """The first data key of an operator that is being created.

    Under the master key that the others are under; before there are any, under the newest there is.
    """
    master_key_id = await connection.fetchval(SQL["newest_master_key_in_use"])
    if master_key_id is None:
        master_key_id = await connection.fetchval(SQL["newest_master_key"])
    await _add(connection, DataKey(operator_id, 1, master_key_id, salt, None, now_ms))


async def _add(connection: Connection, key: DataKey) -> bool:
    values = (
        *(key.operator_id, key.key_id, key.master_key_id, key.salt, key.fingerprint_key),
        key.created_at_ms,
    )
    return await connection.fetchval(SQL["add_data_key"], *values) is not None
