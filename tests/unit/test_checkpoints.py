"""The write-ahead log's way back into the database, beside the writer."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from opdata.storage.sqlite import checkpoints
from opdata.storage.sqlite.connection import connect
from opdata.storage.sqlite.writer import Writer

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
COPY_AT, REST, MOST = 40, 5, 160
BOUND = MOST + 10  # a commit goes over it before it is seen
WAIT_S = 10


class Copying(apsw.Connection):
    """A connection of the thread that copies: it can be held up, and its copying can fail."""

    database: Database

    def wal_checkpoint(
        self, dbname: str | None = None, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE
    ) -> tuple[int, int]:
        if threading.current_thread().name != "sqlite-checkpoint":
            self.database.copied_by_writer.set()
            return super().wal_checkpoint(dbname, mode)
        self.database.begun.set()
        assert self.database.go_on.wait(WAIT_S)
        if self.database.error is not None and self.database.fails_at_once:
            raise self.database.error
        copied = super().wal_checkpoint(dbname, mode)
        self.database.copied.set()
        if self.database.error is not None:
            raise self.database.error
        return copied


class Database:
    """A file with a table of wide rows, and what happens to its log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path.with_name(path.name + "-wal")
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.copied, self.copied_by_writer = threading.Event(), threading.Event()
        self.go_on.set()
        self.error: apsw.Error | None = None
        self.fails_at_once = False
        made = connect(path, busy_timeout_s=1)
        made.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, wide TEXT)")
        made.close()

    def connect(self) -> apsw.Connection:
        connection = Copying(str(self.path))
        connection.database = self
        connection.pragma("journal_mode", "wal")  # else SQLite knows of no log yet
        return connection

    def log_pages(self) -> int:
        return self.log.stat().st_size // FRAME_BYTES

    def grow_to(self, pages: int) -> None:
        """Wait until the log has so many pages."""
        deadline_s = time.monotonic() + WAIT_S
        while self.log_pages() < pages:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)

    def copy(self) -> Path:
        """A copy of the file as it is, without its log."""
        # Not by this process: closing the file, it would give up SQLite's locks on it.
        copied = self.path.with_name("copied")
        subprocess.run(["cp", self.path, copied], check=True)
        return copied

    def stored(self) -> list[int]:
        connection = connect(self.path, busy_timeout_s=1)
        assert connection.pragma("integrity_check") == "ok"
        found = [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
        connection.close()
        return found


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(checkpoints, "_COPY_AT_PAGES", COPY_AT)
    monkeypatch.setattr(checkpoints, "_REST_PAGES", REST)
    monkeypatch.setattr(checkpoints, "_MOST_PAGES", MOST)
    return Database(tmp_path / "t.db")


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    running = Writer(database.connect, 1)
    yield running
    database.go_on.set()
    await running.close()


def insert(n: int) -> Callable[[apsw.Connection], None]:
    def task(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * PAGE_BYTES))

    return task


async def write(writer: Writer, numbers: range) -> None:
    async with asyncio.timeout(WAIT_S):
        for n in numbers:
            await writer.run(insert(n))


async def set_in(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, WAIT_S)


async def test_a_log_that_is_written_to_without_a_pause_is_copied_beside_and_begins_anew(
    writer: Writer, database: Database
) -> None:
    await write(writer, range(400))
    assert database.begun.is_set()
    assert database.log_pages() < BOUND
    assert database.stored() == list(range(400))


async def test_the_writer_goes_on_while_the_log_is_copied(
    writer: Writer, database: Database
) -> None:
    database.go_on.clear()
    await write(writer, range(COPY_AT))
    assert await set_in(database.begun)
    await write(writer, range(COPY_AT, COPY_AT + 10))
    database.go_on.set()
    await write(writer, range(COPY_AT + 10, 400))
    assert database.log_pages() < BOUND
    assert database.stored() == list(range(400))


async def test_a_writer_that_is_faster_than_the_copying_waits_before_the_log_is_out_of_bounds(
    writer: Writer, database: Database
) -> None:
    database.go_on.clear()
    writing = asyncio.create_task(write(writer, range(400)))
    assert await set_in(database.begun)
    await asyncio.to_thread(database.grow_to, MOST)
    await asyncio.sleep(0.05)
    held_at = database.log_pages()
    assert held_at < BOUND
    assert not writing.done()
    database.go_on.set()
    await writing
    assert database.copied_by_writer.is_set()
    assert database.log_pages() < BOUND
    assert database.stored() == list(range(400))


async def test_a_reader_of_an_older_snapshot_keeps_the_log_and_after_it_the_log_begins_anew(
    writer: Writer, database: Database
) -> None:
    await write(writer, range(5))
    reader = connect(database.path, busy_timeout_s=0, read_only=True)
    reader.execute("BEGIN")
    assert len(reader.execute("SELECT n FROM t").fetchall()) == 5
    await write(writer, range(5, 300))
    grown = database.log_pages()
    assert grown > MOST
    assert len(reader.execute("SELECT n FROM t").fetchall()) == 5
    reader.execute("ROLLBACK")
    reader.close()
    await write(writer, range(300, 500))
    assert database.log_pages() < grown + COPY_AT
    assert database.stored() == list(range(500))


@pytest.mark.parametrize("error", [apsw.BusyError("x"), apsw.IOError("x"), apsw.FullError("x")])
async def test_a_log_that_cannot_be_copied_costs_no_write_and_is_copied_when_it_can_be(
    writer: Writer, database: Database, error: apsw.Error
) -> None:
    database.error, database.fails_at_once = error, True
    await write(writer, range(COPY_AT + 10))
    assert await set_in(database.begun)
    database.error = None
    await write(writer, range(COPY_AT + 10, 400))
    assert database.log_pages() < BOUND
    assert database.stored() == list(range(400))


async def test_a_thread_that_cannot_open_the_database_costs_no_write(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def opened() -> apsw.Connection:
        if threading.current_thread().name == "sqlite-checkpoint":
            tried.set()
            raise apsw.CantOpenError("x")
        return database.connect()

    writer = Writer(opened, 1)
    await write(writer, range(300))
    assert tried.is_set()
    await writer.close()
    assert not database.log.exists()
    assert database.stored() == list(range(300))


async def test_an_erasure_waits_for_the_copying_and_leaves_an_empty_log(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W51."""
    monkeypatch.setattr(checkpoints, "_EMPTYING_WAIT_S", WAIT_S)
    database.go_on.clear()
    await write(writer, range(COPY_AT + 10))
    assert await set_in(database.begun)

    def erase(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM t WHERE n = 3")
        writer.truncate_log()

    erasing = asyncio.create_task(writer.run(erase))
    await asyncio.sleep(0.02)
    assert not erasing.done()
    database.go_on.set()
    async with asyncio.timeout(WAIT_S):
        await erasing
    assert database.log.stat().st_size == 0
    assert 3 not in database.stored()


async def test_closing_waits_for_the_copying(database: Database) -> None:
    writer = Writer(database.connect, 1)
    database.go_on.clear()
    await write(writer, range(COPY_AT + 10))
    assert await set_in(database.begun)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    database.go_on.set()
    async with asyncio.timeout(WAIT_S):
        await closing
    assert not database.log.exists()  # the last connection copied all of it and took it away
    assert database.stored() == list(range(COPY_AT + 10))


async def test_after_a_flush_that_failed_the_log_is_kept_and_the_next_start_takes_all_from_it(
    database: Database,
) -> None:
    """What the system forgot of the database then, however much of it counted as copied."""
    writer = Writer(database.connect, 1)
    await write(writer, range(5))
    forgotten = await asyncio.to_thread(database.copy)
    reader = connect(database.path, busy_timeout_s=0, read_only=True)
    reader.execute("BEGIN")
    assert len(reader.execute("SELECT n FROM t").fetchall()) == 5
    await write(writer, range(5, COPY_AT))
    assert await set_in(database.copied)
    reader.execute("ROLLBACK")
    reader.close()
    # What the reader sees has been copied, has not been flushed, and counts as done.
    database.error, database.fails_at_once = apsw.IOError("x"), True
    vars(database.error)["extendedresult"] = apsw.SQLITE_IOERR_FSYNC
    await write(writer, range(COPY_AT, 300))
    async with asyncio.timeout(WAIT_S):
        await writer.close()
    assert not database.copied_by_writer.is_set()
    assert database.path.read_bytes() != forgotten.read_bytes()
    forgotten.replace(database.path)
    database.path.with_name(database.path.name + "-shm").unlink(missing_ok=True)
    assert database.stored() == list(range(300))


async def test_without_a_thread_for_it_the_writer_copies_by_itself(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        _ = thread
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", start)
    await write(writer, range(400))
    assert database.copied_by_writer.is_set()
    assert not database.begun.is_set()
    assert database.log_pages() < BOUND
    monkeypatch.undo()
    assert database.stored() == list(range(400))
