"""An operator of a store under test, the writes of its requests, and rows to write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opdata.ids import new_entity_ids, new_event_ids, new_job_id
from opdata.keys import NewKey, new_key
from opdata.model import ALL_SCOPES, Entity, Erasure, Event, Operator, Scope, State
from opdata.storage.base import Store
from opdata.storage.reads import EventQuery
from opdata.storage.work import (
    AppendEvents,
    ChangeSettings,
    Claim,
    DeleteEntity,
    EntityColumns,
    EventColumns,
    JobDraft,
    LiftHold,
    Outcome,
    PlaceHold,
    QueueBatch,
    Reply,
    SetStates,
    StateColumns,
    UpsertEntities,
    Work,
    Write,
)

NOW_MS = 1_775_476_800_000
SECOND_MS = 1_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class EntityRow(NamedTuple):
    """One entity to upsert: a name, its fingerprint, and a row across `EntityColumns`."""

    entity_id: str
    external_id: str
    entity_type: str
    data: str
    fingerprint: bytes


def entity_row(external_id: str, data: str = "{}", entity_type: str = "player") -> EntityRow:
    """A row whose fingerprint is of its type and data."""
    fingerprint = hashlib.blake2b(f"{entity_type} {data}".encode(), digest_size=16).digest()
    return EntityRow(new_entity_ids(1)[0], external_id, entity_type, data, fingerprint)


def upserted(
    *rows: EntityRow, seal: Callable[[Sequence[int]], Sequence[bytes | None]] | None = None
) -> UpsertEntities:
    """The work of upserting these rows, in the order of their names, which positions go by.

    `seal` gets the positions that the store asks for; without it nothing is sealed.
    """
    by_name = sorted(rows, key=lambda row: row.external_id)

    def make(positions: Sequence[int]) -> EntityColumns:
        wanted = [by_name[at] for at in positions]
        return EntityColumns(
            positions,
            [row.entity_id for row in wanted],
            [row.entity_type for row in wanted],
            [row.data.encode() for row in wanted],
            seal(positions) if seal else [None] * len(wanted),
        )

    return UpsertEntities(
        [row.external_id for row in by_name], [row.fingerprint for row in by_name], make
    )


class EventRow(NamedTuple):
    """One event to append: a row across `EventColumns`."""

    event_id: bytes
    external_id: str
    event_type: str
    data: str
    occurred_at_ms: int
    idempotency_key: str | None
    fingerprint: bytes | None


def appended(*rows: EventRow, bad: Collection[int] = ()) -> AppendEvents:
    """The work of appending these rows, of which the `bad` ones turn out to be no good."""
    keyed = any(row.idempotency_key for row in rows)

    def make(positions: Sequence[int]) -> EventColumns:
        good = [at for at in positions if at not in bad]
        wanted = [rows[at] for at in good]
        return EventColumns(
            good,
            [row.event_type for row in wanted],
            [row.data.encode() for row in wanted],
            [row.occurred_at_ms for row in wanted],
            [row.idempotency_key for row in wanted] if keyed else None,
            [row.fingerprint for row in wanted] if keyed else None,
        )

    ids, names = [row.event_id for row in rows], [row.external_id for row in rows]
    return AppendEvents(ids, names, make, keyed=keyed)


def event_row(
    external_id: str,
    data: str = "{}",
    *,
    at_ms: int = NOW_MS,
    event_type: str = "session",
    key: str | None = None,
) -> EventRow:
    """A row; with a key, its fingerprint is of its entity and data."""
    content = hashlib.blake2b(f"{external_id} {data}".encode(), digest_size=16).digest()
    fingerprint = None if key is None else content
    event_id = new_event_ids(1, NOW_MS)[0]
    return EventRow(event_id, external_id, event_type, data, at_ms, key, fingerprint)


class StateRow(NamedTuple):
    """A state to set, with its members in the order of `StateColumns`."""

    external_id: str
    state_key: str
    value: str
    observed_at_ms: int
    forced: bool


def states_set(*rows: StateRow) -> SetStates:
    """The work of setting these states."""
    names, keys, values, times_ms, forced = zip(*rows, strict=True) if rows else [()] * 5
    texts = [text.encode() for text in values]
    return SetStates(StateColumns(names, keys, texts, times_ms, forced))


def state_row(
    external_id: str, value: str, *, key: str = "balance", observed_at_ms: int | None = None
) -> StateRow:
    """A row that overwrites, or with `observed_at_ms` an observation that may come too late."""
    at_ms = NOW_MS if observed_at_ms is None else observed_at_ms
    return StateRow(external_id, key, value, at_ms, forced=observed_at_ms is None)


def claim(key: str = "key-1", *, path: str = "/batch/events", body: bytes = b"body") -> Claim:
    """A claim on an Idempotency-Key by a request with this body."""
    return Claim("POST", path, key, hashlib.blake2b(body, digest_size=16).digest())


def job_draft() -> JobDraft:
    return JobDraft(new_job_id(), "batch_ingest_entities")


def queued_batch(
    job_id: str | None = None,
    payload: bytes = b"\1\0\0\0\1 sealed",
    *,
    items: int = 4,
    template_id: str = "tpl_igaming",
    max_batches: int = 1_000,
    max_bytes: int = 1_000_000,
) -> QueueBatch:
    """The work of queueing a batch of entities."""
    of_job = (template_id, False, items, payload, max_batches, max_bytes)
    return QueueBatch(job_id or new_job_id(), "batch_ingest_entities", *of_job)


@dataclass
class Written:
    """What came of a write. `outcome` is None when it was answered from a claim."""

    reply: Reply
    outcome: Outcome | None

    @property
    def refused(self) -> dict[int, str]:
        assert self.outcome is not None
        return dict(self.outcome.refused)

    @property
    def duplicates(self) -> dict[int, bytes]:
        assert self.outcome is not None
        return self.outcome.duplicates


@dataclass
class Seal:
    """A `seal` callback that notes what it is asked for."""

    calls: list[Sequence[int]] = field(default_factory=list)

    def __call__(self, positions: Sequence[int]) -> Sequence[bytes | None]:
        self.calls.append(list(positions))
        return [b"sealed %d" % position for position in positions]


@dataclass
class Tenant:
    """An operator and its store."""

    store: Store
    operator: Operator

    @property
    def id(self) -> int:
        return self.operator.operator_id

    def through(self, store: Store) -> Tenant:
        """The same operator through another store on the database."""
        return Tenant(store, self.operator)

    async def write(
        self,
        work: Work,
        *,
        now_ms: int = NOW_MS,
        reply: Reply | None = None,
        finish: Callable[[Outcome], Reply] | None = None,
        **rest: Any,
    ) -> Written:
        outcomes: list[Outcome] = []

        def note(outcome: Outcome) -> Reply:
            outcomes.append(outcome)
            return finish(outcome) if finish else reply or Reply(200, b"done")

        answer = await self.store.write(Write(self.id, now_ms, work, note, **rest))
        return Written(answer, outcomes[-1] if outcomes else None)

    async def upsert(
        self,
        *rows: EntityRow,
        seal: Callable[[Sequence[int]], Sequence[bytes | None]] | None = None,
        **write: Any,
    ) -> Written:
        return await self.write(upserted(*rows, seal=seal), **write)

    async def create(self, *external_ids: str, **write: Any) -> Written:
        return await self.upsert(*map(entity_row, external_ids), **write)

    async def append(self, *rows: EventRow, **write: Any) -> Written:
        return await self.write(appended(*rows), **write)

    async def set_states(self, *rows: StateRow, **write: Any) -> Written:
        return await self.write(states_set(*rows), **write)

    async def delete(self, external_id: str, **write: Any) -> Written:
        return await self.write(DeleteEntity(external_id), **write)

    async def place_hold(self, external_id: str, reason: str = "case 7", **write: Any) -> Written:
        return await self.write(PlaceHold(external_id, reason), **write)

    async def lift_hold(self, external_id: str, **write: Any) -> Written:
        return await self.write(LiftHold(external_id), **write)

    async def held(self) -> list[str]:
        """External ids of the entities under a legal hold."""
        return [hold.external_id for hold in await self.store.holds(self.id)]

    async def erasures(self) -> list[Erasure]:
        """The ledger."""
        return list(await self.store.erasures(self.id, after=None, limit=1_000))

    async def returned(self) -> list[str]:
        """External ids of live entities that the ledger says were erased."""
        page = await self.store.returned(self.id, after=None, limit=1_000)
        return [external_id for external_id, _ in page]

    async def change(self, settings: ChangeSettings, **write: Any) -> Written:
        return await self.write(settings, **write)

    async def entity(self, external_id: str) -> Entity | None:
        return await self.store.entity(self.id, external_id)

    async def listed(
        self, *, entity_type: str | None = None, after: str | None = None, limit: int = 1_000
    ) -> list[str]:
        """External ids of a page of entities."""
        page = await self.store.entities(self.id, entity_type=entity_type, after=after, limit=limit)
        return [entity.external_id for entity in page.rows]

    async def events(self, external_id: str, **query: Any) -> Sequence[Event] | None:
        page = await self.store.events(
            self.id, external_id, EventQuery(**{"limit": 10_000, **query})
        )
        return None if page is None else page.rows

    async def event_data(self, external_id: str, **query: Any) -> list[str]:
        """`data` of the events of an entity that exists, newest first."""
        found = await self.events(external_id, **query)
        assert found is not None
        return [event.data for event in found]

    async def states(self, external_id: str) -> dict[str, State]:
        """The states of an entity that exists, by key, in the order they came."""
        found = await self.store.states(self.id, external_id)
        assert found is not None
        return {state.state_key: state for state in found}

    async def values(self, external_id: str) -> dict[str, str]:
        return {key: state.value for key, state in (await self.states(external_id)).items()}

    async def add_key(
        self,
        label: str = "label",
        created_at_ms: int = NOW_MS,
        *,
        scopes: frozenset[Scope] = ALL_SCOPES,
        expires_at_ms: int | None = None,
    ) -> NewKey:
        made = new_key()
        key = made.record(self.id, label, created_at_ms, scopes=scopes, expires_at_ms=expires_at_ms)
        await self.store.create_key(key, made.key_hash)
        return made
