"""Backups of an embedded database: one snapshot in one file, and in it a record of what it has to hold.

A backup is an SQLite file without a write-ahead log, under its name only when it is whole and on disk. The
copy is made by `VACUUM INTO` (docs/decisions/0010-backups-and-erasures.md says why): no byte that
the database has freed gets into it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Final

import apsw
import msgspec
from msgspec import Struct

from opdata.clock import now_ms
from opdata.errors import OpdataError, StartupError
from opdata.files import flush
from opdata.master_keys import SealedWith
from opdata.storage.migrate import pending
from opdata.storage.sqlite.connection import connect, distrust, translated
from opdata.storage.sqlite.schema import (
    applied_names,
    find_sealed_with,
    known_migrations,
    require_ours,
)
from opdata.storage.transfer import PAGE_ROWS, Checksum

RECORD_TABLE: Final = "backup_record"
_NAME: Final = "opdata-{}.db"
_NAMES: Final = "opdata-????????T??????.???Z.db"
_DRAFT_SUFFIX: Final = ".opdata-partial"
_ABANDONED_S: Final = 3_600
_PROBLEMS: Final = 20
_STEPS: Final = 1_000_000
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class BackupBroken(OpdataError):
    """The backup is not what was made."""


class TableSum(Struct, frozen=True):
    """The rows of a table, and a checksum of them in any order (see `transfer.Checksum`)."""

    rows: int
    checksum: str


class BackupRecord(Struct, frozen=True, rename="camel"):
    """What a backup says of itself. Everything acknowledged before `started_at_ms` is in it."""

    opdata: str
    started_at_ms: int
    tables: Mapping[str, TableSum]


class Examination(Struct, frozen=True):
    """What was found in a backup. `problems` is empty when it is what was made.

    `pending` are the migrations that a restore applies.
    """

    record: BackupRecord | None
    size_bytes: int
    pending: Sequence[str]
    sealed_with: SealedWith
    problems: Sequence[str]


def new_name(at_ms: int) -> str:
    """The name of a backup made at that time; names sort by it."""
    return _NAME.format(compact_time(at_ms))


def compact_time(at_ms: int) -> str:
    """A time as part of a file's name: `20260406T120001.500Z`."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at:%Y%m%dT%H%M%S}.{at_ms % 1000:03}Z"


def create_backup(database: Path, target: Path, *, busy_timeout_s: float) -> BackupRecord:
    """Copy the database as it is at one moment to `target`, while others go on writing to it.

    The file appears under its name when all of it is on disk, readable by its owner alone. Raises
    `FileExistsError` for a name that is taken, `StartupError` for a database that is missing or not
    ours, `Unavailable` when the disk is full, and `OSError`; nothing is left behind then.
    """
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    _remove_abandoned(target.parent)
    draft = target.with_name(f".{target.name}.{os.getpid()}{_DRAFT_SUFFIX}")
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with translated():
            started_at_ms = _snapshot(database, draft, busy_timeout_s)
            record = _add_record(draft, started_at_ms)
        publish(draft, target)
    finally:
        for leftover in (draft, draft.with_name(f"{draft.name}-journal")):
            leftover.unlink(missing_ok=True)
    return record


def examine_backup(backup: Path) -> Examination:
    """Read a backup in full: its structure, its record, and every row against it. Changes nothing.

    Raises `StartupError` for a file that is missing or no database of ours, `DatabaseTooNew`.
    """
    if not backup.is_file():
        message = f"There is no file {backup}"
        raise StartupError(message)
    try:
        with closing(_read_only(backup)) as connection:
            require_ours(connection)
            return _examined(connection, backup)
    except (apsw.NotADBError, apsw.CorruptError, apsw.IOError, apsw.FullError) as error:
        message = f"{backup} is not a SQLite database, or it is damaged: {error}"
        raise BackupBroken(message) from None


def prune_backups(folder: Path, keep: int) -> Sequence[Path]:
    """Remove all but the newest `keep` backups that `new_name` has named; return those that went."""
    gone = sorted(folder.glob(_NAMES))[:-keep]
    for backup in gone:
        backup.unlink()
    if gone:
        flush(folder)
    return gone


def publish(draft: Path, target: Path) -> None:
    """Give a finished file its name, for good. Raises `FileExistsError` when the name is taken."""
    flush(draft)
    try:
        target.hardlink_to(draft)
    except OSError as error:
        # Some file systems for foreign machines have no links; there two names at one moment may collide.
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        draft.rename(target)
    else:
        draft.unlink()
    flush(target.parent)


def _snapshot(database: Path, draft: Path, busy_timeout_s: float) -> int:
    """Copy the database into the empty draft; return the time before which all is in it."""
    if not database.exists():
        message = f"There is no database at {database}"
        raise StartupError(message)
    with closing(_read_only(database)) as look:
        require_ours(look)
        if not applied_names(look):
            message = f"{database} holds no tables yet; there is nothing to back up"
            raise StartupError(message)
        pending(known_migrations(), applied_names(look))
    with (
        closing(connect(database, busy_timeout_s=busy_timeout_s)) as connection,
        _stoppable(connection),
    ):
        started_at_ms = now_ms()
        connection.execute("VACUUM INTO ?", (str(draft),))
    return started_at_ms


def _add_record(draft: Path, started_at_ms: int) -> BackupRecord:
    with closing(apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        # Nobody else has the draft, and it is thrown away when anything fails.
        connection.pragma("journal_mode", "MEMORY")
        record = BackupRecord(version("opdata"), started_at_ms, _sums(connection))
        connection.execute(f"CREATE TABLE {RECORD_TABLE} (record TEXT NOT NULL) STRICT")
        connection.execute(
            f"INSERT INTO {RECORD_TABLE} VALUES (?)", (msgspec.json.encode(record).decode(),)
        )
    return record


def _examined(connection: apsw.Connection, backup: Path) -> Examination:
    problems = []
    for (said,) in connection.execute(f"PRAGMA integrity_check({_PROBLEMS})"):
        if said != "ok":
            problems.append(f"integrity: {said}")
    todo = pending(known_migrations(), applied_names(connection))
    record = _record_in(connection)
    if record is None:
        problems.append(
            "it has no record of what it must hold: opdata backup create did not make it"
        )
    else:
        problems += _differences(record.tables, _sums(connection))
    return Examination(
        record=record,
        size_bytes=backup.stat().st_size,
        pending=[migration.name for migration in todo],
        sealed_with=find_sealed_with(connection),
        problems=problems,
    )


def _record_in(connection: apsw.Connection) -> BackupRecord | None:
    if RECORD_TABLE not in _tables(connection):
        return None
    rows = connection.execute(f"SELECT record FROM {RECORD_TABLE}").fetchall()
    with suppress(msgspec.DecodeError, ValueError):
        [(text,)] = rows
        return msgspec.json.decode(str(text), type=BackupRecord)
    return None


def _differences(recorded: Mapping[str, TableSum], found: Mapping[str, TableSum]) -> Iterator[str]:
    for name in sorted({*recorded, *found}):
        before, now = recorded.get(name), found.get(name)
        if before is None or now is None:
            yield f"table {name} is {'not of this backup' if before is None else 'gone'}"
        elif before.rows != now.rows:
            yield f"table {name} has {now.rows:,} rows, and had {before.rows:,}"
        elif before != now:
            yield f"table {name} holds other rows than it did"


def _sums(connection: apsw.Connection) -> dict[str, TableSum]:
    """Rows and checksum of every table but the record itself."""
    return {name: _sum(connection, name) for name in _tables(connection) if name != RECORD_TABLE}


def _sum(connection: apsw.Connection, table: str) -> TableSum:
    total = Checksum()
    rows = connection.execute(f'SELECT * FROM "{table}"')
    while page := list(islice(rows, PAGE_ROWS)):
        total.add(page)
    return TableSum(total.rows, total.hex)


def _tables(connection: apsw.Connection) -> Sequence[str]:
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
    return [name for (name,) in connection.execute(sql)]


def _read_only(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    distrust(connection)
    return connection


@contextmanager
def _stoppable(connection: apsw.Connection) -> Iterator[None]:
    """Let Ctrl-C end a statement that takes long: Python hears of it where SQLite asks Python."""
    connection.set_progress_handler(lambda: False, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes have left behind that were killed: nobody has written to it for an hour."""
    for draft in folder.glob(f".*{_DRAFT_SUFFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _ABANDONED_S:
                draft.unlink()
