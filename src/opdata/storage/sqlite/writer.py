"""The writer: one thread and one connection a process, committing waiting tasks together.

Tasks that wait while a transaction is being written join it, each in a savepoint of its own, and
share its one flush to disk: group commit. A task that fails takes only its savepoint with it; a
commit that fails takes the whole group. Nobody hears of success before the commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import apsw

from opdata.errors import Unavailable
from opdata.storage.sqlite.checkpoints import Checkpoints
from opdata.storage.sqlite.connection import Task, translated
from opdata.storage.sqlite.numbers import EntityNumbers

T = TypeVar("T")

_MAX_GROUP: Final = 64
_MAX_GROUP_S: Final = 0.05


_Result = tuple[Any, Exception | None]


class _Waiting(NamedTuple):
    """A task and the one who waits for it, in an event loop."""

    task: Task
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def answer(self, result: Any, failure: BaseException | None) -> None:
        """Say what became of the task; called in the writer's thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self.loop.call_soon_threadsafe(self._answer, result, failure)

    def _answer(self, result: Any, failure: BaseException | None) -> None:
        # Whoever has stopped waiting does not call back what was being committed.
        if self.future.done():
            return
        if failure is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(failure)


class Undo(Exception):
    """Raised by a task to roll back all it did and still answer `result`."""

    def __init__(self, result: Any) -> None:
        super().__init__("undone on purpose")
        self.result = result


class Writer:
    """Runs tasks in transactions, in the order they were handed in."""

    def __init__(self, connect: Callable[[], apsw.Connection], busy_timeout_s: float) -> None:
        self._connect = connect
        self.numbers = EntityNumbers()
        """Names that tasks have looked up; theirs alone to use."""
        self._connection: apsw.Connection | None = None
        self._checkpoints = Checkpoints(connect, busy_timeout_s)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._truncate_log = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, task: Callable[[apsw.Connection], T]) -> T:
        """Run a task in a transaction; return its result once that is durable.

        The task may raise, which rolls back what it did, or raise `Undo`, which does so and
        answers. Raises `Unavailable` when the database cannot be written.
        """
        if self._closed:
            message = "The server is shutting down; nothing was written."
            raise Unavailable(message)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.put(_Waiting(task, loop, future))
        return await future

    def truncate_log(self) -> None:
        """Called by a task: once it is committed, empty the write-ahead log (W51)."""
        self._truncate_log = True

    async def close(self) -> None:
        """Finish the tasks handed in so far and end the thread."""
        self._closed = True
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            if self._run_group(first):
                break
        self._checkpoints.close(self._connection)

    def _run_group(self, first: _Waiting) -> bool:
        """Run a transaction with `first` and what joins it; True when the queue has ended."""
        group = [first]
        ended = False
        started = time.monotonic()
        try:
            with translated():
                connection = self._open()
                results = [self._run_first(connection, first.task)]
                while len(group) < _MAX_GROUP and time.monotonic() - started < _MAX_GROUP_S:
                    joining, ended = self._next()
                    if joining is None:
                        break
                    group.append(joining)
                    results.append(self._run_joining(connection, joining.task))
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - every waiter must hear of it, whatever it is
            self._abandon()
            if isinstance(error.__cause__, apsw.IOError):
                self._write_over_failed_commit()
            for waiting in group:
                waiting.answer(None, error)
            return ended
        self._truncate_log = self._truncate_log and not self._checkpoints.empty(connection)
        for waiting, (result, failure) in zip(group, results, strict=True):
            waiting.answer(result, failure)
        self._checkpoints.after_commit(connection)
        return ended

    def _next(self) -> tuple[_Waiting | None, bool]:
        try:
            waiting = self._waiting.get_nowait()
        except queue.Empty:
            return None, False
        return waiting, waiting is None

    def _run_first(self, connection: apsw.Connection, task: Task) -> _Result:
        # Alone in the transaction so far, it needs no savepoint, which would have SQLite copy every
        # page before its first change.
        connection.execute("BEGIN IMMEDIATE")
        self.numbers.begin(connection)
        return _run(connection, task, undo="ROLLBACK")

    def _run_joining(self, connection: apsw.Connection, task: Task) -> _Result:
        if not connection.in_transaction:
            return self._run_first(connection, task)
        connection.execute("SAVEPOINT task")
        result = _run(connection, task, undo="ROLLBACK TO task")
        connection.execute("RELEASE task")
        return result

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._checkpoints.watch(self._connection)
        return self._connection

    def _abandon(self) -> None:
        # A connection that met an I/O error is not trusted with the next transaction.
        connection, self._connection = self._connection, None
        self.numbers = EntityNumbers()
        if connection is not None:
            connection.close(force=True)

    def _write_over_failed_commit(self) -> None:
        # A commit that could not be flushed may stand in the log, whole, and a crash would bring it back
        # after it was refused (W25). The next transaction is written in its place. If that fails as well,
        # it is whole or not there, as its idempotency record is.
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            connection.pragma("user_version", 0)  # as it is, and written all the same
            connection.execute("COMMIT")
        except apsw.Error:
            self._abandon()


def _run(connection: apsw.Connection, task: Task, *, undo: str) -> _Result:
    """The task's result or what it raised, its writes undone in that case."""
    try:
        return task(connection), None
    except Undo as undone:
        connection.execute(undo)
        return undone.result, None
    except (apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.CorruptError):
        raise  # SQLite may have rolled everything back by itself: the group is lost
    except Exception as error:  # noqa: BLE001 - it goes to the one who waits for this task
        connection.execute(undo)
        return None, error
