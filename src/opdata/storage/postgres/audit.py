"""The audit log in a PostgreSQL database: a lock a chain, held from a look at its head to the commit."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import astuple

from opdata.audit import INSTALLATION, Entry, Head, Record, chained
from opdata.storage.postgres.connection import SQL
from opdata.storage.postgres.database import Database, Transaction
from opdata.storage.reads import AuditQuery, Page


async def append(transaction: Transaction, operator_id: int, *entries: Entry) -> None:
    """Add entries to an operator's chain, in a transaction and as its last lock.

    Others who add to the chain wait from here on until the transaction ends.
    """
    connection = transaction.connection
    await connection.execute(SQL["lock_audit_chain"], operator_id)
    # By itself: a statement sees what was committed before it began, and not while it waited.
    last = await connection.fetchrow(SQL["audit_head"], operator_id)
    head = Head(operator_id, *last) if last else Head(operator_id)
    await connection.executemany(
        SQL["add_audit_entry"], [astuple(record) for record in chained(head, entries)]
    )


class PostgresAuditLog:
    """See `AuditLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, operator_id: int, entries: Sequence[Entry]) -> None:
        """See `AuditLog.record`."""

        async def work(transaction: Transaction) -> None:
            await append(transaction, operator_id, *entries)

        await self._database.transaction(work, operator_id=operator_id)

    async def chain(self, operator_id: int, *, after: int, limit: int) -> Sequence[Record]:
        """See `AuditLog.chain`."""
        rows = await self._database.rows("audit_chain", operator_id, after, limit)
        return [Record(*row) for row in rows]

    async def entries(self, operator_id: int, query: AuditQuery) -> Page[Record]:
        """See `AuditLog.entries`."""
        values = (operator_id, query.since_ms, *query.until, query.action)
        rows, more = await self._database.first_rows("audit_entries", *values, limit=query.limit)
        return Page([Record(*row) for row in rows], more)

    async def heads(self) -> Sequence[Head]:
        """See `AuditLog.heads`."""
        chains = [INSTALLATION]
        chains += [row[0] for row in await self._database.rows("audited_operators")]
        async with self._database.connection() as connection:
            lasts = [(each, await connection.fetchrow(SQL["audit_head"], each)) for each in chains]
        return [Head(operator_id, *last) for operator_id, last in lasts if last is not None]
