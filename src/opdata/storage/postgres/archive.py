"""Retention in a PostgreSQL database: each step a transaction that has the lease locked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from msgspec.structs import astuple

from opdata.storage.archive import (
    PAGE_BYTES,
    WALKED,
    ArchiveFile,
    EventKey,
    LeaseRecord,
    OldEvent,
    OldState,
    Place,
    Removed,
    Span,
    StateKey,
    Tally,
    payload_bytes,
)
from opdata.storage.leases import Lease, LeaseLost
from opdata.storage.postgres.connection import SQL, Connection
from opdata.storage.postgres.database import Database, Transaction
from opdata.storage.reads import ScanPage
from opdata.storage.records import Row
from opdata.storage.scans import AFTER_ANY_NAME

T = TypeVar("T")

_FIRST: Final = -(2**62)
_LAST: Final = 2**62
_BEFORE_ANY_ENTITY: Final = ("", -1)
_AFTER_ANY_ENTITY: Final = (AFTER_ANY_NAME, 0)
_FIRST_ROWS: Final = 8
_BLOCK_BYTES: Final = PAGE_BYTES // 4


class PostgresArchive:
    """See `Archive`.

    A place is the key of an entity and, within it, time and number of an event; among erased entities,
    time and number of one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_lease(self, lease: Lease, now_ms: int) -> bool:
        """See `Archive.take_lease`."""
        values = (lease.operator_id, lease.holder, now_ms, lease.expires_at_ms)
        return await self._database.row("take_lease", *values) is not None

    async def renew_lease(self, lease: Lease) -> None:
        """See `Archive.renew_lease`."""
        values = (lease.operator_id, lease.holder, lease.expires_at_ms)
        if await self._database.row("renew_lease", *values) is None:
            raise LeaseLost

    async def end_lease(self, lease: Lease, finished_at_ms: int | None) -> None:
        """See `Archive.end_lease`."""
        await self._database.run("end_lease", lease.operator_id, lease.holder, finished_at_ms)

    async def lease(self, operator_id: int) -> LeaseRecord | None:
        """See `Archive.lease`."""
        row = await self._database.row("lease", operator_id)
        return LeaseRecord(*row) if row else None

    async def files(self, operator_id: int) -> Sequence[ArchiveFile]:
        """See `Archive.files`."""
        return [
            ArchiveFile(*row) for row in await self._database.rows("archive_files", operator_id)
        ]

    async def put_files(
        self, lease: Lease, files: Sequence[ArchiveFile], held_ids: Sequence[str] | None = None
    ) -> bool:
        """See `Archive.put_files`."""

        async def work(connection: Connection) -> bool:
            if held_ids is not None:
                holds = await _locked_holds(connection, lease.operator_id)
                if {entity_id for _, entity_id in holds} - set(held_ids):
                    return False
            for file in files:
                await connection.execute(SQL["put_archive_file"], lease.operator_id, *astuple(file))
            return True

        return await self._under(lease, work)

    async def forget_file(self, lease: Lease, file_id: str) -> None:
        """See `Archive.forget_file`."""

        async def work(connection: Connection) -> None:
            await connection.execute(SQL["forget_archive_file"], lease.operator_id, file_id)

        await self._under(lease, work)

    async def tallies(
        self, operator_id: int, span: Span, gone_ms: int, after: Place | None
    ) -> ScanPage[Tally, Place]:
        """See `Archive.tallies`."""
        async with self._database.connection() as connection:
            if span.kind == "states":
                place, end, following = await _tombstones(
                    connection, operator_id, span, after, WALKED
                )
                rows = await connection.fetch(
                    SQL["tally_states"], operator_id, *place, *end, gone_ms
                )
                return ScanPage([Tally(*row) for row in rows], following)
            start = after or _BEFORE_ANY_ENTITY
            last = await connection.fetchrow(SQL["archive_walk_end"], operator_id, *start, WALKED)
            rows = await connection.fetch(
                SQL["tally_events"],
                *(operator_id, *start, *(last or _AFTER_ANY_ENTITY)),
                *(span.from_ms, span.to_ms, gone_ms, span.settled_ms),
            )
            return ScanPage([Tally(*row) for row in rows], tuple(last) if last else None)

    async def old_events(
        self, operator_id: int, span: Span, after: Place | None, limit: int
    ) -> ScanPage[OldEvent, Place]:
        """See `Archive.old_events`."""
        name, number, *position = after or (*_BEFORE_ANY_ENTITY, _LAST, 0)
        async with self._database.connection() as connection:
            last = await connection.fetchrow(
                SQL["archive_walk_end"], operator_id, name, number, WALKED
            )
            until = (span.to_ms, span.settled_ms)
            rest = (operator_id, name, number, *position, *until)
            others = (operator_id, name, number, *(last or _AFTER_ANY_ENTITY), span.from_ms, *until)
            found: list[OldEvent] = []
            room = PAGE_BYTES
            for query, values in (("rest_of_old_events", rest), ("old_events", others)):
                rows = _streamed(connection, query, *values, limit - len(found))
                async with aclosing(rows):
                    async for row in rows:
                        event = OldEvent(*row[2:])
                        found.append(event)
                        room -= payload_bytes(event)
                        if len(found) == limit or room < 0:
                            return ScanPage(found, (*row[:2], event.occurred_at_ms, event.event_no))
        return ScanPage(found, (*last, _LAST, 0) if last else None)

    async def old_states(
        self, operator_id: int, span: Span, after: Place | None, limit: int
    ) -> ScanPage[OldState, Place]:
        """See `Archive.old_states`."""
        async with self._database.connection() as connection:
            place, end, following = await _tombstones(connection, operator_id, span, after, limit)
            found: list[OldState] = []
            room = PAGE_BYTES
            rows = _streamed(connection, "old_states", operator_id, *place, *end)
            async with aclosing(rows):
                async for row in rows:
                    state = OldState(*row)
                    if room < 0 and state.entity_no != found[-1].entity_no:
                        return ScanPage(found, (found[-1].erased_at_ms, found[-1].entity_no))
                    found.append(state)
                    room -= payload_bytes(state)
        return ScanPage(found, following)

    async def remove_events(self, lease: Lease, keys: Sequence[EventKey]) -> Removed:
        """See `Archive.remove_events`."""
        rows = [(key.entity_no, key.occurred_at_ms, key.event_no, key.event_id) for key in keys]
        return await self._remove(lease, "event", rows)

    async def remove_states(self, lease: Lease, keys: Sequence[StateKey]) -> Removed:
        """See `Archive.remove_states`."""
        rows = [(key.entity_no, key.state_key) for key in keys]
        return await self._remove(lease, "state", rows)

    async def remove_tombstones(
        self, lease: Lease, erased_before_ms: int, after: Place | None, limit: int
    ) -> tuple[int, Place | None]:
        """See `Archive.remove_tombstones`."""
        span = Span("states", _FIRST, erased_before_ms, _LAST)

        async def work(connection: Connection) -> tuple[int, Place | None]:
            await connection.execute(SQL["lock_holds"], lease.operator_id)
            place, end, following = await _tombstones(
                connection, lease.operator_id, span, after, limit
            )
            done = await connection.execute(
                SQL["remove_tombstones"], lease.operator_id, *place, *end
            )
            return _count(done), following

        return await self._under(lease, work)

    async def held_ids(self, operator_id: int) -> Sequence[str]:
        """See `Archive.held_ids`."""
        rows = await self._database.rows("held_entities", operator_id)
        return [entity_id for _, entity_id in rows]

    async def _remove(self, lease: Lease, what: str, rows: Sequence[Row]) -> Removed:
        """Delete rows by their keys, which begin with the number of their entity."""

        async def work(connection: Connection) -> Removed:
            held = {number for number, _ in await _locked_holds(connection, lease.operator_id)}
            # A statement a row, sent together: each finds it by its key, whatever the planner knows.
            going = [(lease.operator_id, *row) for row in rows if row[0] not in held]
            gone = await connection.fetchmany(SQL[f"remove_{what}"], going) if going else []
            staying = [(lease.operator_id, *row) for row in rows if row[0] in held]
            found = await connection.fetchmany(SQL[f"kept_{what}"], staying) if staying else []
            there = set(map(tuple, found))
            return Removed(len(gone), [at for at, row in enumerate(rows) if tuple(row) in there])

        return await self._under(lease, work)

    async def _under(self, lease: Lease, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the work in a transaction under the lease, which is renewed with it."""
        values = (lease.operator_id, lease.holder, lease.expires_at_ms)

        async def fenced(transaction: Transaction) -> T:
            if await transaction.connection.fetchval(SQL["renew_lease"], *values) is None:
                raise LeaseLost
            return await work(transaction.connection)

        return await self._database.transaction(fenced, operator_id=lease.operator_id)


async def _locked_holds(connection: Connection, operator_id: int) -> Sequence[Row]:
    """Number and id of each entity that is held, and will be as long as the transaction lasts."""
    await connection.execute(SQL["lock_holds"], operator_id)
    # By itself: a statement sees what was committed before it began, and not while it waited.
    return [tuple(row) for row in await connection.fetch(SQL["held_entities"], operator_id)]


async def _streamed(connection: Connection, name: str, *values: object) -> AsyncGenerator[Row]:
    """The rows of a query, fetched in blocks of about `_BLOCK_BYTES`: a single row may have megabytes."""
    async with connection.transaction():
        cursor = await connection.cursor(SQL[name], *values)
        count = _FIRST_ROWS
        while rows := await cursor.fetch(count):
            size_bytes = 1
            for row in map(tuple, rows):
                size_bytes += sum(len(cell) for cell in row if isinstance(cell, str))
                yield row
            count = max(1, min(8 * count, count * _BLOCK_BYTES // size_bytes))


async def _tombstones(
    connection: Connection, operator_id: int, span: Span, after: Place | None, limit: int
) -> tuple[Place, Row, Place | None]:
    """The erased entities of one page: after which, up to which, and where the next page begins."""
    place = after or (span.from_ms, -1)
    last = await connection.fetchrow(
        SQL["tombstone_walk_end"], operator_id, *place, span.to_ms, limit
    )
    following = tuple(last) if last else None
    # Up to and with a number that there is not: everything before `to_ms`.
    return place, following or (span.to_ms, -1), following


def _count(done: str) -> int:
    """How many rows a DELETE has taken, from what the server says of it."""
    return int(done.rpartition(" ")[2])
