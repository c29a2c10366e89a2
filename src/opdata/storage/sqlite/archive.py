"""Retention in an SQLite file: each step a transaction of the one writer's, among those of requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import apsw
import msgspec
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
from opdata.storage.reads import ScanPage
from opdata.storage.records import Row
from opdata.storage.sqlite.connection import SQL, one_row, scalar
from opdata.storage.sqlite.database import Database

T = TypeVar("T")

_FIRST: Final = -(2**62)
_LAST: Final = 2**62
_numbers: Final = msgspec.json.Decoder(list[int]).decode


class SqliteArchive:
    """See `Archive`.

    A place is the number of an entity and, within it, time and number of an event; among erased
    entities, time and number of one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_lease(self, lease: Lease, now_ms: int) -> bool:
        """See `Archive.take_lease`."""
        values = (lease.operator_id, lease.holder, now_ms, lease.expires_at_ms)
        return await self._database.write(
            lambda connection: scalar(connection, "take_lease", *values) is not None
        )

    async def renew_lease(self, lease: Lease) -> None:
        """See `Archive.renew_lease`."""
        await self._under(lease, lambda _connection: None)

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
        rows = [(lease.operator_id, *astuple(file)) for file in files]

        def task(connection: apsw.Connection) -> bool:
            if held_ids is not None:
                held = connection.execute(SQL["held_ids"], (lease.operator_id,))
                if {entity_id for (entity_id,) in held} - set(held_ids):
                    return False
            connection.executemany(SQL["put_archive_file"], rows)
            return True

        return await self._under(lease, task)

    async def forget_file(self, lease: Lease, file_id: str) -> None:
        """See `Archive.forget_file`."""
        values = (lease.operator_id, file_id)
        await self._under(
            lease, lambda connection: connection.execute(SQL["forget_archive_file"], values)
        )

    async def tallies(
        self, operator_id: int, span: Span, gone_ms: int, after: Place | None
    ) -> ScanPage[Tally, Place]:
        """See `Archive.tallies`."""

        def read(connection: apsw.Connection) -> ScanPage[Tally, Place]:
            if span.kind == "states":
                place, end, following = _tombstones(connection, operator_id, span, after, WALKED)
                values: tuple[object, ...] = (operator_id, *place, *end, gone_ms)
                rows = connection.execute(SQL["tally_states"], values)
                return ScanPage(_tallies(rows), following)
            (number,) = after or (0,)
            names = scalar(connection, "walk_event_entities", operator_id, number, WALKED)
            numbers = _numbers(names)
            values = (operator_id, names, span.from_ms, span.to_ms, gone_ms, span.settled_ms)
            rows = connection.execute(SQL["tally_events"], values)
            return ScanPage(_tallies(rows), (numbers[-1],) if len(numbers) == WALKED else None)

        return await self._database.read(read)

    async def old_events(
        self, operator_id: int, span: Span, after: Place | None, limit: int
    ) -> ScanPage[OldEvent, Place]:
        """See `Archive.old_events`."""

        def read(connection: apsw.Connection) -> ScanPage[OldEvent, Place]:
            number, *position = after or (0, span.from_ms, -1)
            names = scalar(connection, "walk_event_entities", operator_id, number - 1, WALKED)
            found: list[OldEvent] = []
            room = PAGE_BYTES
            numbers = _numbers(names)
            for each in numbers:
                start = position if each == number else (span.from_ms, -1)
                values = (operator_id, each, *start, span.to_ms, span.settled_ms)
                for row in connection.execute(SQL["old_events"], (*values, limit - len(found))):
                    event = OldEvent(*row)
                    found.append(event)
                    room -= payload_bytes(event)
                    if len(found) == limit or room < 0:
                        return ScanPage(found, (each, event.occurred_at_ms, event.event_no))
            more = len(numbers) == WALKED
            return ScanPage(found, (numbers[-1] + 1, span.from_ms, -1) if more else None)

        return await self._database.read(read)

    async def old_states(
        self, operator_id: int, span: Span, after: Place | None, limit: int
    ) -> ScanPage[OldState, Place]:
        """See `Archive.old_states`."""

        def read(connection: apsw.Connection) -> ScanPage[OldState, Place]:
            place, end, following = _tombstones(connection, operator_id, span, after, limit)
            found: list[OldState] = []
            room = PAGE_BYTES
            for row in connection.execute(SQL["old_states"], (operator_id, *place, *end)):
                state = OldState(*row)
                if room < 0 and state.entity_no != found[-1].entity_no:
                    return ScanPage(found, (found[-1].erased_at_ms, found[-1].entity_no))
                found.append(state)
                room -= payload_bytes(state)
            return ScanPage(found, following)

        return await self._database.read(read)

    async def remove_events(self, lease: Lease, keys: Sequence[EventKey]) -> Removed:
        """See `Archive.remove_events`."""
        rows = [(key.entity_no, (lease.operator_id, key.event_no, key.event_id)) for key in keys]
        return await self._remove(lease, "event", rows)

    async def remove_states(self, lease: Lease, keys: Sequence[StateKey]) -> Removed:
        """See `Archive.remove_states`."""
        rows = [(key.entity_no, (lease.operator_id, key.entity_no, key.state_key)) for key in keys]
        return await self._remove(lease, "state", rows)

    async def remove_tombstones(
        self, lease: Lease, erased_before_ms: int, after: Place | None, limit: int
    ) -> tuple[int, Place | None]:
        """See `Archive.remove_tombstones`."""
        span = Span("states", _FIRST, erased_before_ms, _LAST)

        def task(connection: apsw.Connection) -> tuple[int, Place | None]:
            place, end, following = _tombstones(connection, lease.operator_id, span, after, limit)
            connection.execute(SQL["remove_tombstones"], (lease.operator_id, *place, *end))
            return connection.changes(), following

        return await self._under(lease, task)

    async def held_ids(self, operator_id: int) -> Sequence[str]:
        """See `Archive.held_ids`."""
        return [entity_id for (entity_id,) in await self._database.rows("held_ids", operator_id)]

    async def _remove(self, lease: Lease, what: str, rows: Sequence[tuple[int, Row]]) -> Removed:
        """Delete rows, each given with the number of its entity."""
        numbers = msgspec.json.encode(sorted({number for number, _ in rows})).decode()

        def task(connection: apsw.Connection) -> Removed:
            held = set(_numbers(scalar(connection, "held_numbers", lease.operator_id, numbers)))
            before = connection.total_changes()
            going = [row for number, row in rows if number not in held]
            connection.executemany(SQL[f"remove_{what}"], going)
            kept = [
                at
                for at, (number, row) in enumerate(rows)
                if number in held and one_row(connection, f"kept_{what}", *row)
            ]
            return Removed(connection.total_changes() - before, kept)

        return await self._under(lease, task)

    async def _under(self, lease: Lease, task: Callable[[apsw.Connection], T]) -> T:
        """Run a task in a transaction under the lease, which is renewed with it."""
        values = (lease.operator_id, lease.holder, lease.expires_at_ms)

        def fenced(connection: apsw.Connection) -> T:
            if one_row(connection, "renew_lease", *values) is None:
                raise LeaseLost
            return task(connection)

        return await self._database.write(fenced)


def _tombstones(
    connection: apsw.Connection, operator_id: int, span: Span, after: Place | None, limit: int
) -> tuple[Place, Place, Place | None]:
    """The erased entities of one page: after which, up to which, and where the next page begins."""
    place = after or (span.from_ms, -1)
    last = one_row(connection, "tombstone_walk_end", operator_id, *place, span.to_ms, limit)
    # Up to and with a number that there is not: everything before `to_ms`.
    return place, last or (span.to_ms, -1), last


def _tallies(rows: apsw.Cursor) -> list[Tally]:
    return [
        Tally(month, bool(gone), bool(held), bool(settled), count, size)
        for month, gone, held, settled, count, size in rows
    ]
