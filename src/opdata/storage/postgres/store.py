"""The server store: PostgreSQL, shared by any number of processes and hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, TypeVar

import asyncpg
from msgspec.structs import replace

from opdata.errors import OpdataError
from opdata.logs import log
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
from opdata.storage.buckets import bucket_of, taken_of
from opdata.storage.postgres.archive import PostgresArchive
from opdata.storage.postgres.audit import PostgresAuditLog
from opdata.storage.postgres.connection import (
    SQL,
    UNHURRIED_S,
    Connection,
    ConnectionOptions,
    connected,
)
from opdata.storage.postgres.data_keys import PostgresDataKeys
from opdata.storage.postgres.database import Database, Transaction, first_of_page
from opdata.storage.postgres.numbers import EntityNumbers
from opdata.storage.postgres.queue import PostgresQueue
from opdata.storage.postgres.schema import inspect, require_ready
from opdata.storage.postgres.tenancy import PostgresTenancy
from opdata.storage.postgres.writes import perform
from opdata.storage.reads import (
    EventPosition,
    EventQuery,
    EventScan,
    JobQuery,
    Page,
    ScanPage,
    StatePosition,
    StateScan,
)
from opdata.storage.records import (
    Row,
    entity_of,
    event_of,
    job_of,
    listed_event_of,
    listed_state_of,
    state_of,
)
from opdata.storage.scans import AFTER_ANY_NAME, WALKED_ENTITIES, event_page, state_page
from opdata.storage.work import IDEMPOTENCY_TTL_MS, DeleteEntity, EndJob, Reply, Write

T = TypeVar("T")


_LIMITER_CONNECTIONS: Final = 2
_PURGE_STEP: Final = 1_000
_MARKS_TTL_MS: Final = 3_600_000  # far longer than a commit goes unanswered
_VACUUM_PAUSE_S: Final = 5.0


class PostgresStore(PostgresTenancy):
    """A `Store` in one PostgreSQL database. Its methods are called from one event loop."""

    def __init__(self, options: ConnectionOptions, database: Database, limiter: Database) -> None:
        super().__init__(database)
        self.archive = PostgresArchive(database)
        self.audit = PostgresAuditLog(database)
        self.data_keys = PostgresDataKeys(database)
        self._options = options
        self._limiter = limiter
        self._numbers = EntityNumbers()
        self.queue = PostgresQueue(database, self._numbers, self._vacuum_soon)
        self._vacuum: asyncio.Task[None] | None = None
        self._erased = False

    @classmethod
    async def open(cls, options: ConnectionOptions, *, connections: int) -> PostgresStore:
        """A store on a database that is known to be migrated."""
        return cls(
            options,
            await Database.open(options, connections=connections),
            # A token need not survive a crash of the server: buckets are fuller then, by what the
            # last moments took. It must not wait for a flush, nor for a connection behind batches.
            await Database.open(
                options, connections=_LIMITER_CONNECTIONS, synchronous_commit="off"
            ),
        )

    async def close(self) -> None:
        """See `Store.close`."""
        if self._vacuum is not None:
            self._vacuum.cancel()
            await asyncio.wait([self._vacuum])
        await self._database.close()
        await self._limiter.close()

    async def ping(self) -> None:
        """See `Store.ping`."""
        async with self._database.connection() as connection:
            await require_ready(connection)

    async def report(self) -> StoreReport:
        """See `Store.report`."""
        async with self._unhurried() as connection:
            return await inspect(connection, self._options.url)

    async def write(self, write: Write) -> Reply:
        """See `Store.write`."""

        async def work(transaction: Transaction) -> Reply:
            return await perform(transaction, self._numbers, write)

        reply = await self._database.transaction(
            work, operator_id=write.operator_id, undo=write.dry_run
        )
        # A batch that is not worked off may hold somebody who was erased meanwhile.
        erasing = isinstance(write.work, DeleteEntity | EndJob)
        erased = erasing and not (write.dry_run or reply.replayed)
        if erased and reply.status == HTTPStatus.OK:
            self._vacuum_soon()
        return reply

    async def entity(self, operator_id: int, external_id: str) -> Entity | None:
        """See `Store.entity`."""
        row = await self._database.row("entity", operator_id, external_id)
        return entity_of(tuple(row)) if row else None

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
        values = (
            operator_id,
            external_id,
            query.since_ms,
            *query.until,
            query.event_type,
        )
        rows, more = await self._database.first_rows("events", *values, limit=query.limit)
        events = _below(rows, event_of)
        return None if events is None else Page(events, more)

    async def states(
        self, operator_id: int, external_id: str, state_key: str | None = None
    ) -> Sequence[State] | None:
        """See `Store.states`."""
        rows = await self._database.rows("states", operator_id, external_id, state_key)
        return _below([tuple(row) for row in rows], state_of)

    async def all_events(
        self, operator_id: int, scan: EventScan
    ) -> ScanPage[ListedEvent, EventPosition]:
        """See `Store.all_events`."""
        name, *place = scan.position
        filters = (scan.since_ms, scan.until_ms, scan.event_type)
        wanted = scan.limit + 1
        async with self._database.connection() as connection:
            walked_to = await connection.fetchval(
                SQL["walk_end"], operator_id, name, WALKED_ENTITIES
            )
            rows = await connection.fetch(
                SQL["rest_of_events"], operator_id, name, *place, *filters, wanted
            )
            if not first_of_page(rows, scan.limit)[1]:
                end = walked_to or AFTER_ANY_NAME
                rows += await connection.fetch(
                    SQL["all_events"], operator_id, name, end, *filters, wanted
                )
        page, more = first_of_page(rows, scan.limit)
        return event_page([listed_event_of(row) for row in page], walked_to, more=more)

    async def all_states(
        self, operator_id: int, scan: StateScan
    ) -> ScanPage[ListedState, StatePosition]:
        """See `Store.all_states`."""
        name, key = scan.position
        async with self._database.connection() as connection:
            walked_to = await connection.fetchval(
                SQL["walk_end"], operator_id, name, WALKED_ENTITIES
            )
            end = walked_to or AFTER_ANY_NAME
            values = (operator_id, name, key, end, scan.state_key, scan.limit + 1)
            rows = await connection.fetch(SQL["all_states"], *values)
        page, more = first_of_page(rows, scan.limit)
        return state_page([listed_state_of(row) for row in page], walked_to, more=more)

    async def erasures(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[Erasure]:
        """See `Store.erasures`."""
        rows = await self._database.rows("ledger", operator_id, after or "", limit)
        return [Erasure(*row) for row in rows]

    async def returned(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        """See `Store.returned`."""
        async with self._unhurried() as connection:
            rows = await connection.fetch(SQL["returned"], operator_id, after or "", limit)
        return [(name, entity_id) for name, entity_id in rows]

    async def holds(self, operator_id: int) -> Sequence[LegalHold]:
        """See `Store.holds`."""
        return [LegalHold(*row) for row in await self._database.rows("holds", operator_id)]

    async def job(self, operator_id: int, job_id: str) -> Job | None:
        """See `Store.job`."""
        row = await self._database.row("job", operator_id, job_id)
        return job_of(tuple(row)) if row else None

    async def jobs(self, query: JobQuery) -> Page[Job]:
        """See `Store.jobs`."""
        of_all = query.operator_id is None
        name, whose = ("jobs_of_all", ()) if of_all else ("jobs", (query.operator_id,))
        values = (*whose, query.status, query.type, *query.until)
        rows, more = await self._database.first_rows(name, *values, limit=query.limit)
        return Page([job_of(row) for row in rows], more)

    async def take(self, operator_id: int, category: str, quota: Quota, now_ms: int) -> Taken:
        """See `Store.take`."""
        bucket = bucket_of(quota, now_ms)
        async with self._limiter.connection() as connection:
            values = (bucket.now_us, bucket.interval_us, bucket.size_us)
            full_at_us = await connection.fetchval(SQL["take"], operator_id, category, *values)
            granted = full_at_us is not None
            if not granted:
                full_at_us = await connection.fetchval(SQL["bucket"], operator_id, category)
                if full_at_us is not None and full_at_us > bucket.latest_us:
                    await connection.execute(
                        SQL["bring_near"], operator_id, category, bucket.latest_us
                    )
        return taken_of(bucket, full_at_us, granted=granted)

    async def key_checks(self) -> Mapping[int, bytes]:
        """See `Store.key_checks`."""
        return {row[0]: row[1] for row in await self._database.rows("key_checks")}

    async def add_key_check(self, key_id: int, check: bytes) -> None:
        """See `Store.add_key_check`."""
        await self._database.run("add_key_check", key_id, check)

    async def sweep_erased(self) -> None:
        """See `Store.sweep_erased`."""
        async with self._unhurried() as connection:
            # A lock that is held for longer than the lock wait: the next vacuum does it.
            with suppress(asyncpg.PostgresError):
                await connection.execute(SQL["sweep_entities"])

    async def purge(self, now_ms: int) -> int:
        """See `Store.purge`."""
        expired_at_ms = now_ms - IDEMPOTENCY_TTL_MS
        gone = 0
        for (operator_id,) in await self._database.rows(
            "operators_with_expired_records", expired_at_ms
        ):
            gone += await self._purge_operator(operator_id, expired_at_ms)
        await self._database.run("purge_marks", now_ms - _MARKS_TTL_MS)
        if self._erased:
            self._vacuum_soon()
        return gone

    async def _purge_operator(self, operator_id: int, expired_at_ms: int) -> int:
        gone = 0
        async with self._database.connection() as connection:
            while True:
                until_ms = await connection.fetchval(
                    SQL["purge_step"], operator_id, expired_at_ms, _PURGE_STEP
                )
                if until_ms is None:
                    return gone
                done = await connection.execute(
                    SQL["purge_idempotency_records"], operator_id, until_ms
                )
                gone += int(done.rpartition(" ")[2])

    @asynccontextmanager
    async def _unhurried(self) -> AsyncIterator[Connection]:
        """A connection of its own for what takes as long as the database is large."""
        async with self._database.connection():
            pass  # raises when the store is closed or the server away
        options = replace(self._options, statement_timeout_s=UNHURRIED_S)
        async with connected(options) as connection:
            yield connection

    def _vacuum_soon(self) -> None:
        """Have the old versions of erased rows removed, without anybody waiting for it (W51)."""
        self._erased = True
        if self._vacuum is None or self._vacuum.done():
            self._vacuum = asyncio.create_task(self._vacuum_erased())

    async def _vacuum_erased(self) -> None:
        while self._erased:
            self._erased = False
            try:
                async with self._unhurried() as connection:
                    await connection.execute("SET vacuum_cost_delay = 2")
                    await connection.execute(SQL["vacuum_entities"])
            except (OpdataError, asyncpg.PostgresError) as error:
                self._erased = True  # the housekeeping tries again
                log.warning("vacuum_failed", reason=str(error))
                return
            # Erasing many takes a vacuum for all of them, not one for each.
            await asyncio.sleep(_VACUUM_PAUSE_S)


def _below(rows: Sequence[Row], record_of: Callable[[Row], T]) -> Sequence[T] | None:
    """Records below an entity: no row says that there is no entity, a row of nulls that it has none."""
    if not rows:
        return None
    return [record_of(row) for row in rows if row[0] is not None]
