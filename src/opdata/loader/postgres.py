"""Tables of a PostgreSQL database, read through cursors in one read-only transaction.

The rows come as JSON that PostgreSQL makes, which keeps the digits of numbers and the text of
`json`. All tables are seen as they were when the transaction began.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from opdata.loader.errors import LoadError, SourceUnreachable
from opdata.loader.json_rows import Row
from opdata.loader.matching import require_distinct
from opdata.loader.reader import SAMPLE_ROWS, JsonPart, Places, interrupted, read_parts
from opdata.loader.selection import Selection
from opdata.loader.sql import ident, table_ident

_CONNECT_S = 10.0
_CLOSE_S = 2.0
_MAX_ROWS = 5_000
_BLOCK_BYTES = 8 * 1024 * 1024
_ENDING = re.compile(r"[\s;]+\Z")
_SETTINGS = (
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL extra_float_digits = 1",
    # A load may wait for its server longer than a session usually may.
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)
_TEXT = frozenset({"text", "varchar", "bpchar", "name", "citext"})
_NUMERIC = frozenset({"float4", "float8", "numeric"})
_BINARY = frozenset({"bytea", "bytea[]"})
_DATA_EXCEPTION = "22"
"""The class of errors whose messages quote a value."""

_FAILURES = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's, for a connection that broke at the wrong moment
)

T = TypeVar("T")


class PostgresReader:
    """The named tables of a database one after the other, or the result of a statement."""

    def __init__(self, selection: Selection, url: str) -> None:
        self.total: int | None = None
        self.fields: Sequence[str] = ()
        self.places = Places()
        self._loop = _Loop()
        self._connection: asyncpg.Connection | None = None
        try:
            self._parts = self._open_parts(selection, url)
        except BaseException:
            self.close()
            raise
        self.fields = list(dict.fromkeys(name for _, part in self._parts for name in part.fields))

    def close(self) -> None:
        """End the transaction and the connection."""
        if self._connection is not None:
            self._loop.run(_close(self._connection))
            self._connection = None
        self._loop.close()

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        self._loop.cancel()

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time, fewer when they are large."""
        return read_parts(self._parts, self.places)

    def _open_parts(self, selection: Selection, url: str) -> list[tuple[str, JsonPart]]:
        self._connection = self._loop.run(_connect(url))
        if selection.sql is not None:
            statements = {"--sql": _ENDING.sub("", selection.sql)}
        else:
            statements = {name: f"SELECT * FROM {table_ident(name)}" for name in selection.sources}
        parts = []
        for name, sql in statements.items():
            statement, texts = self._loop.run(_prepare(self._connection, sql))
            blocks = self._texts(_read(statement))
            parts.append((name, JsonPart(selection, blocks, text_columns=texts)))
        return parts

    def _texts(self, blocks: AsyncIterator[list[str]]) -> Iterator[list[str]]:
        while block := self._loop.run(anext(blocks, None)):
            yield block


async def _connect(url: str) -> asyncpg.Connection:
    try:
        if "," not in urlsplit(url).netloc:  # several hosts, each with its port
            _ = urlsplit(url).port  # raises for one out of range, which the driver wraps around
        connection = await asyncpg.connect(url, timeout=_CONNECT_S)
    except socket.gaierror as error:
        said = f"there is no host {urlsplit(url).hostname} ({error.strerror})"
        raise SourceUnreachable(f"the database cannot be reached: {said}") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
        raise SourceUnreachable(f"the database cannot be reached: {_said(error)}") from None
    except (ValueError, OverflowError, asyncpg.InterfaceError):
        # What the driver says may quote the password.
        raise LoadError(
            "the database's URL cannot be understood; it is postgresql://user@host/database, and "
            "special characters in a password are percent-encoded"
        ) from None
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    for setting in _SETTINGS:
        await connection.execute(setting)
    return connection


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=_CLOSE_S)
    except _FAILURES:
        connection.terminate()


async def _prepare(connection: asyncpg.Connection, sql: str) -> tuple[PreparedStatement, list[str]]:
    """The statement for the rows of `sql` as JSON, and the columns of `sql` that are text."""
    try:
        found = await connection.prepare(sql)
        columns = found.get_attributes()
        if found.get_parameters() or not columns:
            raise LoadError("--sql takes one SELECT, without parameters")
        require_distinct([column.name for column in columns])
        for column in columns:
            if column.type.name in _BINARY:
                raise LoadError(
                    f"the column {column.name} is {column.type.name}, which JSON has no form for; "
                    f"leave it out, or make text of it with --sql, for example encode({column.name}, 'hex')"
                )
        statement = await connection.prepare(_as_json(sql, columns))
    except asyncpg.PostgresError as error:
        raise LoadError(f"the database refuses the statement: {_said(error)}") from None
    return statement, [column.name for column in columns if column.type.name in _TEXT]


def _as_json(sql: str, columns: Sequence[asyncpg.Attribute]) -> str:
    names = [f"c{number}" for number in range(len(columns))]
    selected = ", ".join(
        f"{_expression(name, column.type.name)} AS {ident(column.name)}"
        for name, column in zip(names, columns, strict=True)
    )
    # The statement may end in a remark, hence the line breaks.
    return (
        f"SELECT row_to_json(r)::text FROM "
        f"(SELECT {selected} FROM (\n{sql}\n) AS q({', '.join(names)})) AS r"
    )


def _expression(name: str, type_: str) -> str:
    if type_ == "timestamptz":
        utc = f"(to_json({name} AT TIME ZONE 'UTC') #>> '{{}}') || 'Z'"
        return f"CASE WHEN isfinite({name}) THEN {utc} ELSE {name}::text END"
    if type_ in _NUMERIC:
        return f"nullif({name}, 'NaN')"
    return name


async def _read(statement: PreparedStatement) -> AsyncIterator[list[str]]:
    rows = SAMPLE_ROWS
    try:
        cursor = await statement.cursor()
        while fetched := await cursor.fetch(rows):
            texts = [row[0] for row in fetched]
            yield texts
            row_bytes = sum(map(len, texts)) // len(texts) + 1
            rows = min(_MAX_ROWS, max(1, _BLOCK_BYTES // row_bytes))
    except _FAILURES as error:
        raise LoadError(f"the database cannot be read: {_said(error)}") from None


def _said(error: Exception) -> str:
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state.startswith(_DATA_EXCEPTION):
            return (
                f"{type(error).__name__} (SQLSTATE {state}; details withheld: they quote the data)"
            )
    if isinstance(error, asyncpg.InternalClientError):
        return "the connection broke"
    return str(error) or type(error).__name__


class _Loop:
    """An event loop in a thread of its own: a source is read from any thread, loop or none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._under_way: asyncio.Task[Any] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result. Raises `LoadError` when it was cancelled."""
        future = asyncio.run_coroutine_threadsafe(self._noted(work), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise interrupted() from None
        except BaseException:
            future.cancel()
            raise

    async def _noted(self, work: Coroutine[Any, Any, T]) -> T:
        self._under_way = asyncio.current_task()
        try:
            return await work
        finally:
            self._under_way = None

    def cancel(self) -> None:
        """Cancel what is under way."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()

    def close(self) -> None:
        """Stop the loop and its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
