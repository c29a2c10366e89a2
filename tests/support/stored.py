"""What stands in a server's database, seen and touched behind the server's back, on either store."""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import apsw
import psycopg
from psycopg import IsolationLevel
from psycopg.types.string import TextLoader

from tests.support.kept import Connection, KeptConnection
from tests.support.postgres import drop_database, migrated_database, postgres_server

STORES: Final = ("sqlite", "postgres")
"""The stores that the tests run on."""

_ON_THE_WAY: Final = ("rate_buckets", "write_marks")
_MTIME_SLACK_S: Final = 1


class Stored(ABC):
    """A database. Statements name tables without a schema and take their values as `?`."""

    keeps_old_bytes: ClassVar[bool]
    """Whether what was rolled back or erased may leave bytes where no row is any more (W51)."""
    erased_within_s: ClassVar[float]
    """How long what was erased may stay in `held_bytes`; 0 for not at all (W51)."""
    fault: ClassVar[str]
    """What the error of `failing_writes` is called in a log."""

    @abstractmethod
    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query; JSON is its text."""

    @abstractmethod
    def change(self, sql: str, *values: Any) -> None:
        """Carry out a statement."""

    @abstractmethod
    def tables(self) -> Sequence[str]:
        """All tables in order, without what requests leave on their way, whatever they do."""

    @abstractmethod
    def raw_bytes(self) -> bytes:
        """Every byte of the database's files, its log included."""

    @abstractmethod
    def held_bytes(self, table: str) -> bytes:
        """The bytes of all rows, also of versions no query sees, and of all else that must not keep any."""

    @abstractmethod
    def problems(self) -> Sequence[str]:
        """What the database's own check of its files finds."""

    @contextmanager
    @abstractmethod
    def locked(self) -> Iterator[None]:
        """Another connection holds what a write needs; reads go on."""

    @contextmanager
    @abstractmethod
    def failing_writes(self, table: str, message: str = "x") -> Iterator[None]:
        """Every row that is added to the table is refused with an error that nobody foresees."""

    @abstractmethod
    def remove(self) -> None:
        """Take the database away under the server's feet."""


class StoredInSqlite(Stored):
    """A database file."""

    keeps_old_bytes = False
    erased_within_s = 0.0
    fault = "ConstraintError"

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(self._path), flags=flags)) as connection:
            return list(connection.execute(sql, values))

    def change(self, sql: str, *values: Any) -> None:
        with closing(apsw.Connection(str(self._path))) as connection:
            connection.set_busy_timeout(10_000)
            connection.execute(sql, values)

    def tables(self) -> Sequence[str]:
        sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
        return [name for (name,) in self.rows(sql)]

    def raw_bytes(self) -> bytes:
        # The log, its index and the buckets lie beside the file, and begin with its name.
        files = sorted(self._path.parent.glob(f"{self._path.name}*"))
        return b"".join(file.read_bytes() for file in files)

    def held_bytes(self, table: str) -> bytes:
        _ = table  # nor is any other part of the files to keep them
        return self.raw_bytes()

    def problems(self) -> Sequence[str]:
        return [said for (said,) in self.rows("PRAGMA integrity_check") if said != "ok"]

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(apsw.Connection(str(self._path))) as elsewhere:
            elsewhere.execute("BEGIN IMMEDIATE")
            yield
            elsewhere.execute("ROLLBACK")

    @contextmanager
    def failing_writes(self, table: str, message: str = "x") -> Iterator[None]:
        raised = f"SELECT RAISE(ABORT, '{message}')"
        self.change(f"CREATE TRIGGER fault BEFORE INSERT ON {table} BEGIN {raised}; END")
        yield
        self.change("DROP TRIGGER fault")

    def remove(self) -> None:
        for file in self._path.parent.glob(f"{self._path.name}*"):
            file.unlink()


class StoredInPostgres(Stored):
    """A database of a server whose files this process may read."""

    keeps_old_bytes = True
    erased_within_s = 10.0
    fault = "RaiseError"

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        if current_thread() is main_thread():
            return _reader(self._url).rows(*_translated(sql, values))
        with self._connected() as connection:
            return connection.execute(*_translated(sql, values)).fetchall()

    def change(self, sql: str, *values: Any) -> None:
        with self._connected() as connection:
            connection.execute(*_translated(sql, values))

    def tables(self) -> Sequence[str]:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'opdata' ORDER BY 1"
        return [name for (name,) in self.rows(sql) if name not in _ON_THE_WAY]

    def raw_bytes(self) -> bytes:
        home, folder = self._folders()
        # The log of all the server's databases, as far as it was written in this one's time.
        since = (folder / "PG_VERSION").stat().st_mtime - _MTIME_SLACK_S
        # The log first: a checkpoint lets go of it.
        log = _bytes_below(home / "pg_wal", since)
        self.change("CHECKPOINT")
        return log + _bytes_below(folder, 0)

    def held_bytes(self, table: str) -> bytes:
        self.change("CHECKPOINT")
        home, _ = self._folders()
        [(path,)] = self.rows("SELECT pg_relation_filepath(?::regclass)", table)
        heap = (home / path).read_bytes()
        pages = [heap[at : at + 8192] for at in range(0, len(heap), 8192)]
        return b"".join(version for page in pages for version in _versions_on(page))

    def problems(self) -> Sequence[str]:
        # Each table and its index agree: whichever of the two is read, as many rows are there.
        counts: dict[str, set[object]] = {}
        with self._connected() as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            with connection.transaction():
                for scan in ("index", "seq"):
                    for one in ("seqscan", "indexscan", "indexonlyscan", "bitmapscan"):
                        connection.execute(f"SET LOCAL enable_{one} = {one.startswith(scan)}")
                    for table in self.tables():
                        read = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                        counts.setdefault(table, set()).add(read)
        return [f"{table}: {found}" for table, found in counts.items() if len(found) > 1]

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._connected() as elsewhere, elsewhere.transaction(force_rollback=True):
            # All but the claims: who waits for one of those is told that its twin is under way.
            tables = ", ".join(name for name in self.tables() if name != "idempotency_records")
            elsewhere.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
            yield

    @contextmanager
    def failing_writes(self, table: str, message: str = "x") -> Iterator[None]:
        # Its detail is a whole row, as it is when a constraint fails.
        raised = f"RAISE EXCEPTION '{message}' USING DETAIL = row_to_json(NEW)::text;"
        self.change(
            f"CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {raised} END$$"
        )
        self.change(
            f"CREATE TRIGGER fault BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fault()"
        )
        yield
        self.change("DROP FUNCTION fault CASCADE")

    def remove(self) -> None:
        drop_database(self._url)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with closing(_connect(self._url)) as connection:
            yield connection

    def _folders(self) -> tuple[Path, Path]:
        """The server's data directory, and the folder in it that is this database's."""
        database = urlsplit(self._url).path.strip("/")
        [(home, oid)] = self.rows(
            "SELECT current_setting('data_directory'), oid FROM pg_database WHERE datname = ?",
            database,
        )
        return Path(home), Path(home) / "base" / str(oid)


def _connect(url: str) -> Connection:
    connection = psycopg.connect(url, autocommit=True, options="-c search_path=opdata")
    connection.adapters.register_loader("json", TextLoader)
    return connection


_readers: Final[dict[str, KeptConnection]] = {}


def _reader(url: str) -> KeptConnection:
    """The connection over which the main thread reads: that of the database it read last is kept."""
    if url not in _readers:
        _hang_up()
        _readers[url] = KeptConnection(lambda: _connect(url))
    return _readers[url]


@atexit.register
def _hang_up() -> None:
    while _readers:
        _readers.popitem()[1].close()


def stored_at(url: str) -> Stored:
    """The database of a URL."""
    scheme, _, path = url.partition(":///")
    return StoredInSqlite(Path(path)) if scheme == "sqlite" else StoredInPostgres(url)


@contextmanager
def database_of(store: str) -> Iterator[str]:
    """An empty database of a store, as the setting `db` names it: gone afterwards.

    The embedded one has no name: it is the file in whatever data directory is served.
    """
    if store == "sqlite":
        yield ""
    else:
        url = migrated_database(postgres_server(18).url)
        yield url
        drop_database(url)


def _translated(sql: str, values: Sequence[Any]) -> tuple[Any, Sequence[Any] | None]:
    """A statement and its values as the driver takes them."""
    return (sql.replace("%", "%%").replace("?", "%s"), values) if values else (sql, None)


def _bytes_below(folder: Path, since: float) -> bytes:
    """The bytes of all files in a folder that were changed since then."""
    found = []
    for file in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):  # the server has just done with it
            if file.is_file() and file.stat().st_mtime >= since:
                found.append(file.read_bytes())
    return b"".join(found)


def _versions_on(page: bytes) -> Iterator[bytes]:
    """What the line pointers of a page point at: 15 bits offset, 2 of state, 15 bits length."""
    end_of_pointers = int.from_bytes(page[12:14], "little")
    for at in range(24, end_of_pointers, 4):
        pointer = int.from_bytes(page[at : at + 4], "little")
        offset, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
        if state == 1:  # a row, alive or dead
            yield page[offset : offset + length]
