"""SQLite connections: how they are opened, and what their errors mean to the rest of opdata."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import apsw

from opdata.config import without_password
from opdata.errors import ConfigError, Unavailable
from opdata.storage.queries import load_queries, rows_of_values

SQL: Final = load_queries(__package__)

_ROWS_A_STATEMENT: Final = 100
_CACHED_STATEMENTS: Final = 100
_CACHE_KIB: Final = 32 * 1024
_CHECKPOINT_PAGES: Final = 16_000  # 64 MiB of log: many changes of a page are written back once

_TRANSIENT: Final = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.NoMemError,
    apsw.InterruptError,
    apsw.ConnectionClosedError,
)


def path_of(url: str) -> Path:
    """The file that `sqlite:///path` names; `sqlite:////abs` is absolute. Raises `ConfigError`."""
    path = unquote(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or not path or "?" in path:
        message = (
            "A SQLite URL reads sqlite:///relative/path or sqlite:////absolute/path, not "
            f"{without_password(url)!r}"
        )
        raise ConfigError(message)
    return Path(path)


def file_of(path: Path) -> tuple[int, int] | None:
    """What tells the file from another one under its name; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def create_file(path: Path) -> None:
    """Make sure the file exists, readable by its owner alone; its log and index get its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def connect(path: Path, *, busy_timeout_s: float, read_only: bool = False) -> apsw.Connection:
    """Open a connection to an existing or new database file, with every pragma in place."""
    flags = apsw.SQLITE_OPEN_READWRITE | (0 if read_only else apsw.SQLITE_OPEN_CREATE)
    while True:
        file = file_of(path)
        connection = apsw.Connection(str(path), flags=flags, statementcachesize=_CACHED_STATEMENTS)
        wait_when_busy(connection, busy_timeout_s)
        use_log(connection, busy_timeout_s)
        # While its lock was being waited for, a restore may have put another file in its place.
        if file in {None, file_of(path)}:
            break
        connection.close()
    # The write-ahead log is flushed before a commit returns: acknowledged means on disk (W25).
    connection.pragma("synchronous", "FULL")
    # Freed bytes are overwritten with zeros: an erased person leaves nothing in free space (W51).
    connection.pragma("secure_delete", 1)
    # The journals of savepoints stay in memory instead of spilling into a temporary file.
    connection.pragma("temp_store", "MEMORY")
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
    distrust(connection)
    if read_only:
        connection.pragma("query_only", 1)
        # Whether the log may be copied is for writers to know.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def distrust(connection: apsw.Connection) -> None:
    """Take nothing that stands in the file for well-meant: it may have been made by somebody else.

    Triggers, views and defaults of its schema call no function that can do harm, no statement writes to
    the schema or the pages behind SQLite's back, and a page is checked before its cells are read.
    """
    connection.pragma("trusted_schema", 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.pragma("cell_size_check", 1)


def use_log(connection: apsw.Connection, timeout_s: float) -> None:
    """Set WAL mode, trying for up to `timeout_s`.

    When several connections do so to a new file, SQLite refuses all but one of them at once, without
    asking a busy handler.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_pause_s())
        else:
            return


def wait_when_busy(connection: apsw.Connection, timeout_s: float) -> None:
    """Wait up to `timeout_s` for another connection's lock.

    SQLite's own handler sleeps up to 100 ms at a time, which starves a process beside a busy one;
    this one sleeps about a millisecond.
    """
    deadlines: dict[int, float] = {}

    def busy(tries: int) -> bool:
        if tries == 0:
            deadlines[0] = time.monotonic() + timeout_s
        time.sleep(_pause_s())
        return time.monotonic() < deadlines[0]

    connection.set_busy_handler(busy)


def _pause_s() -> float:
    return random.uniform(0.000_2, 0.001_5)  # noqa: S311 - jitter, no secret


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors that may pass (lock, disk, memory) into `Unavailable`; others are faults of ours."""
    try:
        yield
    except _TRANSIENT as error:
        message = "The database cannot take the request now; nothing was written. Try again later."
        raise Unavailable(message) from error


def write_rows(connection: apsw.Connection, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a named `INSERT … VALUES` for every row; see `insert_rows`."""
    insert_rows(connection, SQL[name], rows)


def insert_rows(connection: apsw.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run an `INSERT … VALUES` for every row, many rows a statement.

    Each statement run gives the interpreter's lock away and has to win it back; a hundred rows at
    a time keep that from dominating while other requests are being decoded.
    """
    many = rows_of_values(sql, _ROWS_A_STATEMENT)
    whole = len(rows) - len(rows) % _ROWS_A_STATEMENT
    for start in range(0, whole, _ROWS_A_STATEMENT):
        block = rows[start : start + _ROWS_A_STATEMENT]
        connection.execute(many, tuple(chain.from_iterable(block)))
    if whole < len(rows):
        connection.executemany(sql, rows[whole:])


def one_row(connection: apsw.Connection, name: str, *values: Any) -> tuple[Any, ...] | None:
    """A query's only row, if it has one."""
    row: tuple[Any, ...] | None = connection.execute(SQL[name], values).fetchone()
    return row


def the_row(connection: apsw.Connection, name: str, *values: Any) -> tuple[Any, ...]:
    """A query's only row, which is known to be there."""
    row = one_row(connection, name, *values)
    assert row is not None, name
    return row


def scalar(connection: apsw.Connection, name: str, *values: Any) -> Any:
    """The first column of a query's only row; None when there is no row."""
    row = one_row(connection, name, *values)
    return None if row is None else row[0]


Task = Callable[[apsw.Connection], Any]
