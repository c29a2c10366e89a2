"""The audit log in an SQLite file. Every write transaction has the file's lock: none is between two entries."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
from msgspec.structs import astuple

from opdata.audit import Entry, Head, Record, chained
from opdata.storage.reads import AuditQuery, Page
from opdata.storage.sqlite.connection import one_row, write_rows
from opdata.storage.sqlite.database import Database


def append(connection: apsw.Connection, operator_id: int, *entries: Entry) -> None:
    """Add entries to an operator's chain, in the writer's transaction."""
    last = one_row(connection, "audit_head", operator_id)
    head = Head(operator_id, *last) if last else Head(operator_id)
    write_rows(
        connection, "add_audit_entries", [astuple(record) for record in chained(head, entries)]
    )


class SqliteAuditLog:
    """See `AuditLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, operator_id: int, entries: Sequence[Entry]) -> None:
        """See `AuditLog.record`."""
        await self._database.write(lambda connection: append(connection, operator_id, *entries))

    async def chain(self, operator_id: int, *, after: int, limit: int) -> Sequence[Record]:
        """See `AuditLog.chain`."""
        return [
            Record(*row)
            for row in await self._database.rows("audit_chain", operator_id, after, limit)
        ]

    async def entries(self, operator_id: int, query: AuditQuery) -> Page[Record]:
        """See `AuditLog.entries`."""
        values = (operator_id, query.since_ms, *query.until, query.action)
        rows, more = await self._database.first_rows("audit_entries", *values, limit=query.limit)
        return Page([Record(*row) for row in rows], more)

    async def heads(self) -> Sequence[Head]:
        """See `AuditLog.heads`."""
        return [Head(*row) for row in await self._database.rows("audit_heads")]
