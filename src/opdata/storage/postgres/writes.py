"""One request's writes inside a transaction: the claim, the work, the job, the reply (W25).

Concurrent writes are kept serialisable by locks taken in one order: the claim, then existing
entities by name, then new rows by key. Where that order cannot hold PostgreSQL finds the deadlock,
and the transaction is done over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Final

import asyncpg
import msgspec
from msgspec import UNSET

from opdata.errors import IdempotencyInFlight, IdempotencyKeyReused
from opdata.storage.base import (
    AppendEvents,
    ChangeSettings,
    Claim,
    DeleteEntity,
    EntityRow,
    EventRow,
    Outcome,
    Reply,
    SetStates,
    StateRow,
    UpsertEntities,
    Write,
)
from opdata.storage.postgres.connection import SQL, joined
from opdata.storage.postgres.copying import (
    ENTITY_COLUMNS,
    EVENT_COLUMNS,
    copy_rows,
    pack_entities,
    pack_events,
)
from opdata.storage.postgres.database import CreatedMeanwhile, Transaction
from opdata.storage.postgres.numbers import EntityNumbers
from opdata.storage.records import operator_of
from opdata.storage.settling import SettledEvents, TakenKeys, settle_events, settle_states

_ROWS_A_PIECE: Final = 256


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
        case ChangeSettings() as work:
            return await _change_settings(transaction, write, work)


class _Sealed:
    """The sealed parts of the rows to write, made a piece at a time as they are asked for in order."""

    def __init__(self, work: UpsertEntities, positions: Sequence[int]) -> None:
        self._work = work
        self._positions = positions
        self._done = 0
        self._sealed: dict[int, bytes | None] = {}

    def of(self, positions: Sequence[int]) -> Sequence[bytes | None]:
        while self._done < len(self._positions) and not self._sealed.keys() >= set(positions):
            piece = sorted(self._positions[self._done : self._done + _ROWS_A_PIECE])
            self._sealed.update(zip(piece, self._work.seal(piece), strict=True))
            self._done += len(piece)
        return [self._sealed[at] for at in positions]


async def _upsert_entities(transaction: Transaction, write: Write, work: UpsertEntities) -> Outcome:
    rows, connection = work.rows, transaction.connection
    entity_ids = [row.entity_id for row in rows]
    created = [True] * len(rows)
    # By name: every batch locks and adds in the same order, so none waits for another crosswise.
    ordered = sorted(range(len(rows)), key=lambda at: rows[at].external_id)
    names = joined([rows[at].external_id for at in ordered])
    stored = {
        name: (entity_id, fingerprint)
        for name, entity_id, fingerprint in await connection.fetch(
            SQL["find_live_entities"], write.operator_id, names
        )
    }
    to_write: list[int] = []
    for at in ordered:
        entity_id, fingerprint = stored.get(rows[at].external_id, (None, None))
        if entity_id is not None:
            entity_ids[at], created[at] = entity_id, False
        if fingerprint != rows[at].fingerprint:
            to_write.append(at)
    sealed = _Sealed(work, to_write)
    if transaction.attempt == 0:
        await _upsert(transaction, write, rows, [at for at in to_write if not created[at]], sealed)
        await _copy_new(transaction, write, rows, [at for at in to_write if created[at]], sealed)
    else:
        # Somebody else is making some of the new ones as well: whatever is there by now is updated.
        ids = await _upsert(transaction, write, rows, to_write, sealed)
        for at in to_write:
            entity_ids[at] = ids[rows[at].external_id]
            created[at] = entity_ids[at] == rows[at].entity_id
    return Outcome(entity_ids=entity_ids, created=created)


async def _upsert(
    transaction: Transaction,
    write: Write,
    rows: Sequence[EntityRow],
    positions: Sequence[int],
    sealed: _Sealed,
) -> Mapping[str, str]:
    """Make or replace entities; return their ids by name."""
    if not positions:
        return {}
    these = [rows[at] for at in positions]
    written = await transaction.connection.fetch(
        SQL["upsert_entities"],
        write.operator_id,
        write.now_ms,
        joined([row.external_id for row in these]),
        joined([str(transaction.first_number + at) for at in positions]),
        joined([row.entity_id for row in these]),
        joined([row.entity_type for row in these]),
        joined([row.data for row in these]),
        joined([(secret or b"").hex() for secret in sealed.of(positions)]),
        joined([row.fingerprint.hex() for row in these]),
    )
    return dict(map(tuple, written))


async def _copy_new(
    transaction: Transaction,
    write: Write,
    rows: Sequence[EntityRow],
    positions: Sequence[int],
    sealed: _Sealed,
) -> None:
    """Add entities that were not there a moment ago, half again as fast as an upsert.

    Raises `CreatedMeanwhile` when one of them is there after all.
    """
    if not positions:
        return

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(positions), _ROWS_A_PIECE):
            piece = positions[start : start + _ROWS_A_PIECE]
            numbered = (
                (transaction.first_number + at, rows[at], secret)
                for at, secret in zip(piece, sealed.of(piece), strict=True)
            )
            yield pack_entities(write.operator_id, write.now_ms, numbered)

    try:
        await copy_rows(transaction.connection, "entities", ENTITY_COLUMNS, pieces())
    except (asyncpg.UniqueViolationError, asyncpg.InternalServerError) as error:
        # On a distributed database every failure of a COPY is XX000. Anything but a row that is
        # there already fails the next attempt in its own words.
        raise CreatedMeanwhile from error


async def _append_events(
    transaction: Transaction, numbers: EntityNumbers, write: Write, work: AppendEvents
) -> Outcome:
    names = {row.external_id for row in work.rows}
    number_of = await numbers.find(transaction.connection, write.operator_id, names)
    taken = await _claim_keys(transaction, write, work.rows, number_of)
    settled = settle_events(work.rows, number_of, taken)
    if settled.rows:
        pieces = _packed_events(transaction, write, settled)
        await copy_rows(transaction.connection, "events", EVENT_COLUMNS, pieces)
    return settled.outcome


def _packed_events(
    transaction: Transaction, write: Write, settled: SettledEvents
) -> Iterator[bytes]:
    numbers = count(transaction.first_number)
    for start in range(0, len(settled.rows), _ROWS_A_PIECE):
        piece = slice(start, start + _ROWS_A_PIECE)
        # The numbers come last, so that none is taken when there are no more rows.
        numbered = zip(settled.rows[piece], settled.numbers[piece], numbers, strict=False)
        yield pack_events(write.operator_id, write.now_ms, numbered)


async def _claim_keys(
    transaction: Transaction,
    write: Write,
    rows: Sequence[EventRow],
    number_of: Mapping[str, int],
) -> TakenKeys:
    """Take the idempotency keys of events that will be appended; return those that others have."""
    first_of: dict[str, EventRow] = {}
    for row in rows:
        if row.idempotency_key is not None and row.external_id in number_of:
            first_of.setdefault(row.idempotency_key, row)
    if not first_of:
        return {}
    keys = sorted(first_of)
    free = await transaction.connection.fetch(
        SQL["add_event_keys"],
        write.operator_id,
        joined(keys),
        joined([first_of[key].event_id.hex() for key in keys]),
        joined([(first_of[key].fingerprint or b"").hex() for key in keys]),
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
    await _write_states(transaction, write, "overwrite_states", settled.overwriting)
    await _write_states(transaction, write, "observe_states", settled.observing)
    return settled.outcome


async def _write_states(
    transaction: Transaction, write: Write, name: str, rows: Sequence[tuple[int, StateRow]]
) -> None:
    if not rows:
        return
    ordered = sorted(rows, key=lambda pair: (pair[0], pair[1].state_key))
    await transaction.connection.execute(
        SQL[name],
        write.operator_id,
        write.now_ms,
        joined([str(number) for number, _ in ordered]),
        joined([row.state_key for _, row in ordered]),
        joined([row.value for _, row in ordered]),
        joined([str(row.observed_at_ms) for _, row in ordered]),
    )


async def _delete_entity(transaction: Transaction, write: Write, work: DeleteEntity) -> Outcome:
    buried = await transaction.connection.fetchval(
        SQL["bury_entity"], write.operator_id, work.external_id, write.now_ms
    )
    if buried is None:
        return Outcome(refused={0: "NOT_FOUND"})
    await transaction.connection.execute(SQL["count_erasure"], write.operator_id)
    return Outcome()


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
