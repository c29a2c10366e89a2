"""Operators and their keys in a PostgreSQL database: the part of `Store` that is about tenancy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from opdata.audit import Entry
from opdata.errors import Conflict
from opdata.keys import refuse_to_lock_out
from opdata.model import ApiKey, Operator, Quota
from opdata.storage.postgres.audit import append
from opdata.storage.postgres.connection import SQL, joined
from opdata.storage.postgres.data_keys import add_first_data_key
from opdata.storage.postgres.database import Database, Transaction, findable
from opdata.storage.records import key_of, key_row, operator_of


class PostgresTenancy:
    """See `Store`, of which this is a part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_operator(
        self, name: str, key_salt: bytes, now_ms: int, *, audit: Entry | None = None
    ) -> Operator:
        """See `Store.create_operator`."""

        async def work(transaction: Transaction) -> Operator:
            connection = transaction.connection
            await connection.execute(SQL["lock_operator_names"])
            if await connection.fetchval(SQL["operator_named"], name) is not None:
                message = f"There is an operator named {name!r} already"
                raise Conflict(message)
            operator_id = await connection.fetchval(SQL["last_operator"]) + 1
            row = await connection.fetchrow(
                SQL["create_operator"], operator_id, name, key_salt, now_ms
            )
            assert row is not None
            await add_first_data_key(connection, operator_id, key_salt, now_ms)
            await _record(transaction, operator_id, audit)
            return operator_of(tuple(row))

        return await self._database.transaction(work)

    async def operators(self) -> Sequence[Operator]:
        """See `Store.operators`."""
        return [operator_of(tuple(row)) for row in await self._database.rows("operators")]

    async def operator(self, operator_id: int) -> Operator | None:
        """See `Store.operator`."""
        row = await self._database.row("operator", operator_id)
        return operator_of(tuple(row)) if row else None

    async def set_limits(
        self, operator_id: int, limits: Mapping[str, Quota], *, audit: Entry | None = None
    ) -> None:
        """See `Store.set_limits`."""
        await self._change(
            "set_limits", operator_id, msgspec.json.encode(limits).decode(), audit=audit
        )

    async def suspend_operator(
        self, operator_id: int, reason: str | None, now_ms: int, *, audit: Entry | None = None
    ) -> None:
        """See `Store.suspend_operator`."""
        await self._change("suspend_operator", operator_id, now_ms, reason, audit=audit)

    async def resume_operator(self, operator_id: int, *, audit: Entry | None = None) -> None:
        """See `Store.resume_operator`."""
        await self._change("resume_operator", operator_id, audit=audit)

    async def create_key(self, key: ApiKey, key_hash: bytes, *, audit: Entry | None = None) -> None:
        """See `Store.create_key`."""
        await self._change("create_key", *key_row(key, key_hash), audit=audit)

    async def keys(self, operator_id: int) -> Sequence[ApiKey]:
        """See `Store.keys`."""
        return [key_of(tuple(row)) for row in await self._database.rows("keys", operator_id)]

    async def authenticate(self, key_hash: bytes, now_ms: int) -> tuple[ApiKey, Operator] | None:
        """See `Store.authenticate`."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["authenticate"], key_hash, now_ms)
            if row is None:
                return None
            key = key_of(tuple(row))
            owner = await connection.fetchrow(SQL["operator"], key.operator_id)
        operator = operator_of(tuple(owner)) if owner else None
        return (key, operator) if operator and operator.suspension is None else None

    async def relabel_key(
        self, operator_id: int, key_id: str, label: str, *, audit: Entry | None = None
    ) -> ApiKey | None:
        """See `Store.relabel_key`."""
        values = (operator_id, findable(key_id), label)

        async def work(transaction: Transaction) -> ApiKey | None:
            row = await transaction.connection.fetchrow(SQL["relabel_key"], *values)
            if row is None:
                return None
            await _record(transaction, operator_id, audit)
            return key_of(tuple(row))

        return await self._database.transaction(work, operator_id=operator_id)

    async def revoke_key(
        self,
        operator_id: int,
        key_id: str,
        now_ms: int,
        *,
        keep_last: bool = True,
        audit: Entry | None = None,
    ) -> ApiKey | None:
        """See `Store.revoke_key`."""

        async def work(transaction: Transaction) -> ApiKey | None:
            connection = transaction.connection
            locked = await connection.fetch(SQL["lock_keys"], operator_id)
            keys = {key.key_id: key for key in (key_of(tuple(row)) for row in locked)}
            found = keys.get(key_id)
            if found is None or found.revoked_at_ms is not None:
                return found
            if keep_last:
                refuse_to_lock_out(list(keys.values()), found, now_ms)
            row = await connection.fetchrow(SQL["revoke_key"], operator_id, key_id, now_ms)
            await _record(transaction, operator_id, audit)
            return key_of(tuple(row)) if row else None

        return await self._database.transaction(work, operator_id=operator_id)

    async def touch_keys(self, used_at_ms: Mapping[str, int]) -> None:
        """See `Store.touch_keys`."""
        values = joined(list(used_at_ms)), joined([str(at_ms) for at_ms in used_at_ms.values()])

        async def work(transaction: Transaction) -> None:
            await transaction.connection.execute(SQL["touch_keys"], *values)

        # Two processes may touch the same keys in different orders: the one that loses tries again.
        await self._database.transaction(work)

    async def _change(
        self, name: str, operator_id: int, *values: object, audit: Entry | None
    ) -> None:
        """Run a named statement about an operator, and record it if it has changed anything."""

        async def work(transaction: Transaction) -> None:
            done = await transaction.connection.execute(SQL[name], operator_id, *values)
            if not done.endswith(" 0"):
                await _record(transaction, operator_id, audit)

        await self._database.transaction(work, operator_id=operator_id)


async def _record(transaction: Transaction, operator_id: int, entry: Entry | None) -> None:
    if entry is not None:
        await append(transaction, operator_id, entry)
