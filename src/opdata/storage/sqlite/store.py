"""The embedded store: one SQLite file in WAL mode, one writer a process, readers beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import apsw
import msgspec

from opdata.errors import Conflict, Unavailable
from opdata.keys import refuse_to_lock_out
from opdata.model import (
    ApiKey,
    Entity,
    Erasure,
    Event,
    Job,
    LegalHold,
    ListedEvent,
    ListedState,
    Operator,
    Quota,
    State,
)
from opdata.storage.base import StoreReport, Taken
from opdata.storage.reads import (
    EventPosition,
    EventQuery,
    EventScan,
    JobQuery,
    ScanPage,
    StatePosition,
    StateScan,
)
from opdata.storage.records import (
    Row,
    entity_of,
    event_of,
    job_of,
    key_of,
    key_row,
    listed_event_of,
    listed_state_of,
    operator_of,
    state_of,
)
from opdata.storage.scans import AFTER_ANY_NAME, WALKED_ENTITIES, event_page, state_page
from opdata.storage.sqlite.connection import (
    SQL,
    connect,
    file_of,
    one_row,
    scalar,
    the_row,
    translated,
)
from opdata.storage.sqlite.limiter import Limiter
from opdata.storage.sqlite.schema import inspect, require_migrated
from opdata.storage.sqlite.writer import Undo, Writer
from opdata.storage.sqlite.writes import perform
from opdata.storage.work import IDEMPOTENCY_TTL_MS, DeleteEntity, Reply, UpsertEntities, Write

T = TypeVar("T")

_READERS: Final = 4
_PURGE_STEP: Final = 1_000


class SqliteStore:
    """A `Store` in one SQLite file. Its methods are called from one event loop."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._file = file_of(path)
        self._busy_timeout_s = busy_timeout_s
        self._writer = Writer(lambda: connect(path, busy_timeout_s=busy_timeout_s), busy_timeout_s)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="sqlite-reader")
        self._reader = threading.local()
        self._limiter = Limiter(path.with_name(path.name + "-limits"))
        self._closed = False

    async def close(self) -> None:
        """See `Store.close`."""
        if not self._closed:
            self._closed = True
            await self._writer.close()
            await asyncio.to_thread(self._readers.shutdown)
            self._limiter.close()

    async def ping(self) -> None:
        """See `Store.ping`."""

        def look(connection: apsw.Connection) -> None:
            require_migrated(connection)
            # An open file answers on after it was removed or replaced; nobody would see its rows again.
            if file_of(self._path) != self._file:
                message = f"The database is no longer at {self._path}"
                raise Unavailable(message)

        await self._read(look)

    async def report(self) -> StoreReport:
        """See `Store.report`."""
        return await self._read(lambda connection: inspect(connection, self._path))

    async def write(self, write: Write) -> Reply:
        """See `Store.write`."""
        if isinstance(write.work, UpsertEntities):
            # Made here and now, and not while the one writer holds its lock.
            len(write.work.rows)

        def task(connection: apsw.Connection) -> Reply:
            reply = perform(connection, self._writer.numbers, write)
            if write.dry_run:
                raise Undo(reply)
            if isinstance(write.work, DeleteEntity):
                self._writer.truncate_log()
            return reply

        return await self._writer.run(task)

    async def entity(self, operator_id: int, external_id: str) -> Entity | None:
        """See `Store.entity`."""
        row = await self._row("entity", operator_id, external_id)
        return entity_of(row) if row else None

    async def entities(
        self, operator_id: int, *, entity_type: str | None, after: str | None, limit: int
    ) -> Sequence[Entity]:
        """See `Store.entities`."""
        rows = await self._rows("entities", operator_id, after or "", entity_type, limit)
        return [entity_of(row) for row in rows]

    async def events(
        self, operator_id: int, external_id: str, query: EventQuery
    ) -> Sequence[Event] | None:
        """See `Store.events`."""

        def read(connection: apsw.Connection) -> Sequence[Event] | None:
            number = scalar(connection, "entity_number", operator_id, external_id)
            if number is None:
                return None
            values = (
                operator_id,
                number,
                query.since_ms,
                *query.until,
                query.event_type,
                query.limit,
            )
            return [event_of(row) for row in connection.execute(SQL["events"], values)]

        return await self._read(read)

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

        return await self._read(read)

    async def all_events(
        self, operator_id: int, scan: EventScan
    ) -> ScanPage[ListedEvent, EventPosition]:
        """See `Store.all_events`."""

        def read(connection: apsw.Connection) -> ScanPage[ListedEvent, EventPosition]:
            name, *place = scan.position
            walked_to = scalar(connection, "walk_end", operator_id, name, WALKED_ENTITIES)
            filters = (scan.since_ms, scan.until_ms, scan.event_type)
            wanted = scan.limit + 1
            rows = connection.execute(
                SQL["rest_of_events"], (operator_id, name, *place, *filters, wanted)
            ).fetchall()
            end = walked_to or AFTER_ANY_NAME
            rows += connection.execute(
                SQL["all_events"], (operator_id, name, end, *filters, wanted - len(rows))
            )
            return event_page([listed_event_of(row) for row in rows], scan.limit, walked_to)

        return await self._read(read)

    async def all_states(
        self, operator_id: int, scan: StateScan
    ) -> ScanPage[ListedState, StatePosition]:
        """See `Store.all_states`."""

        def read(connection: apsw.Connection) -> ScanPage[ListedState, StatePosition]:
            name, key = scan.position
            walked_to = scalar(connection, "walk_end", operator_id, name, WALKED_ENTITIES)
            end = walked_to or AFTER_ANY_NAME
            values = (operator_id, name, key, end, scan.state_key, scan.limit + 1)
            rows = [listed_state_of(row) for row in connection.execute(SQL["all_states"], values)]
            return state_page(rows, scan.limit, walked_to)

        return await self._read(read)

    async def erasures(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[Erasure]:
        """See `Store.erasures`."""
        return [
            Erasure(*row) for row in await self._rows("ledger", operator_id, after or "", limit)
        ]

    async def returned(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        """See `Store.returned`."""
        rows = await self._rows("returned", operator_id, after or "", limit)
        return [(name, entity_id) for name, entity_id in rows]

    async def holds(self, operator_id: int) -> Sequence[LegalHold]:
        """See `Store.holds`."""
        return [LegalHold(*row) for row in await self._rows("holds", operator_id)]

    async def job(self, operator_id: int, job_id: str) -> Job | None:
        """See `Store.job`."""
        row = await self._row("job", operator_id, job_id)
        return job_of(row) if row else None

    async def jobs(self, query: JobQuery) -> Sequence[Job]:
        """See `Store.jobs`."""
        rows = await self._rows(
            "jobs", query.operator_id, query.status, query.type, *query.until, query.limit
        )
        return [job_of(row) for row in rows]

    async def create_operator(self, name: str, key_salt: bytes, now_ms: int) -> Operator:
        """See `Store.create_operator`."""

        def task(connection: apsw.Connection) -> Operator:
            operator_id = scalar(connection, "create_operator", name, key_salt, now_ms)
            if operator_id is None:
                message = f"There is an operator named {name!r} already"
                raise Conflict(message)
            return operator_of(the_row(connection, "operators", operator_id))

        return await self._writer.run(task)

    async def operators(self) -> Sequence[Operator]:
        """See `Store.operators`."""
        return [operator_of(row) for row in await self._rows("operators", None)]

    async def operator(self, operator_id: int) -> Operator | None:
        """See `Store.operator`."""
        row = await self._row("operators", operator_id)
        return operator_of(row) if row else None

    async def set_limits(self, operator_id: int, limits: Mapping[str, Quota]) -> None:
        """See `Store.set_limits`."""
        await self._change("set_limits", operator_id, msgspec.json.encode(limits).decode())

    async def suspend_operator(self, operator_id: int, reason: str | None, now_ms: int) -> None:
        """See `Store.suspend_operator`."""
        await self._change("suspend_operator", operator_id, now_ms, reason)

    async def resume_operator(self, operator_id: int) -> None:
        """See `Store.resume_operator`."""
        await self._change("resume_operator", operator_id)

    async def create_key(self, key: ApiKey, key_hash: bytes) -> None:
        """See `Store.create_key`."""
        await self._change("create_key", *key_row(key, key_hash))

    async def keys(self, operator_id: int) -> Sequence[ApiKey]:
        """See `Store.keys`."""
        return [key_of(row) for row in await self._rows("keys", operator_id, None)]

    async def authenticate(self, key_hash: bytes, now_ms: int) -> tuple[ApiKey, Operator] | None:
        """See `Store.authenticate`."""

        def read(connection: apsw.Connection) -> tuple[ApiKey, Operator] | None:
            row = one_row(connection, "authenticate", key_hash, now_ms)
            if row is None:
                return None
            key = key_of(row)
            operator = operator_of(the_row(connection, "operators", key.operator_id))
            return (key, operator) if operator.suspension is None else None

        return await self._read(read)

    async def relabel_key(self, operator_id: int, key_id: str, label: str) -> ApiKey | None:
        """See `Store.relabel_key`."""

        def task(connection: apsw.Connection) -> ApiKey | None:
            connection.execute(SQL["relabel_key"], (operator_id, key_id, label))
            return _key(connection, operator_id, key_id)

        return await self._writer.run(task)

    async def revoke_key(
        self, operator_id: int, key_id: str, now_ms: int, *, keep_last: bool = True
    ) -> ApiKey | None:
        """See `Store.revoke_key`."""

        def task(connection: apsw.Connection) -> ApiKey | None:
            found = _key(connection, operator_id, key_id)
            if found is None or found.revoked_at_ms is not None:
                return found
            if keep_last:
                rows = connection.execute(SQL["keys"], (operator_id, None))
                refuse_to_lock_out([key_of(row) for row in rows], found, now_ms)
            connection.execute(SQL["revoke_key"], (operator_id, key_id, now_ms))
            return _key(connection, operator_id, key_id)

        return await self._writer.run(task)

    async def touch_keys(self, used_at_ms: Mapping[str, int]) -> None:
        """See `Store.touch_keys`."""
        await self._change("touch_keys", msgspec.json.encode(used_at_ms).decode())

    async def take(self, operator_id: int, category: str, quota: Quota, now_ms: int) -> Taken:
        """See `Store.take`."""
        if self._closed:
            raise Unavailable
        # Some 30 µs, without a flush: not worth a thread.
        return self._limiter.take(operator_id, category, quota, now_ms)

    async def key_checks(self) -> Mapping[int, bytes]:
        """See `Store.key_checks`."""
        return {row[0]: row[1] for row in await self._rows("key_checks")}

    async def add_key_check(self, key_id: int, check: bytes) -> None:
        """See `Store.add_key_check`."""
        await self._change("add_key_check", key_id, check)

    async def sweep_erased(self) -> None:
        """See `Store.sweep_erased`. The row was overwritten, and the log is tried once more."""

        def task(_connection: apsw.Connection) -> None:
            self._writer.truncate_log()

        await self._writer.run(task)

    async def purge(self, now_ms: int) -> int:
        """See `Store.purge`."""
        expired_at_ms = now_ms - IDEMPOTENCY_TTL_MS

        def step(connection: apsw.Connection) -> int:
            connection.execute(SQL["purge_idempotency_records"], (expired_at_ms, _PURGE_STEP))
            return connection.changes()

        gone = 0
        while count := await self._writer.run(step):
            gone += count
        return gone

    async def _change(self, name: str, *values: object) -> None:
        await self._writer.run(lambda connection: connection.execute(SQL[name], values).fetchall())

    async def _row(self, name: str, *values: object) -> Row | None:
        return await self._read(lambda connection: one_row(connection, name, *values))

    async def _rows(self, name: str, *values: object) -> list[Row]:
        return await self._read(lambda connection: connection.execute(SQL[name], values).fetchall())

    async def _read(self, read: Callable[[apsw.Connection], T]) -> T:
        """Run a query on a reader's connection, in one snapshot. Raises `Unavailable`."""

        def task() -> T:
            with translated():
                connection = self._reader_connection()
                # One snapshot for all that the query reads.
                connection.execute("BEGIN")
                try:
                    return read(connection)
                finally:
                    connection.execute("ROLLBACK")

        if self._closed:
            raise Unavailable
        return await asyncio.get_running_loop().run_in_executor(self._readers, task)

    def _reader_connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._reader, "connection", None)
        if connection is None:
            connection = connect(self._path, busy_timeout_s=self._busy_timeout_s, read_only=True)
            self._reader.connection = connection
        return connection


def _key(connection: apsw.Connection, operator_id: int, key_id: str) -> ApiKey | None:
    row = one_row(connection, "keys", operator_id, key_id)
    return key_of(row) if row else None
