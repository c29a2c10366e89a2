"""Group commit: who shares a transaction, and who hears of what becomes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from opdata.errors import Unavailable
from opdata.storage.sqlite import writer as module
from opdata.storage.sqlite.connection import connect
from opdata.storage.sqlite.writer import Undo, Writer

BUSY_TIMEOUT_S = 0.2
WAIT_S = 10


class Database:
    """A file with a table `t`, and the connections that a writer opened on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[apsw.Connection] = []
        self.commits = 0
        self.fail_commit: Exception | None = None
        with_table = connect(path, busy_timeout_s=BUSY_TIMEOUT_S)
        with_table.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        with_table.close()

    def connect(self) -> apsw.Connection:
        connection = connect(self.path, busy_timeout_s=BUSY_TIMEOUT_S)
        connection.set_commit_hook(self._committing)
        self.opened.append(connection)
        return connection

    def stored(self) -> list[int]:
        connection = connect(self.path, busy_timeout_s=BUSY_TIMEOUT_S)
        found = [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
        connection.close()
        return found

    def _committing(self) -> bool:
        if self.fail_commit is not None:
            error, self.fail_commit = self.fail_commit, None
            raise error
        self.commits += 1
        return False


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "t.db")


@pytest.fixture
async def writer(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Writer]:
    monkeypatch.setattr(module, "_MAX_GROUP_S", 60)  # whether a group is full is up to its size
    running = Writer(database.connect, BUSY_TIMEOUT_S)
    yield running
    await running.close()


def insert(n: int) -> Callable[[apsw.Connection], int]:
    def task(connection: apsw.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (n,))
        return n

    return task


def insert_and(n: int, error: Exception) -> Callable[[apsw.Connection], int]:
    """Insert and then fail."""

    def task(connection: apsw.Connection) -> int:
        insert(n)(connection)
        raise error

    return task


@contextmanager
def held(writer: Writer) -> Iterator[asyncio.Task[int]]:
    """Hold the writer in a task until the block is left, so that others wait and join it."""
    entered, go = threading.Event(), threading.Event()

    def task(connection: apsw.Connection) -> int:
        entered.set()
        assert go.wait(WAIT_S)
        return insert(0)(connection)

    try:
        yield asyncio.ensure_future(writer.run(task))
    finally:
        go.set()


async def run_together(
    writer: Writer, *tasks: Callable[[apsw.Connection], int]
) -> list[int | BaseException]:
    """The outcomes of tasks that wait while another one, which inserts 0, is being written."""
    with held(writer) as first:
        waiting = [asyncio.ensure_future(writer.run(task)) for task in tasks]
        await asyncio.sleep(0.01)  # each has handed its task in
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait([first, *waiting])
        return await asyncio.gather(*waiting, return_exceptions=True)


async def test_waiting_tasks_share_one_commit(writer: Writer, database: Database) -> None:
    results = await run_together(writer, *map(insert, range(1, 31)))
    assert results == list(range(1, 31))
    assert database.stored() == list(range(31))
    assert database.commits == 1


async def test_a_group_is_bounded(writer: Writer, database: Database) -> None:
    await run_together(writer, *map(insert, range(1, 200)))
    assert database.stored() == list(range(200))
    assert database.commits == 4  # 64 + 64 + 64 + 8


async def test_a_group_is_not_kept_open_for_long(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_GROUP_S", 0)
    await run_together(writer, *map(insert, range(1, 10)))
    assert database.stored() == list(range(10))
    assert database.commits == 10


async def test_tasks_run_in_the_order_they_were_handed_in(writer: Writer) -> None:
    order: list[int] = []

    def note(n: int) -> Callable[[apsw.Connection], int]:
        def task(_connection: apsw.Connection) -> int:
            order.append(n)
            return n

        return task

    await run_together(writer, *map(note, range(100)))
    assert order == list(range(100))


async def test_nobody_hears_of_success_before_the_commit(
    writer: Writer, database: Database
) -> None:
    seen: list[list[int]] = []

    async def write(n: int) -> None:
        await writer.run(insert(n))
        seen.append(database.stored())

    await asyncio.gather(*(write(n) for n in range(10)))
    assert all(n in stored for n, stored in zip(range(10), seen, strict=True))


async def test_a_task_that_fails_takes_only_its_own_writes_with_it(
    writer: Writer, database: Database
) -> None:
    results = await run_together(
        writer, insert(1), insert_and(2, LookupError("two")), insert(3), insert(3), insert(4)
    )
    assert isinstance(results[1], LookupError)
    assert isinstance(results[3], apsw.ConstraintError)
    assert [results[at] for at in (0, 2, 4)] == [1, 3, 4]
    assert database.stored() == [0, 1, 3, 4]
    assert database.commits == 1


async def test_a_task_that_fails_before_any_other_leaves_those_that_join(
    writer: Writer, database: Database
) -> None:
    entered, go = threading.Event(), threading.Event()

    def fail(connection: apsw.Connection) -> int:
        entered.set()
        assert go.wait(WAIT_S)
        return insert_and(0, LookupError())(connection)

    tasks = [asyncio.ensure_future(writer.run(task)) for task in (fail, insert(1), insert(2))]
    await asyncio.to_thread(entered.wait, WAIT_S)
    go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], LookupError)
    assert results[1:] == [1, 2]
    assert database.stored() == [1, 2]


async def test_what_is_undone_on_purpose_is_answered_and_leaves_nothing(
    writer: Writer, database: Database
) -> None:
    results = await run_together(writer, insert_and(1, Undo(7)), insert(1), insert_and(2, Undo(8)))
    assert results == [7, 1, 8]
    assert database.stored() == [0, 1]
    assert await writer.run(insert_and(5, Undo(9))) == 9
    assert database.stored() == [0, 1]


@pytest.mark.parametrize("error", [apsw.FullError("disk"), apsw.IOError("disk")])
async def test_a_commit_that_fails_fails_the_whole_group_and_the_next_one_succeeds(
    writer: Writer, database: Database, error: Exception
) -> None:
    """W25: nobody is told of success, and nothing is written."""
    database.fail_commit = error
    results = await run_together(writer, insert(1), insert_and(2, LookupError()), insert(3))
    assert all(isinstance(one, Unavailable) for one in results)
    assert database.stored() == []
    assert await writer.run(insert(4)) == 4
    assert database.stored() == [4]
    assert len(database.opened) == 2, "the connection that failed is not used again"


async def test_a_commit_that_is_refused_for_no_passing_reason_is_told_to_the_whole_group(
    writer: Writer, database: Database
) -> None:
    database.fail_commit = apsw.CorruptError("damaged")
    results = await run_together(writer, insert(1), insert(2))
    assert all(isinstance(one, apsw.CorruptError) for one in results)
    assert database.stored() == []
    assert await writer.run(insert(3)) == 3


@pytest.mark.parametrize("kind", [apsw.FullError, apsw.IOError, apsw.NoMemError])
async def test_a_fault_of_the_disk_within_a_task_fails_the_whole_group(
    writer: Writer, database: Database, kind: type[Exception]
) -> None:
    """SQLite may have rolled the whole transaction back by itself."""
    results = await run_together(writer, insert(1), insert_and(2, kind("disk")), insert(3))
    assert [isinstance(one, Unavailable) for one in results[:2]] == [True, True]
    # What had not joined yet is written on a connection of its own.
    assert results[2] == 3
    assert database.stored() == [3]


async def test_a_database_locked_for_too_long_is_unavailable_and_heals(
    writer: Writer, database: Database
) -> None:
    other = connect(database.path, busy_timeout_s=0)
    other.execute("BEGIN IMMEDIATE")
    results = await asyncio.gather(
        writer.run(insert(1)), writer.run(insert(2)), return_exceptions=True
    )
    assert all(isinstance(one, Unavailable) for one in results)
    other.execute("ROLLBACK")
    assert await writer.run(insert(3)) == 3
    assert database.stored() == [3]
    other.close()


async def test_a_database_that_cannot_be_opened_is_unavailable_and_heals(
    database: Database,
) -> None:
    locked = True

    def open_database() -> apsw.Connection:
        if locked:
            raise apsw.CantOpenError("not now")
        return database.connect()

    writer = Writer(open_database, BUSY_TIMEOUT_S)
    with pytest.raises(Unavailable):
        await writer.run(insert(1))
    locked = False
    assert await writer.run(insert(2)) == 2
    await writer.close()
    assert database.stored() == [2]


async def test_whoever_stops_waiting_does_not_call_back_what_is_being_written(
    writer: Writer, database: Database
) -> None:
    with held(writer) as first:
        tasks = [asyncio.ensure_future(writer.run(insert(n))) for n in (1, 2, 3)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.sleep(0)
    assert list(await asyncio.gather(first, tasks[0], tasks[2])) == [0, 1, 3]
    assert tasks[1].cancelled()
    assert database.stored() == [0, 1, 2, 3]


async def test_closing_finishes_what_was_handed_in_and_refuses_what_comes_later(
    database: Database,
) -> None:
    writer = Writer(database.connect, BUSY_TIMEOUT_S)
    with held(writer):
        tasks = [asyncio.ensure_future(writer.run(insert(n))) for n in range(1, 100)]
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await writer.run(insert(100))
    await closing
    assert await asyncio.gather(*tasks) == list(range(1, 100))
    assert database.stored() == list(range(100))


# -- emptying the log (W51) ----------------------------------------------------------------------


class Checkpointing(apsw.Connection):
    """A connection whose checkpoints fail."""

    error: Exception = apsw.BusyError("busy")

    def wal_checkpoint(self, *_args: object, **_kwargs: object) -> tuple[int, int]:
        raise self.error


def _log_bytes(database: Database) -> int:
    return database.path.with_name(database.path.name + "-wal").stat().st_size


async def _erase(writer: Writer, n: int) -> None:
    def task(connection: apsw.Connection) -> None:
        insert(n)(connection)
        writer.truncate_log()

    async with asyncio.timeout(WAIT_S):
        await writer.run(task)


async def test_the_log_is_empty_when_a_task_that_wants_it_so_is_answered(
    writer: Writer, database: Database
) -> None:
    """W51."""
    await writer.run(insert(1))
    assert _log_bytes(database) > 0
    await _erase(writer, 2)
    assert _log_bytes(database) == 0


async def test_a_reader_holds_the_emptying_up_and_the_next_group_does_it(
    writer: Writer, database: Database
) -> None:
    """W51."""
    await writer.run(insert(1))
    reader = connect(database.path, busy_timeout_s=0, read_only=True)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    await _erase(writer, 2)
    assert _log_bytes(database) > 0
    reader.execute("ROLLBACK")
    reader.close()
    await writer.run(insert(3))
    assert _log_bytes(database) == 0


@pytest.mark.parametrize(
    "error",
    [apsw.BusyError("x"), apsw.IOError("x"), apsw.CantOpenError("x"), apsw.CorruptError("x")],
)
async def test_a_log_that_cannot_be_emptied_costs_no_answer_and_no_later_write(
    database: Database, error: Exception
) -> None:
    """The commit stands, and whoever waits for it must hear so."""

    def open_database() -> apsw.Connection:
        connection = Checkpointing(str(database.path))
        connection.error = error
        return connection

    writer = Writer(open_database, BUSY_TIMEOUT_S)
    await _erase(writer, 1)
    async with asyncio.timeout(WAIT_S):
        assert await writer.run(insert(2)) == 2
        await writer.close()
    assert database.stored() == [1, 2]
