"""One request's writes inside a transaction: the claim, the work, the job, the reply (W25).

Everything here runs in the writer's thread with the write lock held, so what is read stays true
until the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, repeat
from operator import itemgetter, not_
from typing import Final

import apsw
import msgspec
from msgspec import UNSET
from msgspec.structs import astuple, replace

from opdata.errors import IdempotencyKeyReused
from opdata.model import Erasure
from opdata.storage.audit import entry_of
from opdata.storage.records import operator_of
from opdata.storage.settling import TakenKeys, settle_events, settle_states
from opdata.storage.sqlite.audit import append
from opdata.storage.sqlite.connection import SQL, scalar, the_row, write_rows
from opdata.storage.sqlite.numbers import EntityNumbers
from opdata.storage.sqlite.queueing import change_queue, note_erasure
from opdata.storage.work import (
    IDEMPOTENCY_TTL_MS,
    Administration,
    AdoptErasures,
    AppendEvents,
    ChangeSettings,
    Claim,
    DeleteEntity,
    EndJob,
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

_found_entities: Final = msgspec.json.Decoder(list[tuple[int, int, str, str]]).decode
_entity_no: Final = itemgetter(1)
_found_keys: Final = msgspec.json.Decoder(list[tuple[int, str, str]]).decode


def with_events_checked(write: Write) -> Write:
    """The same write with its events checked: that needs no lock, and the interpreter while others flush."""
    work = write.work
    if not isinstance(work, AppendEvents):
        return write
    events = work.make(range(len(work.event_ids)))
    # All of them is what is asked for below.
    return replace(write, work=replace(work, make=lambda _positions: events))


def perform(connection: apsw.Connection, numbers: EntityNumbers, write: Write) -> Reply:
    """Answer the claim or do the work and record it. Raises `IdempotencyKeyReused`."""
    recording = not write.dry_run
    if recording and write.claim is not None:
        reply = _answered(connection, write.operator_id, write.claim, write.now_ms)
        if reply is not None:
            return reply
    outcome = do_work(connection, numbers, write)
    reply = write.finish(outcome)
    if (entry := entry_of(write, outcome)) is not None:
        append(connection, write.operator_id, entry)
    if recording and write.job is not None:
        job = write.job
        connection.execute(
            SQL["add_job"],
            (write.operator_id, job.job_id, job.type, reply.job_output, write.now_ms, write.now_ms),
        )
    if recording and write.claim is not None:
        claim, kept = write.claim, reply.replay or reply
        connection.execute(
            SQL["add_idempotency_record"],
            (
                *(write.operator_id, claim.key, claim.method, claim.path, claim.fingerprint),
                *(kept.status, kept.body, write.now_ms),
            ),
        )
    return reply


def _answered(
    connection: apsw.Connection, operator_id: int, claim: Claim, now_ms: int
) -> Reply | None:
    row = connection.execute(
        SQL["find_idempotency_record"],
        (operator_id, claim.key, claim.method, claim.path, now_ms - IDEMPOTENCY_TTL_MS),
    ).fetchone()
    if row is None:
        return None
    fingerprint, status, body = row
    if fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused
    return Reply(status, body, replayed=True)


def do_work(connection: apsw.Connection, numbers: EntityNumbers, write: Write) -> Outcome:
    """Do the work alone, without what stands around it."""
    match write.work:
        case UpsertEntities() as work:
            return _upsert_entities(connection, write, work)
        case AppendEvents() as work:
            return _append_events(connection, numbers, write, work)
        case SetStates() as work:
            return _set_states(connection, numbers, write, work)
        case QueueBatch() | EndJob() as work:
            return change_queue(connection, write.operator_id, write.now_ms, work)
        case _ as work:
            return _administer(connection, numbers, write, work)


def _administer(
    connection: apsw.Connection, numbers: EntityNumbers, write: Write, work: Administration
) -> Outcome:
    match work:
        case DeleteEntity():
            numbers.forget(write.operator_id, work.external_id)
            return _delete_entity(connection, write, work)
        case AdoptErasures():
            return _adopt_erasures(connection, write, work)
        case PlaceHold():
            return _place_hold(connection, write, work)
        case LiftHold():
            return _lift_hold(connection, write, work)
        case ChangeSettings():
            return _change_settings(connection, write, work)


def _upsert_entities(connection: apsw.Connection, write: Write, work: UpsertEntities) -> Outcome:
    operator_id, names, fingerprints = write.operator_id, work.names, work.fingerprints
    entity_ids = [""] * len(names)
    created = [True] * len(names)
    numbers: list[int | None] = [None] * len(names)
    changed: Sequence[int] = range(len(names))
    found = _found_entities(scalar(connection, "find_live_entities", _names(names), operator_id))
    if found:
        unchanged = set()
        for position, number, entity_id, fingerprint in found:
            entity_ids[position], numbers[position] = entity_id, number
            created[position] = False
            if fingerprint == fingerprints[position].hex().upper():
                unchanged.add(position)
        changed = [position for position in changed if position not in unchanged]
    if not changed:
        return Outcome(entity_ids=entity_ids, created=created)
    rows = work.make(changed)
    for position, entity_id in zip(rows.positions, rows.entity_ids, strict=True):
        entity_ids[position] = entity_ids[position] or entity_id
    write_rows(
        connection,
        "upsert_entities",
        list(
            zip(
                map(numbers.__getitem__, rows.positions),
                repeat(operator_id),
                map(names.__getitem__, rows.positions),
                *(rows.entity_ids, rows.entity_types, map(str, rows.data, repeat("utf-8"))),
                *(rows.sealed, map(fingerprints.__getitem__, rows.positions)),
                *(repeat(write.now_ms), repeat(write.now_ms)),
                strict=False,
            )
        ),
    )
    return Outcome(entity_ids=entity_ids, created=created)


def _append_events(
    connection: apsw.Connection, numbers: EntityNumbers, write: Write, work: AppendEvents
) -> Outcome:
    operator_id, operator = write.operator_id, repeat(write.operator_id)
    events = work.make(range(len(work.event_ids)))
    number_of = numbers.find(connection, operator_id, set(work.external_ids))
    taken = _taken_keys(connection, operator_id, events)
    settled = settle_events(work, events, number_of, taken)
    events = settled.events
    event_ids = list(map(work.event_ids.__getitem__, events.positions))
    write_rows(
        connection,
        "append_events",
        list(
            zip(
                *(operator, settled.numbers, event_ids, events.event_types),
                map(str, events.data, repeat("utf-8")),
                *(events.occurred_at_ms, repeat(write.now_ms), events.keys),
                strict=False,
            )
        ),
    )
    if events.idempotency_keys is not None and events.fingerprints is not None:
        rows = zip(
            *(operator, events.idempotency_keys, event_ids, events.fingerprints),
            strict=False,
        )
        write_rows(connection, "add_event_keys", [row for row in rows if row[1] is not None])
    return settled.outcome


def _set_states(
    connection: apsw.Connection, numbers: EntityNumbers, write: Write, work: SetStates
) -> Outcome:
    operator_id, now_ms = write.operator_id, write.now_ms
    number_of = numbers.find(connection, operator_id, set(work.states.external_ids))
    settled = settle_states(work.states, number_of)
    states = settled.states
    rows = list(
        zip(
            *(repeat(operator_id), settled.numbers, states.state_keys),
            map(str, states.values, repeat("utf-8")),
            *(states.observed_at_ms, repeat(now_ms)),
            strict=False,
        )
    )
    observed = map(not_, states.forced)
    for name, chosen in (("overwrite_states", states.forced), ("observe_states", observed)):
        # By entity, as in the table: neighbours are found one after the other.
        write_rows(connection, name, sorted(compress(rows, chosen), key=_entity_no))
    return settled.outcome


def _delete_entity(connection: apsw.Connection, write: Write, work: DeleteEntity) -> Outcome:
    name = (write.operator_id, work.external_id)
    entity_id = scalar(connection, "live_entity_id", *name)
    if entity_id is None or work.entity_id not in {None, entity_id}:
        return Outcome(refused={0: "NOT_FOUND"})
    if scalar(connection, "is_held", *name):
        return Outcome(held=True)
    connection.execute(SQL["bury_entity"], (write.now_ms, *name))
    note_erasure(connection, *name)
    erasure = Erasure(entity_id, write.now_ms, work.reason)
    _adopt_erasures(connection, write, AdoptErasures([erasure]))
    return Outcome(entity_ids=[entity_id])


def _adopt_erasures(connection: apsw.Connection, write: Write, work: AdoptErasures) -> Outcome:
    rows = [(write.operator_id, *astuple(erasure)) for erasure in work.erasures]
    connection.executemany(SQL["add_to_ledger"], rows)
    return Outcome()


def _place_hold(connection: apsw.Connection, write: Write, work: PlaceHold) -> Outcome:
    name = (write.operator_id, work.external_id)
    entity_id = scalar(connection, "live_entity_id", *name)
    if entity_id is None:
        return Outcome(refused={0: "NOT_FOUND"})
    connection.execute(SQL["place_hold"], (*name, work.reason, write.now_ms))
    return Outcome(entity_ids=[entity_id])


def _lift_hold(connection: apsw.Connection, write: Write, work: LiftHold) -> Outcome:
    name = (write.operator_id, work.external_id)
    connection.execute(SQL["lift_hold"], name)
    if not connection.changes():
        return Outcome(refused={0: "NOT_FOUND"})
    entity_id = scalar(connection, "live_entity_id", *name)
    return Outcome(entity_ids=[] if entity_id is None else [entity_id])


def _change_settings(connection: apsw.Connection, write: Write, work: ChangeSettings) -> Outcome:
    operator_id = write.operator_id
    if work.template_id is not UNSET:
        connection.execute(SQL["change_template"], (operator_id, work.template_id))
    if work.data_retention_days is not UNSET:
        connection.execute(
            SQL["change_data_retention_days"], (operator_id, work.data_retention_days)
        )
    if work.retention_policy is not UNSET:
        policy = work.retention_policy
        text = None if policy is None else msgspec.json.encode(policy).decode()
        connection.execute(SQL["change_retention_policy"], (operator_id, text))
    return Outcome(settings=operator_of(the_row(connection, "operators", operator_id)).settings)


def _taken_keys(connection: apsw.Connection, operator_id: int, events: EventColumns) -> TakenKeys:
    names = list({key for key in events.idempotency_keys or () if key is not None})
    if not names:
        return {}
    found = _found_keys(scalar(connection, "find_event_keys", _names(names), operator_id))
    return {
        names[position]: (bytes.fromhex(event_id), bytes.fromhex(fingerprint))
        for position, event_id, fingerprint in found
    }


def _names(names: Sequence[str]) -> str:
    return msgspec.json.encode(names).decode()
