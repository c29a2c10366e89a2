"""A PostgreSQL database as the source or the target of a copy, distributed or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import cache
from operator import itemgetter
from typing import Final

import asyncpg

from opdata.clock import now_ms
from opdata.config import without_password
from opdata.errors import StartupError, Unavailable
from opdata.storage.migrate import UNFINISHED_COPY
from opdata.storage.postgres import schema
from opdata.storage.postgres.connection import (
    SQL,
    UNHURRIED_S,
    ConnectionOptions,
    connect,
    translated,
)
from opdata.storage.postgres.database import NUMBERS_A_BLOCK
from opdata.storage.transfer import (
    PAGE_BYTES,
    PAGE_ROWS,
    TABLES,
    AlreadyThere,
    Holds,
    Key,
    Numbers,
    Page,
    Row,
    RowsRefused,
    Table,
)

_LOCK: Final = 8025411762441020  # advisory, as in schema.py: held by whoever copies into a database

# The primary key less the operator, whose rows are read together: on a distributed database they
# are on one node, which then answers by itself.
_KEYS: Final = {
    "master_keys": ("key_id",),
    "operators": ("operator_id",),
    "data_keys": ("key_id",),
    "entities": ("external_id", "tombstone_no"),
    "events": ("entity_no", "occurred_at_ms", "event_no"),
    "event_keys": ("idempotency_key",),
    "states": ("entity_no", "state_key"),
    "jobs": ("job_id",),
    "queued_batches": ("job_id",),
    "queued_erasures": ("job_id", "external_id"),
    "queue_heads": ("holder",),
    "idempotency_records": ("idempotency_key", "method", "path"),
    "erasure_ledger": ("entity_id",),
    "legal_holds": ("external_id",),
    "archive_files": ("file_id",),
    "audit_log": ("seq",),
    "api_keys": ("key_id",),
}
_OF_NO_OPERATOR: Final = ("master_keys", "operators")
_BYTES: Final = ("sealed", "body", "payload")

# As writes take them, claim first and job last: nobody ends up waiting for the other crosswise.
_LOCKED: Final = (
    *("idempotency_records", "queue_heads", "entities", "legal_holds", "operators"),
    *("erasure_ledger", "queued_batches", "queued_erasures"),
    *("event_keys", "events", "states", "jobs", "api_keys", "master_keys", "audit_log"),
    *("data_keys", "archive_files"),
)

# A row belongs to a page when the rows before it have left room.
_PAGE: Final = """
SELECT {columns} FROM (
    SELECT {columns}, sum({size}) OVER (
        ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS bytes_before
    FROM (
        SELECT {columns} FROM opdata.{table} WHERE {condition} ORDER BY {order} LIMIT {rows}
    ) AS following
) AS page
WHERE coalesce(bytes_before, 0) <= {bytes}
ORDER BY {order}
"""


async def source(url: str, *, busy_timeout_s: float) -> PostgresSource:
    """The database of a `postgresql://` URL, its tables locked against writes.

    Raises `ConfigError`, `StartupError`, and `Unavailable` also when a writer does not let go of a
    table within `busy_timeout_s`.
    """
    connection = await _connect(url, busy_timeout_s)
    try:
        with translated():
            await schema.require_ready(connection)
            reader = PostgresSource(connection, await _identity_of(connection), url)
            await reader.lock()
    except BaseException:
        connection.terminate()
        raise
    return reader


async def target(url: str, *, busy_timeout_s: float) -> PostgresTarget:
    """The database of a `postgresql://` URL, which must exist. Raises as `source` does."""
    connection = await _connect(url, busy_timeout_s)
    try:
        with translated():
            return PostgresTarget(connection, await _identity_of(connection), url)
    except BaseException:
        connection.terminate()
        raise


async def _connect(url: str, busy_timeout_s: float) -> asyncpg.Connection[asyncpg.Record]:
    # A page is read within a moment, but a lock is held and an index is made for as long as it takes.
    return await connect(ConnectionOptions(url, busy_timeout_s, UNHURRIED_S))


async def _identity_of(connection: asyncpg.Connection[asyncpg.Record]) -> str:
    """The cluster's own number and the database's within it."""
    found = await connection.fetchval(
        "SELECT c.system_identifier || '/' || d.oid"
        " FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()"
    )
    return str(found)


class _PostgresReader:
    """One connection. See `Reader`."""

    def __init__(
        self, connection: asyncpg.Connection[asyncpg.Record], identity: str, url: str
    ) -> None:
        self._connection = connection
        self.identity: str | None = identity
        self._name = without_password(url)

    async def close(self) -> None:
        """See `Reader.close`."""
        self._connection.terminate()

    def order(self, table: Table) -> Sequence[str]:
        """The primary key; see `Source.order`."""
        key = _KEYS[table.name]
        return key if table.name in _OF_NO_OPERATOR else ("operator_id", *key)

    async def count(self, table: Table) -> int:
        """See `Reader.count`."""
        with translated():
            return int(await self._connection.fetchval(f"SELECT count(*) FROM opdata.{table.name}"))

    async def pages(self, table: Table, after: Key | None = None) -> AsyncGenerator[Page, None]:
        """See `Reader.pages`."""
        if table.name in _OF_NO_OPERATOR:
            async for page in self._pages(table, (), after):
                yield page
            return
        operator_id: int | None = None
        if after:
            operator_id, *rest = after
            async for page in self._pages(table, (operator_id,), tuple(rest)):
                yield page
        # Asked of the table and not of operators: a row of nobody's must not be overlooked.
        while (operator_id := await self._next_operator(table, operator_id)) is not None:
            async for page in self._pages(table, (operator_id,), None):
                yield page

    async def _pages(
        self, table: Table, operator: tuple[int, ...], after: Key | None
    ) -> AsyncGenerator[Page, None]:
        """Rows of an operator, or of a table of no operator's, after a key."""
        width = len(table.columns)
        columns = _columns(table)
        key = [columns.index(name) for name in _KEYS[table.name]]
        while True:
            values = (*operator, *(after or ()))
            sql = _page_sql(table, after=bool(after))
            with translated():
                rows = [tuple(row) for row in await self._connection.fetch(sql, *values)]
            if not rows:
                return
            after = tuple(rows[-1][at] for at in key)
            yield rows if len(columns) == width else [row[:width] for row in rows]

    async def _next_operator(self, table: Table, after: int | None) -> int | None:
        """The first operator after that one who has rows in the table."""
        with translated():
            found: int | None = await self._connection.fetchval(
                f"SELECT operator_id FROM opdata.{table.name}"
                " WHERE $1::bigint IS NULL OR operator_id > $1 ORDER BY operator_id LIMIT 1",
                after,
            )
        return found


class PostgresSource(_PostgresReader):
    """See `Source`. The lock is that of a transaction which never writes."""

    async def lock(self) -> None:
        """Keep writers out, and other copies, until the connection is closed."""
        tables = ", ".join(f"opdata.{name}" for name in _LOCKED)
        await self._connection.execute("BEGIN")
        try:
            await self._connection.execute(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")
        except asyncpg.LockNotAvailableError as error:
            message = f"{self._name} is being written to, or copied; nothing was done"
            raise Unavailable(message) from error

    async def numbers(self) -> Numbers:
        """See `Source.numbers`."""
        with translated():
            operator_id = await self._connection.fetchval(SQL["last_operator"])
            block = await self._connection.fetchval(
                "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM opdata.blocks"
            )
        last = (block + 1) * NUMBERS_A_BLOCK - 1
        return Numbers(operator_id, last, last)


class PostgresTarget(_PostgresReader):
    """See `Target`. An advisory lock keeps other copies away, the mark everybody else."""

    async def look(self) -> Holds:
        """See `Target.look`."""
        with translated():
            return await self._look()

    async def begin(self, numbers: Numbers) -> None:
        """See `Target.begin`."""
        connection = self._connection
        with translated():
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                message = f"{self._name} is being copied into already; nothing was done"
                raise Unavailable(message)
            if UNFINISHED_COPY not in await self._applied():
                await schema.migrate(connection)
            # What a crash of the server takes away is copied again; the mark goes with a flush.
            await connection.execute("SET synchronous_commit = off")
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO opdata.migrations (name, applied_at_ms) VALUES ($1, $2)"
                    " ON CONFLICT DO NOTHING",
                    *(UNFINISHED_COPY, now_ms()),
                )
                block = max(numbers.entity_no, numbers.event_no) // NUMBERS_A_BLOCK
                await connection.execute(
                    "SELECT setval('opdata.blocks', greatest($1, last_value))"
                    " FROM opdata.blocks WHERE $1 > 0",
                    block,
                )

    async def last(self, table: Table, order: Sequence[str]) -> Key | None:
        """See `Target.last`."""
        descending = ", ".join(f"{column} DESC" for column in order)
        with translated():
            row = await self._connection.fetchrow(
                f"SELECT {', '.join(order)} FROM opdata.{table.name} ORDER BY {descending} LIMIT 1"
            )
        return None if row is None else tuple(row)

    async def write(self, table: Table, page: Page) -> None:
        """See `Target.write`."""
        rows = (
            page if table.name != "entities" else [_with_tombstone_no(table, row) for row in page]
        )
        order = [_columns(table).index(name) for name in self.order(table)]
        rows = sorted(rows, key=itemgetter(*order))
        try:
            with translated():
                await self._connection.copy_records_to_table(
                    table.name, schema_name="opdata", columns=_columns(table), records=rows
                )
        except asyncpg.UniqueViolationError as error:
            raise AlreadyThere from error
        except asyncpg.InternalServerError as error:
            # On a distributed database every failure of a COPY is XX000. If it is another one than
            # a key that is there, it fails again in an empty table.
            raise AlreadyThere from error
        except asyncpg.PostgresError as error:
            message = f"The target does not take the rows of {table.name}: {error}"
            raise RowsRefused(message) from None

    async def clear(self, table: Table) -> None:
        """See `Target.clear`."""
        with translated():
            await self._connection.execute(f"TRUNCATE opdata.{table.name}")

    async def finish(self) -> None:
        """See `Target.finish`."""
        with translated():
            for table in TABLES:
                # Or the first plans of a server would be made for empty tables.
                await self._connection.execute(f"ANALYZE opdata.{table.name}")
            await self._connection.execute("SET synchronous_commit = on")
            await self._connection.execute(
                "DELETE FROM opdata.migrations WHERE name = $1", UNFINISHED_COPY
            )

    async def _look(self) -> Holds:
        connection = self._connection
        applied = await self._applied()
        if UNFINISHED_COPY in applied:
            known = {migration.name for migration in schema.known_migrations()}
            if applied != {UNFINISHED_COPY} | known:
                message = (
                    f"{self._name} is a copy that another version of opdata has begun: empty it, "
                    "or end it with that version"
                )
                raise StartupError(message)
            return Holds.UNFINISHED
        for table in TABLES if applied else ():
            present = await connection.fetchval(
                "SELECT to_regclass($1) IS NOT NULL", f"opdata.{table.name}"
            )
            if present and await connection.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM opdata.{table.name})"
            ):
                await schema.require_ready(connection)
                # All that is read from here on is of one moment: the database may be in use.
                await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return Holds.ROWS
        return Holds.NOTHING

    async def _applied(self) -> set[str]:
        if await self._connection.fetchval("SELECT to_regclass('opdata.migrations')") is None:
            return set()
        return {row[0] for row in await self._connection.fetch(SQL["applied_migrations"])}


def _columns(table: Table) -> tuple[str, ...]:
    """The table's columns here: those that every store has, and one of our own."""
    return (*table.columns, "tombstone_no") if table.name == "entities" else table.columns


def _with_tombstone_no(table: Table, row: Row) -> Row:
    values = dict(zip(table.columns, row, strict=True))
    return (*row, 0 if values["deleted_at_ms"] is None else values["entity_no"])


@cache
def _page_sql(table: Table, *, after: bool) -> str:
    """A page of an operator's rows; its parameters are the operator and, if need be, a key."""
    key = _KEYS[table.name]
    order = ", ".join(key)
    conditions = []
    if table.name not in _OF_NO_OPERATOR:
        conditions.append("operator_id = $1")
    if after:
        first = len(conditions) + 1
        places = ", ".join(f"${number}" for number in range(first, first + len(key)))
        conditions.append(f"({order}) > ({places})")
    sizes = " + ".join(
        f"coalesce(octet_length({name}{'' if name in _BYTES else '::text'}), 0)"
        for name in table.bulky
    )
    return _PAGE.format(
        columns=", ".join(_columns(table)),
        size=sizes or "0",
        order=order,
        table=table.name,
        condition=" AND ".join(conditions) or "true",
        rows=PAGE_ROWS,
        bytes=PAGE_BYTES,
    )
