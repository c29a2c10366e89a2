"""One SQLite file as the parts of a store use it: readers' threads, and the one writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import apsw

from opdata.errors import Unavailable
from opdata.storage.reads import first_of
from opdata.storage.records import Row
from opdata.storage.sqlite.connection import SQL, connect, one_row, translated
from opdata.storage.sqlite.writer import Writer

T = TypeVar("T")

_READERS: Final = 4


class Database:
    """Connections to one file. Its methods are called from one event loop, and raise `Unavailable`."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self.writer = Writer(lambda: connect(path, busy_timeout_s=busy_timeout_s), busy_timeout_s)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="sqlite-reader")
        self._reader = threading.local()
        self._closed = False

    async def close(self) -> None:
        """Finish the tasks handed in so far and let go of the file. Closing twice is closing once."""
        if not self._closed:
            self._closed = True
            # The writer last: whoever is the last one copies the log, and it knows whether that is right.
            await asyncio.to_thread(self._readers.shutdown)
            await self.writer.close()

    async def rows(self, name: str, *values: object) -> list[Row]:
        """The rows of a named query, in one snapshot."""
        return await self.read(lambda connection: connection.execute(SQL[name], values).fetchall())

    async def first_rows(self, name: str, *values: object, limit: int) -> tuple[list[Row], bool]:
        """A page of the rows of a named query, whose last value is a limit, and whether there may be more."""
        return await self.read(
            lambda connection: first_of(connection.execute(SQL[name], (*values, limit + 1)), limit)
        )

    async def row(self, name: str, *values: object) -> Row | None:
        """The only row of a named query, if it has one."""
        return await self.read(lambda connection: one_row(connection, name, *values))

    async def read(self, read: Callable[[apsw.Connection], T]) -> T:
        """Run a query on a reader's connection, in one snapshot."""

        def task() -> T:
            with translated():
                connection = self._reader_connection()
                # One snapshot for all that the query reads.
                connection.execute("BEGIN")
                try:
                    return read(connection)
                finally:
                    if connection.in_transaction:  # SQLite ends it by itself when a read fails
                        connection.execute("ROLLBACK")

        if self._closed:
            raise Unavailable
        return await asyncio.get_running_loop().run_in_executor(self._readers, task)

    async def run(self, name: str, *values: object) -> None:
        """Run a named statement by itself; return once that is durable."""
        await self.write(lambda connection: connection.execute(SQL[name], values).fetchall())

    async def write(self, task: Callable[[apsw.Connection], T]) -> T:
        """Run a task in a transaction; see `Writer.run`."""
        return await self.writer.run(task)

    def _reader_connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._reader, "connection", None)
        if connection is None:
            connection = connect(self.path, busy_timeout_s=self._busy_timeout_s, read_only=True)
            self._reader.connection = connection
        return connection
