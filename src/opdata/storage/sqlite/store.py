"""The embedded store: one SQLite file in WAL mode, one writer a process, readers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import apsw

from opdata.errors import Unavailable
from opdata.model import (
    Entity,
    Erasure,
    Event,
    Job,
    LegalHold,
    ListedEvent,
    ListedState,
    Quota,
    State,
)
from opdata.storage.base import StoreReport, Taken
from opdata.storage.reads import (
    EventPosition,
    EventQuery,
    EventScan,
    JobQuery,
    Page,
    ScanPage,
    StatePosition,
    StateScan,
    first_of,
)
from opdata.storage.records import (
    entity_of,
    event_of,
    job_of,
    listed_event_of,
    listed_state_of,
    state_of,
)
from opdata.storage.scans import AFTER_ANY_NAME, WALKED_ENTITIES, event_page, state_page
from opdata.storage.sqlite.archive import SqliteArchive
from opdata.storage.sqlite.audit import SqliteAuditLog
from opdata.storage.sqlite.connection import SQL, file_of, scalar
from opdata.storage.sqlite.data_keys import SqliteDataKeys
from opdata.storage.sqlite.database import Database
from opdata.storage.sqlite.limiter import Limiter
from opdata.storage.sqlite.queue import SqliteQueue
from opdata.storage.sqlite.schema import inspect, require_migrated
from opdata.storage.sqlite.tenancy import SqliteTenancy
from opdata.storage.sqlite.writer import Undo
from opdata.storage.sqlite.writes import perform, with_events_checked
from opdata.storage.work import IDEMPOTENCY_TTL_MS, DeleteEntity, EndJob, Reply, Write

_PURGE_STEP: Final = 1_000


class SqliteStore(SqliteTenancy):
    """A `Store` in one SQLite file. Its methods are called from one event loop."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        database = Database(path, busy_timeout_s=busy_timeout_s)
        super().__init__(database)
        self.archive = SqliteArchive(database)
        self.audit = SqliteAuditLog(database)
        self.data_keys = SqliteDataKeys(database)
        self.queue = SqliteQueue(database)
        self._path = path
        self._file = file_of(path)
        self._limiter = Limiter(path.with_name(path.name + "-limits"))
        self._closed = False

    async def close(self) -> None:
        """See `Store.close`."""
        if not self._closed:
            self._closed = True
            await self._database.close()
            self._limiter.close()

    async def ping(self) -> None:
        """See `Store.ping`."""

        def look(connection: apsw.Connection) -> None:
            require_migrated(connection)
            # An open file answers on after it was removed or replaced; nobody would see its rows again.
            if file_of(self._path) != self._file:
                message = f"The database is no longer at {self._path}"
                raise Unavailable(message)

        await self._database.read(look)

    async def report(self) -> StoreReport:
        """See `Store.report`."""
        return await self._database.read(lambda connection: inspect(connection, self._path))

    async def write(self, write: Write) -> Reply:
        """See `Store.write`."""
        ready = with_events_checked(write)

        def task(connection: apsw.Connection) -> Reply:
            reply = perform(connection, self._database.writer.numbers, ready)
            if write.dry_run:
                raise Undo(reply)
            if isinstance(write.work, DeleteEntity | EndJob):
                self._database.writer.truncate_log()
            return reply

        return await self._database.write(task)

    async def entity(self, operator_id: int, external_id: str) -> Entity | None:
        """See `Store.entity`."""
        row = await self._database.row("entity", operator_id, external_id)
        return entity_of(row) if row else None

    async def entities(
        self, operator_id: int, *, entity_type: str | None, after: str | None, limit: int
    ) -> Page[Entity]:
        """See `Store.entities`."""
        values = (operator_id, after or "", entity_type)
        rows, more = await self._database.first_rows("entities", *values, limit=limit)
        return Page([entity_of(row) for row in rows], more)

    async def events(
        self, operator_id: int, external_id: str, query: EventQuery
    ) -> Page[Event] | None:
        """See `Store.events`."""

        def read(connection: apsw.Connection) -> Page[Event] | None:
            number = scalar(connection, "entity_number", operator_id, external_id)
            if number is None:
                return None
            values = (
                operator_id,
                number,
                query.since_ms,
                *query.until,
                query.event_type,
                query.limit + 1,
            )
            rows, more = first_of(connection.execute(SQL["events"], values), query.limit)
            return Page([event_of(row) for row in rows], more)

        return await self._database.read(read)

    async def states(
        self, operator_id: int, external_id: str, state_key: str | None = None
    ) -> Sequence[State] | None:
        """See `Store.states`."""

        def read(connection: apsw.Connection) -> Sequence[State] | None:
            number = scalar(connection, "entity_number", operator_id, external_id)
            if number is None:
                return None
            values = (operator_id, number, state_key)
            return [state_of(row) for row in connection.execute(SQL["states"], values)]

        return await self._database.read(read)

    async def all_events(
        self, operator_id: int, scan: EventScan
    ) -> ScanPage[ListedEvent, EventPosition]:
        """See `Store.all_events`."""

        def read(connection: apsw.Connection) -> ScanPage[ListedEvent, EventPosition]:
            name, *place = scan.position
            walked_to = scalar(connection, "walk_end", operator_id, name, WALKED_ENTITIES)
            filters = (scan.since_ms, scan.until_ms, scan.event_type)
            end, wanted = walked_to or AFTER_ANY_NAME, scan.limit + 1
            rest = (operator_id, name, *place, *filters, wanted)
            others = (operator_id, name, end, *filters, wanted)
            rows, more = first_of(
                chain.from_iterable(
                    connection.execute(SQL[query], values)
                    for query, values in (("rest_of_events", rest), ("all_events", others))
                ),
                scan.limit,
            )
            return event_page([listed_event_of(row) for row in rows], walked_to, more=more)

        return await self._database.read(read)

    async def all_states(
        self, operator_id: int, scan: StateScan
    ) -> ScanPage[ListedState, StatePosition]:
        """See `Store.all_states`."""

        def read(connection: apsw.Connection) -> ScanPage[ListedState, StatePosition]:
            name, key = scan.position
            walked_to = scalar(connection, "walk_end", operator_id, name, WALKED_ENTITIES)
            end = walked_to or AFTER_ANY_NAME
            values = (operator_id, name, key, end, scan.state_key, scan.limit + 1)
            rows, more = first_of(connection.execute(SQL["all_states"], values), scan.limit)
            return state_page([listed_state_of(row) for row in rows], walked_to, more=more)

        return await self._database.read(read)

    async def erasures(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[Erasure]:
        """See `Store.erasures`."""
        return [
            Erasure(*row)
            for row in await self._database.rows("ledger", operator_id, after or "", limit)
        ]

    async def returned(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        """See `Store.returned`."""
        rows = await self._database.rows("returned", operator_id, after or "", limit)
        return [(name, entity_id) for name, entity_id in rows]

    async def holds(self, operator_id: int) -> Sequence[LegalHold]:
        """See `Store.holds`."""
        return [LegalHold(*row) for row in await self._database.rows("holds", operator_id)]

    async def job(self, operator_id: int, job_id: str) -> Job | None:
        """See `Store.job`."""
        row = await self._database.row("job", operator_id, job_id)
        return job_of(row) if row else None

    async def jobs(self, query: JobQuery) -> Page[Job]:
        """See `Store.jobs`."""
        values = (query.operator_id, query.status, query.type, *query.until)
        rows, more = await self._database.first_rows("jobs", *values, limit=query.limit)
        return Page([job_of(row) for row in rows], more)

    async def take(self, operator_id: int, category: str, quota: Quota, now_ms: int) -> Taken:
        """See `Store.take`."""
        if self._closed:
            raise Unavailable
        # Some 30 µs, without a flush: not worth a thread.
        return self._limiter.take(operator_id, category, quota, now_ms)

    async def key_checks(self) -> Mapping[int, bytes]:
        """See `Store.key_checks`."""
        return {row[0]: row[1] for row in await self._database.rows("key_checks")}

    async def add_key_check(self, key_id: int, check: bytes) -> None:
        """See `Store.add_key_check`."""
        await self._database.run("add_key_check", key_id, check)

    async def sweep_erased(self) -> None:
        """See `Store.sweep_erased`. The row was overwritten, and the log is tried once more."""

        def task(_connection: apsw.Connection) -> None:
            self._database.writer.truncate_log()

        await self._database.write(task)

    async def purge(self, now_ms: int) -> int:
        """See `Store.purge`."""
        expired_at_ms = now_ms - IDEMPOTENCY_TTL_MS

        def step(connection: apsw.Connection) -> int:
            connection.execute(SQL["purge_idempotency_records"], (expired_at_ms, _PURGE_STEP))
            return connection.changes()

        gone = 0
        while count := await self._database.write(step):
            gone += count
        return gone
