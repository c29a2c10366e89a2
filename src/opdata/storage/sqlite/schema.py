"""The database file itself: creating it, migrating it, and looking it over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from opdata.clock import now_ms
from opdata.errors import StartupError
from opdata.master_keys import SealedWith
from opdata.storage.base import StoreReport
from opdata.storage.migrate import Migration, find_migrations, pending, refuse_pending

MIN_SQLITE: Final = "3.51.3"
"""Older ones can corrupt a database when the write-ahead log is reset while it is being read."""

_APPLICATION_ID: Final = 0x6F706461  # "opda"
_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS migrations ("
    "name TEXT NOT NULL PRIMARY KEY, applied_at_ms INTEGER NOT NULL) STRICT"
)
_TABLES: Final = (
    *("operators", "api_keys", "entities", "events", "states", "jobs", "queued_batches"),
)


def migrate(connection: apsw.Connection, *, dry_run: bool = False) -> Sequence[str]:
    """Apply what is pending, each migration in a transaction; return the names.

    Several processes may do this at once: each looks again with the write lock held. Raises `DatabaseTooNew`.
    """
    todo = pending(known_migrations(), applied_names(connection))
    names = []
    for migration in () if dry_run else todo:
        with _immediate(connection):
            connection.execute(_CREATE)
            if migration.name in applied_names(connection):
                continue
            connection.pragma("application_id", _APPLICATION_ID)
            connection.execute(migration.sql)
            connection.execute(
                "INSERT INTO migrations (name, applied_at_ms) VALUES (?, ?)",
                (migration.name, now_ms()),
            )
        names.append(migration.name)
    return [migration.name for migration in todo] if dry_run else names


def require_migrated(connection: apsw.Connection) -> None:
    """Raise `DatabaseNotMigrated` or `DatabaseTooNew` unless the schema is this code's."""
    refuse_pending(pending(known_migrations(), applied_names(connection)))


def find_sealed_with(connection: apsw.Connection) -> SealedWith:
    """What the database says of master keys, of this schema version or an older one.

    Raises `DatabaseTooNew` and `StartupError`, see `pending`.
    """
    pending(known_migrations(), applied_names(connection))
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if "master_keys" not in tables:
        return SealedWith({}, frozenset())
    checks = dict(connection.execute("SELECT key_id, check_value FROM master_keys"))
    if "data_keys" not in tables:
        return SealedWith(checks, frozenset(checks))
    needed = connection.execute(
        "SELECT DISTINCT master_key_id FROM data_keys WHERE retired_at_ms IS NULL"
    )
    return SealedWith(checks, frozenset(key_id for (key_id,) in needed))


def inspect(connection: apsw.Connection, path: Path) -> StoreReport:
    """Versions, sizes, row counts and the integrity check."""
    applied = applied_names(connection)
    todo = [migration.name for migration in pending(known_migrations(), applied)]
    problems = [
        f"integrity: {row[0]}"
        for row in connection.execute("PRAGMA quick_check(20)")
        if row[0] != "ok"
    ]
    problems += [f"migration {name} is pending; run: opdata db migrate" for name in todo]
    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < tuple(map(int, MIN_SQLITE.split("."))):
        problems.append(
            f"SQLite {version} is older than {MIN_SQLITE} and can corrupt a WAL database"
        )
    present = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    counts = {
        table: _count(connection, f"SELECT count(*) FROM {table}")
        for table in _TABLES
        if table in present
    }
    return StoreReport(
        store="sqlite",
        location=str(path),
        version=version,
        applied=sorted(applied),
        pending=todo,
        size_bytes=sum(
            file.stat().st_size
            for file in (path, path.with_name(path.name + "-wal"))
            if file.exists()
        ),
        rows=counts,
        problems=problems,
    )


def known_names() -> Sequence[str]:
    """The names of all migrations, in order."""
    return [migration.name for migration in known_migrations()]


def known_migrations() -> Sequence[Migration]:
    """All migrations of this store, in order."""
    return find_migrations(__package__)


def _count(connection: apsw.Connection, sql: str) -> int:
    (count,), *_ = connection.execute(sql)
    return int(count)


def applied_names(connection: apsw.Connection) -> set[str]:
    """The names of the migrations that the database has."""
    exists = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'").fetchone()
    if not exists:
        return set()
    return {row[0] for row in connection.execute("SELECT name FROM migrations")}


def require_ours(connection: apsw.Connection) -> None:
    """Raise `StartupError` when the file has tables and none of them are opdata's."""
    # In this order: another process may be migrating, which sets both at once.
    tables = _count(connection, "SELECT count(*) FROM sqlite_schema")
    if tables and connection.pragma("application_id") != _APPLICATION_ID:
        message = (
            f"{connection.filename} is a SQLite database of another program; nothing was touched"
        )
        raise StartupError(message)


class _immediate:  # noqa: N801 - reads as a statement
    """`BEGIN IMMEDIATE` … `COMMIT`, or `ROLLBACK` when the block raises."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
