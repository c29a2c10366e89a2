"""A pool of connections, and transactions on it: retried, bounded in time, and never in doubt."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self, TypeVar

import asyncpg
from msgspec import Struct

from opdata.clock import now_ms
from opdata.errors import OpdataError, Unavailable
from opdata.storage.postgres.connection import (
    SQL,
    Connection,
    ConnectionOptions,
    connect_arguments,
    translated,
)
from opdata.storage.reads import first_of

T = TypeVar("T")

_TRIES: Final = 8
_FIRST_PAUSE_S: Final = 0.002
_OUTCOME_PAUSE_S: Final = 0.1
_IDLE_S: Final = 300.0
_CLOSE_S: Final = 5.0
# What a connection that has broken may raise when it is put to use or away.
_BROKEN: Final = (
    OSError,
    RuntimeError,
    asyncpg.InterfaceError,
    asyncpg.PostgresError,
    asyncpg.InternalClientError,
)
NO_OPERATOR: Final = 0
"""Whose transactions are that are about no single operator."""
NUMBERS_A_BLOCK: Final = 8_192
"""Numbers for new rows that a transaction has; more than the items of any batch."""


class CreatedMeanwhile(Exception):
    """Another transaction has made a row that this one had found missing: it has to start over."""


_TRY_AGAIN: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidCachedStatementError,
)


class Transaction(Struct, frozen=True):
    """A transaction under way. `attempt` counts from 0; `first_number` begins its block of numbers."""

    connection: Connection
    attempt: int
    first_number: int


class Database:
    """Connections to one server, at most `connections` of them, opened when they are wanted.

    Every method raises `Unavailable` when the server cannot be had or does not answer in time.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], busy_timeout_s: float) -> None:
        self._pool = pool
        self._busy_timeout_s = busy_timeout_s
        self._closed = False
        self._under_way: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls, options: ConnectionOptions, *, connections: int, **session_settings: str
    ) -> Self:
        """A pool on this event loop. `session_settings` are set on each connection, beside ours."""
        pool = await asyncpg.create_pool(
            **connect_arguments(options, **session_settings),
            min_size=0,
            max_size=connections,
            max_queries=2**62,
            max_inactive_connection_lifetime=_IDLE_S,
            reset=_as_it_is,
        )
        return cls(pool, options.busy_timeout_s)

    async def close(self) -> None:
        """Finish what is under way and hang up."""
        self._closed = True
        while self._under_way:
            await asyncio.wait(self._under_way)
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_S)
        except (OSError, asyncpg.InterfaceError):
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for a while, waiting for one no longer than for another's lock."""
        if self._closed:
            raise Unavailable
        async with self._acquired() as connection:
            yield connection

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        with translated():
            connection = await self._pool.acquire(timeout=self._busy_timeout_s)
            try:
                yield connection
            except asyncpg.InternalClientError:
                # The driver has lost its place, as it does when a connection breaks under it.
                _hang_up(connection)
                raise
            except Exception as error:
                if _has_broken(connection) and not isinstance(error, OpdataError):
                    raise Unavailable from error
                raise
            finally:
                # Letting go of a connection that has broken raises nothing that matters any more.
                with suppress(*_BROKEN):
                    await self._pool.release(connection, timeout=_CLOSE_S)

    async def rows(self, name: str, *values: object) -> list[asyncpg.Record]:
        """The rows of a named query, in one snapshot."""
        async with self.connection() as connection:
            return await connection.fetch(SQL[name], *map(findable, values))

    async def first_rows(
        self, name: str, *values: object, limit: int
    ) -> tuple[list[tuple[Any, ...]], bool]:
        """A page of the rows of a named query, whose last value is a limit, and whether there may be more."""
        return first_of_page(await self.rows(name, *values, limit + 1), limit)

    async def row(self, name: str, *values: object) -> asyncpg.Record | None:
        """The only row of a named query, if it has one."""
        async with self.connection() as connection:
            return await connection.fetchrow(SQL[name], *map(findable, values))

    async def run(self, name: str, *values: object) -> None:
        """Run a named statement by itself."""
        async with self.connection() as connection:
            await connection.execute(SQL[name], *values)

    async def transaction(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        operator_id: int = NO_OPERATOR,
        undo: bool = False,
    ) -> T:
        """Do the work in a transaction and commit it, or with `undo` roll it back; return its result.

        The work is done over when it lost a race, so it must be repeatable. It goes on when whoever
        waits for it stops waiting. When the connection breaks at the commit the database is asked
        what became of it: an answer of success or of `Unavailable` is always true.
        """
        if self._closed:
            raise Unavailable
        task = asyncio.create_task(self._tried(work, operator_id, undo=undo))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, in case nobody waits for it any more

    async def _tried(
        self, work: Callable[[Transaction], Awaitable[T]], operator_id: int, *, undo: bool
    ) -> T:
        lost: Exception | None = None
        for attempt in range(_TRIES):
            if lost is not None:
                await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_S * 2**attempt))  # noqa: S311 - jitter
            try:
                return await self._once(work, attempt, operator_id, undo=undo)
            except CreatedMeanwhile as error:
                lost = error
            except Unavailable as error:
                if not isinstance(error.__cause__, _TRY_AGAIN):
                    raise
                lost = error.__cause__
        raise Unavailable from lost

    async def _once(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        attempt: int,
        operator_id: int,
        *,
        undo: bool,
    ) -> T:
        # From the operating system: processes that were forked, or seeded alike, must not meet here.
        mark = int.from_bytes(os.urandom(8), "big") >> 1
        async with self._acquired() as connection:
            try:
                await connection.execute("BEGIN")
                await connection.execute(SQL["open_write"], operator_id, mark, now_ms())
                block = await connection.fetchval(SQL["next_block"])
                result = await work(Transaction(connection, attempt, block * NUMBERS_A_BLOCK))
            except BaseException:
                await _roll_back(connection)
                raise
            if undo:
                await connection.execute("ROLLBACK")
                return result
            try:
                with translated():
                    ended = await connection.execute("COMMIT")
            except Unavailable as error:
                broken = error
                _hang_up(connection)
            else:
                if ended != "COMMIT":  # what PostgreSQL says when it has rolled back instead
                    raise Unavailable
                return result
        if await self._was_committed(operator_id, mark, broken):
            return result
        raise broken

    async def _was_committed(self, operator_id: int, mark: int, broken: Unavailable) -> bool:
        """What became of a transaction whose commit was not answered: it left its mark, or it did not.

        Asked of the rows and not of the transaction's number, which a server that has crashed or was
        promoted may have given to another one.
        """
        deadline = time.monotonic() + self._busy_timeout_s
        while time.monotonic() < deadline:
            with suppress(Unavailable):
                async with self._acquired() as connection:
                    barred = await connection.fetchval(
                        SQL["is_barred"], operator_id, mark, now_ms()
                    )
                return not barred
            await asyncio.sleep(_OUTCOME_PAUSE_S)
        message = (
            "The database went away at the very end of this request: it was written whole or not at "
            "all. Send it again; with its Idempotency-Key nothing is done twice."
        )
        raise Unavailable(message) from broken.__cause__


def first_of_page(rows: Sequence[asyncpg.Record], limit: int) -> tuple[list[tuple[Any, ...]], bool]:
    """See `first_of`. The rows' last column says whether the database stopped there; it is left out."""
    page, more = first_of((tuple(row)[:-1] for row in rows), limit)
    return page, more or bool(rows and rows[-1]["is_full"])


async def _roll_back(connection: Connection) -> None:
    """End a transaction that has failed; if this fails too, the connection with it."""
    try:
        await connection.execute("ROLLBACK")
    except _BROKEN:
        _hang_up(connection)


def _hang_up(connection: Connection) -> None:
    # One that has broken already has left its pool, and takes no calls any more.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def _has_broken(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def findable(value: object) -> object:
    """A value to look for. PostgreSQL takes no text with U+0000, which is in no row (W9): none has ""."""
    return "" if isinstance(value, str) and "\0" in value else value


async def _as_it_is(_connection: Connection) -> None:
    """Put a connection back without the driver's reset, a round trip: nothing of ours stays in it."""
