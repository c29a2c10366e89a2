"""An SQLite file as the source or the target of a copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from opdata.clock import now_ms
from opdata.errors import StartupError, Unavailable
from opdata.storage.migrate import UNFINISHED_COPY
from opdata.storage.sqlite.connection import (
    connect,
    create_file,
    insert_rows,
    path_of,
    translated,
    wait_when_busy,
)
from opdata.storage.sqlite.schema import known_names, migrate, require_migrated, require_ours
from opdata.storage.transfer import (
    PAGE_BYTES,
    PAGE_ROWS,
    TABLES,
    AlreadyThere,
    Holds,
    Key,
    Numbers,
    Page,
    RowsRefused,
    Table,
)

T = TypeVar("T")

# The order of the file, where a table has one, else that of the primary key.
_ORDER: Final = {
    "master_keys": ("key_id",),
    "operators": ("operator_id",),
    "data_keys": ("operator_id", "key_id"),
    "entities": ("entity_no",),
    "events": ("event_no",),
    "event_keys": ("operator_id", "idempotency_key"),
    "states": ("operator_id", "entity_no", "state_key"),
    "jobs": ("operator_id", "job_id"),
    "queued_batches": ("operator_id", "job_id"),
    "queued_erasures": ("operator_id", "job_id", "external_id"),
    "queue_heads": ("operator_id",),
    "idempotency_records": ("operator_id", "idempotency_key", "method", "path"),
    "erasure_ledger": ("operator_id", "entity_id"),
    "legal_holds": ("operator_id", "external_id"),
    "archive_files": ("operator_id", "file_id"),
    "audit_log": ("operator_id", "seq"),
    "api_keys": ("operator_id", "key_id"),
}
_KEY_TAKEN: Final = (
    apsw.SQLITE_CONSTRAINT_PRIMARYKEY,
    apsw.SQLITE_CONSTRAINT_ROWID,
    apsw.SQLITE_CONSTRAINT_UNIQUE,
)
_TOMBSTONE_NO: Final = "CASE WHEN deleted_at_ms IS NULL THEN 0 ELSE entity_no END"
_CACHE_KIB: Final = 128 * 1024  # rows may arrive in an order that is not the file's


async def source(url: str, *, busy_timeout_s: float) -> SqliteSource:
    """The file of a `sqlite:///` URL, with its write lock held.

    Raises `ConfigError`, `StartupError` for a file that is missing or not ours, and `Unavailable`
    when somebody else holds the lock for longer than `busy_timeout_s`.
    """
    reader = SqliteSource(path_of(url), busy_timeout_s)
    try:
        await reader.open()
    except BaseException:
        await reader.close()
        raise
    return reader


async def target(url: str, *, busy_timeout_s: float) -> SqliteTarget:
    """The file of a `sqlite:///` URL, which need not exist and is not opened yet."""
    return SqliteTarget(path_of(url), busy_timeout_s)


class _SqliteReader:
    """One connection, used in a thread of its own. See `Reader`."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._opened: apsw.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-copy")
        self.identity = _identity_of(path)

    async def close(self) -> None:
        """See `Reader.close`."""

        def hang_up() -> None:
            if self._opened is not None:
                self._opened.close(force=True)

        await self._run(hang_up)
        self._thread.shutdown()

    async def count(self, table: Table) -> int:
        """See `Reader.count`."""
        (count,) = await self._run(lambda: self._row(f"SELECT count(*) FROM {table.name}"))
        return int(count)

    async def pages(self, table: Table, after: Key | None = None) -> AsyncGenerator[Page, None]:
        """See `Reader.pages`."""
        key = ", ".join(_ORDER[table.name])
        columns = ", ".join(table.columns)
        sql = f"SELECT {columns} FROM {table.name}"
        if after:
            sql += f" WHERE ({key}) > ({', '.join('?' * len(after))})"
        sql += f" ORDER BY {key}"
        rows = await self._run(lambda: self._connection.execute(sql, after or ()))
        bulky = [itemgetter(table.columns.index(name)) for name in table.bulky]
        while page := await self._run(partial(_next_page, rows, bulky)):
            yield page

    @property
    def _connection(self) -> apsw.Connection:
        assert self._opened is not None
        return self._opened

    def _row(self, sql: str, *values: Any) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        assert row is not None, sql
        return row

    def _connect(self) -> apsw.Connection:
        """Open the file once it is known to be ours. Raises `StartupError`."""
        try:
            # Looked at before any pragma could write to it.
            with closing(apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)) as look:
                wait_when_busy(look, self._busy_timeout_s)
                require_ours(look)
            return connect(self._path, busy_timeout_s=self._busy_timeout_s)
        except (apsw.NotADBError, apsw.CorruptError) as error:
            message = (
                f"{self._path} is not a SQLite database, or it is damaged; nothing was touched"
            )
            raise StartupError(message) from error

    async def _run(self, work: Callable[[], T]) -> T:
        def translating() -> T:
            with translated():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, translating)


class SqliteSource(_SqliteReader):
    """See `Source`. The lock is that of a write transaction which never writes."""

    async def open(self) -> None:
        """Take the lock."""

        def open_() -> None:
            if not self._path.exists():
                message = f"There is no database at {self._path}"
                raise StartupError(message)
            self._opened = self._connect()
            require_migrated(self._opened)
            try:
                self._opened.execute("BEGIN IMMEDIATE")
            except apsw.BusyError as error:
                message = f"{self._path} is being written to, or copied; nothing was done"
                raise Unavailable(message) from error

        await self._run(open_)

    def order(self, table: Table) -> Sequence[str]:
        """See `Source.order`."""
        return _ORDER[table.name]

    async def numbers(self) -> Numbers:
        """See `Source.numbers`."""

        def read() -> Numbers:
            given = dict(self._connection.execute("SELECT name, seq FROM sqlite_sequence"))
            (event_no,) = self._row("SELECT coalesce(max(event_no), 0) FROM events")
            return Numbers(given.get("operators", 0), given.get("entities", 0), event_no)

        return await self._run(read)


class SqliteTarget(_SqliteReader):
    """See `Target`. While it is written no other process gets at the file."""

    async def look(self) -> Holds:
        """See `Target.look`."""

        def look() -> Holds:
            if not self._path.exists():
                return Holds.NOTHING
            self._opened = self._connect()
            self._opened.execute("BEGIN")
            present = {row[0] for row in self._opened.execute("SELECT name FROM sqlite_schema")}
            if "migrations" not in present:
                return Holds.NOTHING
            applied = {row[0] for row in self._opened.execute("SELECT name FROM migrations")}
            if UNFINISHED_COPY in applied:
                if applied != {UNFINISHED_COPY, *known_names()}:
                    message = (
                        f"{self._path} is a copy that another version of opdata has begun: "
                        "remove it, or end it with that version"
                    )
                    raise StartupError(message)
                return Holds.UNFINISHED
            for table in TABLES:
                if table.name in present and self._row(
                    f"SELECT EXISTS (SELECT 1 FROM {table.name})"
                ) == (1,):
                    require_migrated(self._opened)
                    return Holds.ROWS
            return Holds.NOTHING

        return await self._run(look)

    async def begin(self, numbers: Numbers) -> None:
        """See `Target.begin`."""

        def begin() -> None:
            if self._opened is not None:
                self._opened.close(force=True)
            create_file(self._path)
            self._opened = self._connect()
            self._opened.pragma("locking_mode", "EXCLUSIVE")
            applied = set()
            if self._has_migrations():
                applied = {row[0] for row in self._opened.execute("SELECT name FROM migrations")}
            if UNFINISHED_COPY not in applied:
                migrate(self._opened)
            # What a power cut takes away is copied again; the mark goes with a flush of everything.
            self._opened.pragma("synchronous", "NORMAL")
            self._opened.pragma("cache_size", -_CACHE_KIB)
            with self._immediate():
                self._mark(numbers)

        await self._run(begin)

    async def last(self, table: Table, order: Sequence[str]) -> Key | None:
        """See `Target.last`."""
        columns = [_TOMBSTONE_NO if column == "tombstone_no" else column for column in order]
        descending = ", ".join(f"{column} DESC" for column in columns)
        sql = f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {descending} LIMIT 1"
        return await self._run(lambda: self._connection.execute(sql).fetchone())

    async def write(self, table: Table, page: Page) -> None:
        """See `Target.write`."""
        columns = ", ".join(table.columns)
        values = ", ".join("?" * len(table.columns))
        sql = f"INSERT OR FAIL INTO {table.name} ({columns}) VALUES ({values})"

        # Neighbours go to the same page of the file.
        rows = sorted(page, key=itemgetter(*map(table.columns.index, _ORDER[table.name])))

        def write() -> None:
            try:
                with self._immediate():
                    insert_rows(self._connection, sql, rows)
            except apsw.ConstraintError as error:
                if error.extendedresult in _KEY_TAKEN:  # type: ignore[attr-defined]  # their stubs lack it
                    raise AlreadyThere from error
                message = f"The target does not take the rows of {table.name}: {error}"
                raise RowsRefused(message) from None

        await self._run(write)

    async def clear(self, table: Table) -> None:
        """See `Target.clear`."""

        def clear() -> None:
            with self._immediate():
                self._connection.execute(f"DELETE FROM {table.name}")

        await self._run(clear)

    async def finish(self) -> None:
        """See `Target.finish`."""

        def finish() -> None:
            self._connection.pragma("synchronous", "FULL")
            with self._immediate():
                self._connection.execute(
                    "DELETE FROM migrations WHERE name = ?", (UNFINISHED_COPY,)
                )
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

        await self._run(finish)
        self.identity = _identity_of(self._path)

    def _has_migrations(self) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'migrations')"
        return self._row(sql) == (1,)

    def _mark(self, numbers: Numbers) -> None:
        connection = self._connection
        connection.execute(
            "INSERT OR IGNORE INTO migrations (name, applied_at_ms) VALUES (?, ?)",
            (UNFINISHED_COPY, now_ms()),
        )
        # Rows have a number of their own; this is for those that were given out and are gone.
        for table, number in (
            ("operators", numbers.operator_id),
            ("entities", numbers.entity_no),
        ):
            given = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
            ).fetchone()
            if given is None:
                connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, number))
            elif given[0] < number:
                connection.execute(
                    "UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (number, table)
                )

    @contextmanager
    def _immediate(self) -> Iterator[None]:
        """A write transaction, undone when the block raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _identity_of(path: Path) -> str | None:
    """The file itself, whatever way leads to it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def _next_page(rows: Iterator[Any], bulky: Sequence[Callable[[Any], Any]]) -> Page:
    """The rows of a page; none at the end."""
    page: list[Any] = []
    size = 0
    for row in islice(rows, PAGE_ROWS):
        page.append(row)
        for column in bulky:
            size += len(column(row) or b"")
        if size > PAGE_BYTES:
            break
    return page
