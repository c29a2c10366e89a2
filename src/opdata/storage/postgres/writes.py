"""One request's writes inside a transaction: the claim, the work, the job, the reply (W25).

Concurrent writes are kept serialisable by locks taken in one order: the claim, then existing
entities by name, then new rows by key. Where that order cannot hold PostgreSQL finds the deadlock,
and the transaction is done over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
from msgspec import UNSET

from opdata.errors import IdempotencyInFlight, IdempotencyKeyReused
from opdata.model import Erasure
from opdata.storage.pieces import Pieces, in_pieces
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
from opdata.storage.records import operator_of
from opdata.storage.settling import TakenKeys, settle_events, settle_states
from opdata.storage.work import (
    AdoptErasures,
    AppendEvents,
    ChangeSettings,
    Claim,
    DeleteEntity,
    EntityRow,
    EventColumns,
    LiftHold,
    Outcome,
    PlaceHold,
    Reply,
    SetStates,
    UpsertEntities,
    Write,
)

T = TypeVar("T")

_EVENTS_A_PIECE: Final = 1_280
"""Events packed at a time: the server takes them in while the next are packed."""


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
    reply = write.finish(await _work(transaction, numbers, write))
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


async def _work(transaction: Transaction, numbers: EntityNumbers, write: Write) -> Outcome:
    match write.work:
        case UpsertEntities() as work:
            return await _upsert_entities(transaction, write, work)
        case AppendEvents() as work:
            return await _append_events(transaction, numbers, write, work)
        case SetStates() as work:
            return await _set_states(transaction, numbers, write, work)
        case DeleteEntity() as work:
            return await _delete_entity(transaction, write, work)
        case AdoptErasures() as work:
            return await _adopt_erasures(transaction, write, work)
        case PlaceHold() as work:
            return await _place_hold(transaction, write, work)
        case LiftHold() as work:
            return await _lift_hold(transaction, write, work)
        case ChangeSettings() as work:
            return await _change_settings(transaction, write, work)


async def _upsert_entities(transaction: Transaction, write: Write, work: UpsertEntities) -> Outcome:
    names = sorted({row.external_id for row in work.rows} if work.names is None else work.names)
    live = transaction.connection.fetch(
        SQL["find_live_entities"], write.operator_id, joined_names(names)
    )
    stored = {
        name: (entity_id, fingerprint)
        for name, entity_id, fingerprint in await _while_making(work.rows, live)
    }
    upsert = _EntityUpsert(transaction, write, work, stored)
    if transaction.attempt == 0 and len(stored) < len(names):
        await _copy_new(transaction, upsert.packed_new())
    else:
        upsert.keep_all()
    await upsert.write_kept()
    return upsert.outcome()


class _EntityUpsert:
    """The rows of one upsert, compared with what is stored, sealed and written as they are made.

    Rows that are new are packed for a COPY, half again as fast as an upsert; rows that replace others
    are kept until it is done. Where a COPY has met a row that somebody else is making as well, all
    are kept, and whatever is there by now is replaced.
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
        self._stored = stored
        self._ids: dict[int, str] = {}
        self._new: set[int] = set()
        self._kept: list[tuple[int, EntityRow, bytes | None]] = []

    def packed_new(self) -> Iterator[bytes]:
        """The rows that are new, packed; the others that have changed are kept."""
        first_number = self._transaction.first_number
        for changed in self._changed():
            new = [one for one in changed if one[0] in self._new]
            self._kept += [one for one in changed if one[0] not in self._new]
            numbered = ((first_number + at, row, sealed) for at, row, sealed in new)
            yield pack_entities(self._write.operator_id, self._write.now_ms, numbered)

    def keep_all(self) -> None:
        """Keep all rows that are new or have changed."""
        for changed in self._changed():
            self._kept += changed

    async def write_kept(self) -> None:
        """Make or replace the rows that were kept."""
        if not self._kept:
            return
        rows = [row for _, row, _ in self._kept]
        written = await self._transaction.connection.fetch(
            SQL["upsert_entities"],
            self._write.operator_id,
            self._write.now_ms,
            joined([row.external_id for row in rows]),
            joined([str(self._transaction.first_number + at) for at, _, _ in self._kept]),
            joined([row.entity_id for row in rows]),
            joined([row.entity_type for row in rows]),
            joined([row.data for row in rows]),
            joined([(sealed or b"").hex() for _, _, sealed in self._kept]),
            joined([row.fingerprint.hex() for row in rows]),
        )
        id_of = dict(map(tuple, written))
        for at, row, _ in self._kept:
            self._ids[at] = id_of[row.external_id]
            if self._ids[at] != row.entity_id:
                self._new.discard(at)

    def outcome(self) -> Outcome:
        """The id of each row's entity, and whether it is new."""
        positions = range(len(self._ids))
        return Outcome(
            entity_ids=[self._ids[at] for at in positions],
            created=[at in self._new for at in positions],
        )

    def _changed(self) -> Iterator[list[tuple[int, EntityRow, bytes | None]]]:
        """Position, row and sealed part of those to write, in the order of their names.

        In that order every batch adds what is new, so none waits for another crosswise.
        """
        for piece in self._in_order():
            changed: dict[int, EntityRow] = {}
            for at, row in piece:
                entity_id, fingerprint = self._stored.get(row.external_id, (None, None))
                self._ids[at] = entity_id or row.entity_id
                if entity_id is None:
                    self._new.add(at)
                if fingerprint != row.fingerprint:
                    changed[at] = row
            if changed:
                positions = sorted(changed)
                sealed = dict(zip(positions, self._work.seal(positions), strict=True))
                yield [(at, row, sealed[at]) for at, row in changed.items()]

    def _in_order(self) -> Iterator[Sequence[tuple[int, EntityRow]]]:
        rows = self._work.rows
        if not isinstance(rows, Pieces):
            yield sorted(enumerate(rows), key=lambda numbered: numbered[1].external_id)
            return
        first = 0
        for piece in rows.pieces():
            yield list(enumerate(piece, first))
            first += len(piece)


async def _while_making(rows: Sequence[object], answer: Coroutine[Any, Any, T]) -> T:
    """What the database answers; until it does, rows are made that are wanted next."""
    asking = asyncio.create_task(answer)
    try:
        for _ in in_pieces(rows):
            await asyncio.sleep(0)
            if asking.done():
                break
    except BaseException:
        await asyncio.wait([asking])  # one thing at a time on a connection
        raise
    return await asking


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
    connection, names = transaction.connection, set(work.events.external_ids)
    number_of = await numbers.find(connection, write.operator_id, names)
    taken = await _claim_keys(transaction, write, work.events, number_of)
    settled = settle_events(work.events, number_of, taken)
    total, first_number = len(settled.events), transaction.first_number

    def packed() -> Iterator[bytes]:
        for start in range(0, total, _EVENTS_A_PIECE):
            stop = min(start + _EVENTS_A_PIECE, total)
            yield pack_events(
                *(write.operator_id, write.now_ms, settled.events.between(start, stop)),
                *(settled.numbers[start:stop], first_number + start),
            )

    await copy_rows(connection, "events", EVENT_COLUMNS, packed())
    return settled.outcome


async def _claim_keys(
    transaction: Transaction, write: Write, events: EventColumns, number_of: Mapping[str, int]
) -> TakenKeys:
    """Take the idempotency keys of events that will be appended; return those that others have."""
    if events.idempotency_keys is None or events.fingerprints is None:
        return {}
    first_of: dict[str, int] = {}
    for position, key in enumerate(events.idempotency_keys):
        if key is not None and events.external_ids[position] in number_of:
            first_of.setdefault(key, position)
    if not first_of:
        return {}
    keys = sorted(first_of)
    free = await transaction.connection.fetch(
        SQL["add_event_keys"],
        write.operator_id,
        joined(keys),
        joined([events.event_ids[first_of[key]].hex() for key in keys]),
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
    names = {row.external_id for row in work.rows}
    number_of = await numbers.find(transaction.connection, write.operator_id, names)
    settled = settle_states(work.rows, number_of)
    if settled.rows:
        ordered = sorted(settled.rows, key=lambda pair: (pair[0], pair[1].state_key))
        await transaction.connection.execute(
            SQL["set_states"],
            write.operator_id,
            write.now_ms,
            joined([str(number) for number, _ in ordered]),
            joined([row.state_key for _, row in ordered]),
            joined([row.value for _, row in ordered]),
            joined([str(row.observed_at_ms) for _, row in ordered]),
            joined(["t" if row.force else "f" for _, row in ordered]),
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
    erasure = Erasure(entity_id, write.now_ms, work.reason)
    return await _adopt_erasures(transaction, write, AdoptErasures([erasure]))


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
    if await transaction.connection.fetchval(SQL["lock_live_entity"], *name) is None:
        return Outcome(refused={0: "NOT_FOUND"})
    await transaction.connection.execute(SQL["place_hold"], *name, work.reason, write.now_ms)
    return Outcome()


async def _lift_hold(transaction: Transaction, write: Write, work: LiftHold) -> Outcome:
    lifted = await transaction.connection.fetchval(
        SQL["lift_hold"], write.operator_id, findable(work.external_id)
    )
    return Outcome(refused={0: "NOT_FOUND"}) if lifted is None else Outcome()


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
