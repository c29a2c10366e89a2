"""One request's writes inside a transaction: the claim, the work, the job, the reply (W25).

Concurrent writes are kept serialisable by locks taken in one order: the claim, then existing
entities by name, then new rows by key. Where that order cannot hold PostgreSQL finds the deadlock,
and the transaction is done over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Final

import asyncpg
import msgspec
from msgspec import UNSET

from opdata.errors import IdempotencyInFlight, IdempotencyKeyReused
from opdata.model import Erasure
from opdata.storage.audit import entry_of
from opdata.storage.postgres.audit import append
from opdata.storage.postgres.connection import SQL, joined, joined_names
from opdata.storage.postgres.copying import (
    ENTITY_COLUMNS,
    EVENT_COLUMNS,
    copy_rows,
    pack_entities,
    pack_events,
)
from opdata.storage.postgres.database import CreatedMeanwhile, Transaction, findable
from opdata.storage.postgres.numbers import EntityNumbers
from opdata.storage.postgres.queueing import change_queue, note_erasure
from opdata.storage.records import operator_of
from opdata.storage.settling import SettledEvents, TakenKeys, settle_events, settle_states
from opdata.storage.work import (
    Administration,
    AdoptErasures,
    AppendEvents,
    ChangeSettings,
    Claim,
    DeleteEntity,
    EndJob,
    EntityColumns,
    EventColumns,
    LiftHold,
    Outcome,
    PlaceHold,
    QueueBatch,
    Reply,
    SetStates,
    UpsertEntities,
    Write,
)

_ENTITIES_A_PIECE: Final = 256
_EVENTS_A_PIECE: Final = 500
"""So many are packed at a time: the server takes them in while the next are made and packed."""


async def perform(transaction: Transaction, numbers: EntityNumbers, write: Write) -> Reply:
    """Answer the claim or do the work and record it.

    Raises `IdempotencyKeyReused`, `IdempotencyInFlight`, and `CreatedMeanwhile` on a first attempt.
    """
    recording = not write.dry_run
    connection = transaction.connection
    if recording and write.claim is not None:
        reply = await _answered(transaction, write, write.claim)
        if reply is not None:
            return reply
    outcome = await do_work(transaction, numbers, write)
    reply = write.finish(outcome)
    if recording and write.job is not None:
        job = write.job
        await connection.execute(
            SQL["add_job"], write.operator_id, job.job_id, job.type, reply.job_output, write.now_ms
        )
    if recording and write.claim is not None:
        claim, kept = write.claim, reply.replay or reply
        await connection.execute(
            SQL["settle_claim"],
            *(write.operator_id, claim.key, claim.method, claim.path, kept.status, kept.body),
        )
    if (entry := entry_of(write, outcome)) is not None:
        await append(transaction, write.operator_id, entry)
    return reply


async def _answered(transaction: Transaction, write: Write, claim: Claim) -> Reply | None:
    """The stored answer; None when the claim is this write's now."""
    connection = transaction.connection
    key = (write.operator_id, claim.key, claim.method, claim.path)
    try:
        made = await connection.fetchval(SQL["claim"], *key, claim.fingerprint, write.now_ms)
    except asyncpg.LockNotAvailableError as error:
        raise IdempotencyInFlight from error
    if made is not None:
        return None
    row = await connection.fetchrow(SQL["find_idempotency_record"], *key)
    if row is None:
        raise CreatedMeanwhile  # and gone meanwhile: expired, and purged
    fingerprint, status, body = row
    if fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused
    return Reply(status, body, replayed=True)


async def do_work(transaction: Transaction, numbers: EntityNumbers, write: Write) -> Outcome:
    """Do the work alone, without what stands around it."""
    match write.work:
        case UpsertEntities() as work:
            return await _upsert_entities(transaction, write, work)
        case AppendEvents() as work:
            return await _append_events(transaction, numbers, write, work)
        case SetStates() as work:
            return await _set_states(transaction, numbers, write, work)
        case QueueBatch() | EndJob() as work:
            connection, now_ms = transaction.connection, write.now_ms
            return await change_queue(connection, write.operator_id, now_ms, work)
        case _ as work:
            return await _administer(transaction, write, work)


async def _administer(transaction: Transaction, write: Write, work: Administration) -> Outcome:
    match work:
        case DeleteEntity():
            return await _delete_entity(transaction, write, work)
        case AdoptErasures():
            return await _adopt_erasures(transaction, write, work)
        case PlaceHold():
            return await _place_hold(transaction, write, work)
        case LiftHold():
            return await _lift_hold(transaction, write, work)
        case ChangeSettings():
            return await _change_settings(transaction, write, work)


async def _upsert_entities(transaction: Transaction, write: Write, work: UpsertEntities) -> Outcome:
    live = await transaction.connection.fetch(
        SQL["find_live_entities"], write.operator_id, joined_names(work.names)
    )
    stored = {name: (entity_id, fingerprint) for name, entity_id, fingerprint in live}
    upsert = _EntityUpsert(transaction, write, work, stored)
    if transaction.attempt == 0 and len(stored) < len(work.names):
        await _copy_new(transaction, upsert.packed_new())
    else:
        upsert.keep_all()
    await upsert.write_kept()
    return upsert.outcome()


class _EntityUpsert:
    """The entities of one upsert that are not stored so already, made and written a piece at a time.

    Those that are new are packed for a COPY, half again as fast as an upsert; those that replace others
    are kept until it is done. Where a COPY has met an entity that somebody else is making as well, all
    are kept, and whatever is there by now is replaced. All of it goes by name: in that order every batch adds
    what is new, so none waits for another crosswise.
    """

    def __init__(
        self,
        transaction: Transaction,
        write: Write,
        work: UpsertEntities,
        stored: Mapping[str, tuple[str, bytes | None]],
    ) -> None:
        self._transaction = transaction
        self._write = write
        self._work = work
        self._ids = [stored.get(name, ("", None))[0] for name in work.names]
        self._new = [not entity_id for entity_id in self._ids]
        self._changed = [
            at
            for at, (name, fingerprint) in enumerate(
                zip(work.names, work.fingerprints, strict=True)
            )
            if stored.get(name, ("", None))[1] != fingerprint
        ]
        self._kept: EntityColumns | None = None

    def packed_new(self) -> Iterator[bytes]:
        """The entities that are new, packed; the others that have changed are kept."""
        new = [at for at in self._changed if self._new[at]]
        for start in range(0, len(new), _ENTITIES_A_PIECE):
            rows = self._made(new[start : start + _ENTITIES_A_PIECE])
            yield pack_entities(
                *(self._write.operator_id, self._write.now_ms, rows, self._work),
                self._transaction.first_number,
            )
        self._keep([at for at in self._changed if not self._new[at]])

    def keep_all(self) -> None:
        """Keep all that are new or have changed."""
        self._keep(self._changed)

    async def write_kept(self) -> None:
        """Make or replace the entities that were kept."""
        rows = self._kept
        if rows is None or not rows.positions:
            return
        names = [self._work.names[at] for at in rows.positions]
        written = await self._transaction.connection.fetch(
            SQL["upsert_entities"],
            self._write.operator_id,
            self._write.now_ms,
            joined(names),
            joined([str(self._transaction.first_number + at) for at in rows.positions]),
            joined(rows.entity_ids),
            joined(rows.entity_types),
            joined([data.decode() for data in rows.data]),
            joined([(sealed or b"").hex() for sealed in rows.sealed]),
            joined([self._work.fingerprints[at].hex() for at in rows.positions]),
        )
        id_of = dict(map(tuple, written))
        for at, name, entity_id in zip(rows.positions, names, rows.entity_ids, strict=True):
            self._ids[at] = id_of[name]
            if self._ids[at] != entity_id:
                self._new[at] = False

    def outcome(self) -> Outcome:
        """The id of each name's entity, and whether it is new."""
        return Outcome(entity_ids=self._ids, created=self._new)

    def _keep(self, positions: Sequence[int]) -> None:
        if positions:
            self._kept = self._made(positions)

    def _made(self, positions: Sequence[int]) -> EntityColumns:
        rows = self._work.make(positions)
        for at, entity_id in zip(rows.positions, rows.entity_ids, strict=True):
            self._ids[at] = self._ids[at] or entity_id
        return rows


async def _copy_new(transaction: Transaction, pieces: Iterator[bytes]) -> None:
    """Add entities that were not there a moment ago.

    Raises `CreatedMeanwhile` when one of them is there after all.
    """
    try:
        await copy_rows(transaction.connection, "entities", ENTITY_COLUMNS, pieces)
    except (asyncpg.UniqueViolationError, asyncpg.InternalServerError) as error:
        # On a distributed database every failure of a COPY is XX000. Anything but a row that is
        # there already fails the next attempt in its own words.
        raise CreatedMeanwhile from error


async def _append_events(
    transaction: Transaction, numbers: EntityNumbers, write: Write, work: AppendEvents
) -> Outcome:
    connection, total = transaction.connection, len(work.event_ids)
    number_of = await numbers.find(connection, write.operator_id, set(work.external_ids))
    outcome = Outcome(refused={})

    def checked() -> Iterator[SettledEvents]:
        for start in range(0, total, _EVENTS_A_PIECE):
            events = work.make(range(start, min(start + _EVENTS_A_PIECE, total)))
            settled = settle_events(work, events, number_of, {})
            outcome.refused.update(settled.outcome.refused)
            yield settled

    if work.keyed:
        # Which of those under one key counts is known when all have been checked.
        events = work.make(range(total))
        taken = await _claim_keys(transaction, write, work, events, number_of)
        settled = settle_events(work, events, number_of, taken)
        outcome, pieces = settled.outcome, settled.pieces(_EVENTS_A_PIECE)
    else:
        pieces = checked()
    packed = (
        pack_events(
            *(write.operator_id, write.now_ms, piece.events, piece.numbers),
            *(work, transaction.first_number),
        )
        for piece in pieces
    )
    await copy_rows(connection, "events", EVENT_COLUMNS, packed)
    return outcome


async def _claim_keys(
    transaction: Transaction,
    write: Write,
    work: AppendEvents,
    events: EventColumns,
    number_of: Mapping[str, int],
) -> TakenKeys:
    """Take the idempotency keys of events that will be appended; return those that others have."""
    if events.idempotency_keys is None or events.fingerprints is None:
        return {}
    first_of: dict[str, int] = {}
    for row, (position, key) in enumerate(
        zip(events.positions, events.idempotency_keys, strict=True)
    ):
        if key is not None and work.external_ids[position] in number_of:
            first_of.setdefault(key, row)
    if not first_of:
        return {}
    keys = sorted(first_of)
    free = await transaction.connection.fetch(
        SQL["add_event_keys"],
        write.operator_id,
        joined(keys),
        joined([work.event_ids[events.positions[first_of[key]]].hex() for key in keys]),
        joined([(events.fingerprints[first_of[key]] or b"").hex() for key in keys]),
    )
    if len(free) == len(keys):
        return {}
    others = first_of.keys() - {key for (key,) in free}
    found = await transaction.connection.fetch(
        SQL["find_event_keys"], write.operator_id, joined(sorted(others))
    )
    return {key: (event_id, fingerprint) for key, event_id, fingerprint in found}


async def _set_states(
    transaction: Transaction, numbers: EntityNumbers, write: Write, work: SetStates
) -> Outcome:
    names = set(work.states.external_ids)
    number_of = await numbers.find(transaction.connection, write.operator_id, names)
    settled = settle_states(work.states, number_of)
    if settled.numbers:
        states = settled.states
        ordered = sorted(
            zip(
                *(settled.numbers, states.state_keys),
                map(str, states.values, repeat("utf-8")),
                map(str, states.observed_at_ms),
                ["t" if forced else "f" for forced in states.forced],
                strict=True,
            )
        )
        entity_numbers, *columns = zip(*ordered, strict=True)
        await transaction.connection.execute(
            SQL["set_states"],
            *(write.operator_id, write.now_ms, joined(list(map(str, entity_numbers)))),
            *map(joined, columns),
        )
    return settled.outcome


async def _delete_entity(transaction: Transaction, write: Write, work: DeleteEntity) -> Outcome:
    connection = transaction.connection
    name = (write.operator_id, findable(work.external_id))
    entity_id = await connection.fetchval(SQL["lock_live_entity"], *name)
    if entity_id is None or work.entity_id not in {None, entity_id}:
        return Outcome(refused={0: "NOT_FOUND"})
    if await connection.fetchval(SQL["is_held"], *name):
        return Outcome(held=True)
    await connection.execute(SQL["bury_entity"], *name, write.now_ms)
    await connection.execute(SQL["count_erasure"], write.operator_id)
    await note_erasure(connection, write.operator_id, work.external_id)
    erasure = Erasure(entity_id, write.now_ms, work.reason)
    await _adopt_erasures(transaction, write, AdoptErasures([erasure]))
    return Outcome(entity_ids=[entity_id])


async def _adopt_erasures(transaction: Transaction, write: Write, work: AdoptErasures) -> Outcome:
    # In order, so that none waits for another crosswise.
    erasures = sorted(work.erasures, key=attrgetter("entity_id"))
    if erasures:
        await transaction.connection.execute(
            SQL["add_to_ledger"],
            write.operator_id,
            joined([erasure.entity_id for erasure in erasures]),
            joined([str(erasure.erased_at_ms) for erasure in erasures]),
            joined([erasure.reason or "" for erasure in erasures]),
        )
    return Outcome()


async def _place_hold(transaction: Transaction, write: Write, work: PlaceHold) -> Outcome:
    name = (write.operator_id, findable(work.external_id))
    entity_id = await transaction.connection.fetchval(SQL["lock_live_entity"], *name)
    if entity_id is None:
        return Outcome(refused={0: "NOT_FOUND"})
    # After retention's step that is under way; the next one sees the hold.
    await transaction.connection.execute(SQL["lock_holds"], write.operator_id)
    await transaction.connection.execute(SQL["place_hold"], *name, work.reason, write.now_ms)
    return Outcome(entity_ids=[entity_id])


async def _lift_hold(transaction: Transaction, write: Write, work: LiftHold) -> Outcome:
    connection = transaction.connection
    name = (write.operator_id, findable(work.external_id))
    # The entity first, as an erasure and a hold lock it.
    entity_id = await connection.fetchval(SQL["lock_live_entity"], *name)
    if await connection.fetchval(SQL["lift_hold"], *name) is None:
        return Outcome(refused={0: "NOT_FOUND"})
    return Outcome(entity_ids=[] if entity_id is None else [entity_id])


async def _change_settings(transaction: Transaction, write: Write, work: ChangeSettings) -> Outcome:
    def changing(member: object) -> tuple[bool, object]:
        return member is not UNSET, None if member is UNSET else member

    policy = work.retention_policy
    if policy is not UNSET and policy is not None:
        policy_json: object = msgspec.json.encode(policy).decode()
    else:
        policy_json = policy
    row = await transaction.connection.fetchrow(
        SQL["change_settings"],
        write.operator_id,
        *changing(work.template_id),
        *changing(work.data_retention_days),
        *changing(policy_json),
    )
    assert row is not None, "the operator was authenticated"
    return Outcome(settings=operator_of(tuple(row)).settings)
