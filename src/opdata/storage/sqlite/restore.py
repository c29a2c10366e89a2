"""A backup in place of an embedded database: the file it becomes, and what only the replaced one knows.

The new database is made beside the old one and takes its name in one step, when it is finished and
nobody has the old one open. The old one is kept under another name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import apsw
from msgspec import Struct

from opdata.clock import now_ms
from opdata.errors import StartupError, Unavailable
from opdata.files import flush
from opdata.model import Erasure, LegalHold
from opdata.storage.sqlite.backup import RECORD_TABLE, compact_time, publish
from opdata.storage.sqlite.connection import translated, wait_when_busy
from opdata.storage.sqlite.schema import require_ours

T = TypeVar("T")

_FIRST_LOCK_BYTE: Final = 0x4000_0000
_LOCK_BYTES: Final = 512
"""Where SQLite locks a database file. In WAL mode every connection that has read holds one of them."""

_MOVED: Final = ("", "-wal")

_TOMBSTONES: Final = """
SELECT o.key_salt, e.entity_id, e.deleted_at_ms
FROM operators AS o JOIN entities AS e USING (operator_id) WHERE e.deleted_at_ms IS NOT NULL
"""
_ERASURES: Final = """
SELECT o.key_salt, l.entity_id, l.erased_at_ms, l.reason
FROM operators AS o JOIN erasure_ledger AS l USING (operator_id)
"""
_HOLDS: Final = """
SELECT o.key_salt, h.external_id, h.reason, h.placed_at_ms
FROM operators AS o JOIN legal_holds AS h USING (operator_id)
"""
_REVOKED: Final = """
SELECT o.key_salt, k.key_id, k.revoked_at_ms
FROM operators AS o JOIN api_keys AS k USING (operator_id) WHERE k.revoked_at_ms IS NOT NULL
"""


class Memory(Struct, frozen=True):
    """What a database knows that a backup of it made earlier does not, by operator.

    Operators go by their salt, which is theirs alone. `holds` is None where the schema is older.
    `revoked` are keys with the time of their revocation.
    """

    erasures: Mapping[bytes, Sequence[Erasure]]
    holds: Mapping[bytes, Sequence[LegalHold]] | None
    revoked: Mapping[bytes, Sequence[tuple[str, int]]]


class Replacement(Struct):
    """A restore under way. `draft` is the database to be, `kept` where one that is there is kept.

    `memory` is what that one knows; None when there is none or it cannot be read, and `unreadable`
    says why.
    """

    path: Path
    draft: Path
    kept: Path | None = None
    memory: Memory | None = None
    unreadable: str | None = None
    seen: tuple[object, ...] = ()
    done: bool = False


@contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[Replacement]:
    """Make ready to replace a database, or to make one; the draft goes if it is not put in place.

    Raises `StartupError` when there is a database and not `force`, or it is another program's, and
    `Unavailable` while anybody has it open. Nothing is touched then.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path.parent):
        replaced = any(_beside(path, suffix).exists() for suffix in _MOVED)
        if replaced and not force:
            message = (
                f"There is a database at {path}; nothing was touched. With --force it is replaced, "
                "and kept under another name"
            )
            raise StartupError(message)
        replacement = Replacement(path, path.with_name(f"{path.name}.restoring"))
        _remove(replacement.draft)
        try:
            if replaced:
                replacement.kept = _keep(path)
                replacement.memory, replacement.unreadable = _remember(path)
                replacement.seen = _state(path)
            yield replacement
        finally:
            _remove(replacement.draft)
            if replacement.kept is not None and not replacement.done:
                for suffix in _MOVED:
                    _beside(replacement.kept, suffix).unlink(missing_ok=True)


def copy_backup(backup: Path, draft: Path) -> None:
    """The backup as a database again: without its record, and readable by its owner alone."""
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with backup.open("rb") as source, os.fdopen(handle, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    with translated(), closing(apsw.Connection(str(draft))) as connection:
        connection.execute(f"DROP TABLE {RECORD_TABLE}")


def put_in_place(replacement: Replacement) -> None:
    """Let the finished draft take the database's name.

    At every moment there is one of the two under the name, whole. Raises `Unavailable` when somebody
    has opened or written the replaced one meanwhile; it stays then.
    """
    path, draft = replacement.path, replacement.draft
    log = _beside(draft, "-wal")
    assert not log.exists() or not log.stat().st_size, "the draft was closed"
    if replacement.kept is None:
        publish(draft, path)
        return
    with _unused(path):
        if _state(path) != replacement.seen:
            message = f"{path} was written to meanwhile; nothing was replaced. Try again"
            raise Unavailable(message)
        flush(path.parent)
        replacement.done = True
        kept_log = _beside(replacement.kept, "-wal")
        if kept_log.exists() and not kept_log.stat().st_size:
            kept_log.unlink()  # it was emptied into the database
        # The new database must never be found beside the log of the old one.
        for suffix in ("-wal", "-shm"):
            _beside(path, suffix).unlink(missing_ok=True)
        flush(path.parent)
        flush(draft)
        draft.replace(path)
        flush(path.parent)


def _keep(path: Path) -> Path:
    """Give the database and its log second names, before anything looks at it. Raises `Unavailable`.

    SQLite, asked to read a file that is damaged, may throw away the log beside it.
    """
    kept = path.with_name(f"{path.name}.replaced-{compact_time(now_ms())}")
    with _unused(path):
        for suffix in _MOVED:
            with suppress(FileNotFoundError):
                _beside(kept, suffix).hardlink_to(_beside(path, suffix))
    return kept


def _remember(path: Path) -> tuple[Memory | None, str | None]:
    """What the database knows, or why it cannot say. Its log is emptied into it."""
    if not path.exists():
        return None, "its file is gone"
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            wait_when_busy(connection, 0)
            require_ours(connection)
            memory = _memory_of(connection)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError as error:
        raise Unavailable(_in_use(path)) from error
    except apsw.Error as error:
        return None, str(error)
    return memory, None


def _memory_of(connection: apsw.Connection) -> Memory:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    revoked = _by_salt(connection, _REVOKED, _pair)
    if "erasure_ledger" not in tables:
        # From before there was a ledger: who has been erased has left a tombstone.
        return Memory(_by_salt(connection, _TOMBSTONES, Erasure), None, revoked)
    erasures = _by_salt(connection, _ERASURES, Erasure)
    return Memory(erasures, _by_salt(connection, _HOLDS, LegalHold), revoked)


def _pair(key_id: str, revoked_at_ms: int) -> tuple[str, int]:
    return key_id, revoked_at_ms


def _by_salt(
    connection: apsw.Connection, sql: str, kind: Callable[..., T]
) -> Mapping[bytes, Sequence[T]]:
    found: dict[bytes, list[T]] = {}
    for salt, *columns in connection.execute(sql):
        found.setdefault(salt, []).append(kind(*columns))
    return found


def _remove(draft: Path) -> None:
    for file in (draft, *draft.parent.glob(f"{draft.name}-*")):
        file.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One restore at a time in a folder. Raises `Unavailable`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        message = f"Another restore is under way in {folder}; nothing was done"
        raise Unavailable(message) from None
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Nobody has the database open, and nobody gets to read it until the block ends.

    Works on a damaged file, too. A process that opens the file meanwhile waits for the lock, and then
    looks again which file it is (`connection.connect`). Raises `Unavailable`.
    """
    if not path.exists():
        yield
        return
    handle = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _FIRST_LOCK_BYTE)
        except (BlockingIOError, PermissionError):
            raise Unavailable(_in_use(path)) from None
        yield
    finally:
        os.close(handle)


def _in_use(path: Path) -> str:
    return f"{path} is in use; nothing was touched. Stop the server and every other command first"


def _state(path: Path) -> tuple[object, ...]:
    """What changes when the database is written to, or is another file."""
    states: list[object] = []
    for suffix in _MOVED:
        with suppress(FileNotFoundError):
            found = _beside(path, suffix).stat()
            states.append((suffix, found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(states)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
