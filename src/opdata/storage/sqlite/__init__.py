"""The embedded store: SQLite through apsw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from opdata.errors import ConfigError, StartupError
from opdata.master_keys import SealedWith
from opdata.storage.sqlite.connection import (
    connect,
    create_file,
    path_of,
    translated,
    wait_when_busy,
)
from opdata.storage.sqlite.schema import (
    find_sealed_with,
    known_names,
    require_migrated,
    require_ours,
)
from opdata.storage.sqlite.schema import migrate as apply_migrations
from opdata.storage.sqlite.store import SqliteStore
from opdata.storage.sqlite.transfer import source, target

__all__ = [
    "SqliteStore",
    "distribute",
    "migrate",
    "open_",
    "path_of",
    "sealed_with",
    "source",
    "target",
]


async def open_(
    url: str,
    *,
    busy_timeout_s: float,
    statement_timeout_s: float,  # noqa: ARG001 - for a server's store
    connections: int,  # noqa: ARG001
    migrate: bool,
) -> SqliteStore:
    """Open the database of a `sqlite:///` URL; see `open_store`."""
    path = path_of(url)
    await asyncio.to_thread(_prepare, path, busy_timeout_s, migrate=migrate)
    return SqliteStore(path, busy_timeout_s=busy_timeout_s)


async def sealed_with(url: str, *, busy_timeout_s: float) -> SealedWith:
    """What the file says of master keys, if there is one; see `find_sealed_with`."""
    return await asyncio.to_thread(_sealed_with, path_of(url), busy_timeout_s)


async def migrate(url: str, *, busy_timeout_s: float, dry_run: bool) -> Sequence[str]:
    """Apply pending migrations, or with `dry_run` only name them."""
    return await asyncio.to_thread(_migrate, path_of(url), busy_timeout_s, dry_run=dry_run)


async def distribute(url: str, *, busy_timeout_s: float) -> Sequence[str]:  # noqa: ARG001 - see below
    """Raise `ConfigError`: one file is on one machine."""
    message = (
        f"{url} is one file on one machine and cannot be distributed; opdata copy moves an "
        "installation to a PostgreSQL server, which can"
    )
    raise ConfigError(message)


def _prepare(path: Path, busy_timeout_s: float, *, migrate: bool) -> None:
    if migrate:
        create_file(path)
        _migrate(path, busy_timeout_s, dry_run=False)
        return
    if not path.exists():
        message = f"There is no database at {path}; run: opdata serve, or opdata db migrate"
        raise StartupError(message)
    with _opened(path, busy_timeout_s) as connection:
        require_migrated(connection)


def _sealed_with(path: Path, busy_timeout_s: float) -> SealedWith:
    if not path.exists():
        return SealedWith({}, frozenset())
    with _looking(path, busy_timeout_s) as connection:
        return find_sealed_with(connection)


def _migrate(path: Path, busy_timeout_s: float, *, dry_run: bool) -> Sequence[str]:
    if dry_run and not path.exists():
        return known_names()
    create_file(path)
    with _opened(path, busy_timeout_s) as connection:
        return apply_migrations(connection, dry_run=dry_run)


@contextmanager
def _opened(path: Path, busy_timeout_s: float) -> Iterator[apsw.Connection]:
    """A connection for a moment, once the file is known to be ours. Raises `StartupError`."""
    # Looked at before any pragma could write to it.
    with _looking(path, busy_timeout_s):
        pass
    with _sound(path), closing(connect(path, busy_timeout_s=busy_timeout_s)) as connection:
        yield connection


@contextmanager
def _looking(path: Path, busy_timeout_s: float) -> Iterator[apsw.Connection]:
    """A connection that cannot write, to a file that is ours. Raises `StartupError`."""
    with (
        _sound(path),
        closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as look,
    ):
        wait_when_busy(look, busy_timeout_s)
        require_ours(look)
        yield look


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Raise `StartupError` for a file that turns out to be no database."""
    try:
        with translated():
            yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        message = f"{path} is not a SQLite database, or it is damaged; nothing was touched"
        raise StartupError(message) from error
