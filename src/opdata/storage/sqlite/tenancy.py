"""Operators and their keys in an SQLite file: the part of `Store` that is about tenancy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw
import msgspec

from opdata.audit import Entry
from opdata.errors import Conflict
from opdata.keys import refuse_to_lock_out
from opdata.model import ApiKey, Operator, Quota
from opdata.storage.records import key_of, key_row, operator_of
from opdata.storage.sqlite.audit import append
from opdata.storage.sqlite.connection import SQL, one_row, scalar, the_row
from opdata.storage.sqlite.data_keys import add_first_data_key
from opdata.storage.sqlite.database import Database


class SqliteTenancy:
    """See `Store`, of which this is a part."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_operator(
        self, name: str, key_salt: bytes, now_ms: int, *, audit: Entry | None = None
    ) -> Operator:
        """See `Store.create_operator`."""

        def task(connection: apsw.Connection) -> Operator:
            operator_id = scalar(connection, "create_operator", name, key_salt, now_ms)
            if operator_id is None:
                message = f"There is an operator named {name!r} already"
                raise Conflict(message)
            add_first_data_key(connection, operator_id)
            _record(connection, operator_id, audit)
            return operator_of(the_row(connection, "operators", operator_id))

        return await self._database.write(task)

    async def operators(self) -> Sequence[Operator]:
        """See `Store.operators`."""
        return [operator_of(row) for row in await self._database.rows("operators", None)]

    async def operator(self, operator_id: int) -> Operator | None:
        """See `Store.operator`."""
        row = await self._database.row("operators", operator_id)
        return operator_of(row) if row else None

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
        return [key_of(row) for row in await self._database.rows("keys", operator_id, None)]

    async def authenticate(self, key_hash: bytes, now_ms: int) -> tuple[ApiKey, Operator] | None:
        """See `Store.authenticate`."""

        def read(connection: apsw.Connection) -> tuple[ApiKey, Operator] | None:
            row = one_row(connection, "authenticate", key_hash, now_ms)
            if row is None:
                return None
            key = key_of(row)
            operator = operator_of(the_row(connection, "operators", key.operator_id))
            return (key, operator) if operator.suspension is None else None

        return await self._database.read(read)

    async def relabel_key(
        self, operator_id: int, key_id: str, label: str, *, audit: Entry | None = None
    ) -> ApiKey | None:
        """See `Store.relabel_key`."""

        def task(connection: apsw.Connection) -> ApiKey | None:
            connection.execute(SQL["relabel_key"], (operator_id, key_id, label))
            if connection.changes():
                _record(connection, operator_id, audit)
            return _key(connection, operator_id, key_id)

        return await self._database.write(task)

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

        def task(connection: apsw.Connection) -> ApiKey | None:
            found = _key(connection, operator_id, key_id)
            if found is None or found.revoked_at_ms is not None:
                return found
            if keep_last:
                rows = connection.execute(SQL["keys"], (operator_id, None))
                refuse_to_lock_out([key_of(row) for row in rows], found, now_ms)
            connection.execute(SQL["revoke_key"], (operator_id, key_id, now_ms))
            _record(connection, operator_id, audit)
            return _key(connection, operator_id, key_id)

        return await self._database.write(task)

    async def touch_keys(self, used_at_ms: Mapping[str, int]) -> None:
        """See `Store.touch_keys`."""
        await self._database.run("touch_keys", msgspec.json.encode(used_at_ms).decode())

    async def _change(
        self, name: str, operator_id: int, *values: object, audit: Entry | None
    ) -> None:
        """Run a named statement about an operator, and record it if it has changed anything."""

        def task(connection: apsw.Connection) -> None:
            connection.execute(SQL[name], (operator_id, *values))
            if connection.changes():
                _record(connection, operator_id, audit)

        await self._database.write(task)


def _record(connection: apsw.Connection, operator_id: int, entry: Entry | None) -> None:
    if entry is not None:
        append(connection, operator_id, entry)


def _key(connection: apsw.Connection, operator_id: int, key_id: str) -> ApiKey | None:
    row = one_row(connection, "keys", operator_id, key_id)
    return key_of(row) if row else None
