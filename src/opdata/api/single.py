"""The single-item endpoints (WIRE.md §4): the same path as a batch, for one item at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from opdata.api.context import Call, CursorInt, make_cursor, ok, read_cursor, time_param
from opdata.api.errors import error_reply, item_reply
from opdata.errors import Conflict, NotFound, SealBroken
from opdata.ids import format_event_id
from opdata.ingest import Checked, check_entities, check_events, check_states
from opdata.logs import log
from opdata.model import KEY_ID_BYTES, BatchResult, Entity, ItemError, key_id_of
from opdata.storage.reads import EventQuery
from opdata.storage.work import AppendEvents, DeleteEntity, Outcome, Reply
from opdata.wire import decode, encode
from opdata.wire.schema import (
    DeletedOut,
    EntitiesParams,
    EntityAck,
    EntityPage,
    EventAck,
    EventPage,
    EventsParams,
    StateAck,
)

_NO_ENTITY = "Entity not found"
_HELD = "The entity is under legal hold and cannot be erased"


async def post_entity(call: Call) -> Reply:
    """Create an entity, or replace the one of that `externalId`."""
    batch = decode.ENTITIES.single(decode.json_object(call.body))
    checked = check_entities(batch, await call.template(), await call.sealer())

    def accept(outcome: Outcome) -> Reply:
        item, created = batch.items[0], outcome.created[0]
        assert not isinstance(item, decode.Malformed), "it was accepted"
        action: Literal["created", "updated"] = "created" if created else "updated"
        ack = EntityAck(outcome.entity_ids[0], item.externalId, item.entityType, action)
        return ok(ack, 201 if created else 200)

    return await _ingest_one(call, "entities", checked, accept)


async def get_entity(call: Call) -> Reply:
    """An entity with its personal fields decrypted: the only endpoint that does so.

    That they are shown, and to which key, is in the audit log before they are; while it cannot be
    written they are not shown (W54).
    """
    found = await call.store.entity(call.operator.operator_id, call.external_id)
    if found is None:
        raise NotFound(_NO_ENTITY)
    if found.sealed is None:
        return ok(encode.entity(found))
    personal = await _opened(call, found, found.sealed)
    await call.services.reveals.record(call.operator.operator_id, call.key.key_id, found.entity_id)
    # It was recorded, which may take as long as any write: who was erased meanwhile is shown to nobody.
    still = await call.store.entity(call.operator.operator_id, call.external_id)
    if still is None or still.entity_id != found.entity_id:
        raise NotFound(_NO_ENTITY)
    return ok(encode.entity(found, personal))


async def _opened(call: Call, entity: Entity, sealed: bytes) -> bytes:
    """The personal fields of an entity. One that was tampered with is reported, by our own id alone."""
    try:
        return (await call.opener(sealed)).open(entity.external_id, sealed)
    except SealBroken:
        call.services.metrics.seal_broken()
        log.error(
            "seal_broken",
            operator_id=call.operator.operator_id,
            entity_id=entity.entity_id,
            data_key=key_id_of(sealed[1 : 1 + KEY_ID_BYTES]),
        )
        raise


async def list_entities(call: Call) -> Reply:
    """Entities by `externalId`; personal fields read "[encrypted]"."""
    params = call.params(EntitiesParams)
    found = await call.store.entities(
        call.operator.operator_id,
        entity_type=params.entityType,
        after=read_cursor(params.cursor, str),
        limit=params.limit,
    )
    cursor = make_cursor(found.rows[-1].external_id) if found.more else None
    return ok(EntityPage([encode.entity(one) for one in found.rows], cursor))


async def delete_entity(call: Call) -> Reply:
    """Erase an entity: its personal fields are gone at once, its events and states unreadable."""

    def finish(outcome: Outcome) -> Reply:
        if outcome.refused:
            return item_reply(ItemError(0, call.external_id, "NOT_FOUND", _NO_ENTITY))
        if outcome.held:
            return error_reply(Conflict(_HELD))[0]
        return ok(DeletedOut(call.external_id))

    audit = call.entry("entity.erased")
    return await call.write(DeleteEntity(call.external_id), finish, audit=audit)


async def post_event(call: Call) -> Reply:
    """Append an event to an entity. A replay answers 200 with `action` `duplicate`."""
    members = decode.json_object(call.body)
    batch = decode.EVENTS.single(members, externalId=call.external_id)
    checked = check_events(batch, await call.template(), await call.sealer(), call.now_ms)

    def accept(outcome: Outcome) -> Reply:
        work = checked.work
        assert isinstance(work, AppendEvents)
        earlier = outcome.duplicates.get(0)
        event_id = format_event_id(earlier or work.event_ids[0])
        duplicate = ok(EventAck(event_id, "duplicate"))
        if earlier is not None:
            return duplicate
        answer = ok(EventAck(event_id), 201)
        return Reply(answer.status, answer.body, replay=duplicate)

    return await _ingest_one(call, "events", checked, accept)


async def list_events(call: Call) -> Reply:
    """An entity's events, newest first; `from` is inclusive and `to` exclusive."""
    params = call.params(EventsParams)
    found = await call.store.events(
        call.operator.operator_id,
        call.external_id,
        EventQuery(
            limit=params.limit,
            event_type=params.eventType,
            from_ms=time_param("from", params.from_),
            to_ms=time_param("to", params.to),
            before=read_cursor(params.cursor, tuple[CursorInt, CursorInt]),
        ),
    )
    if found is None:
        raise NotFound(_NO_ENTITY)
    last = found.rows[-1] if found.more else None
    cursor = make_cursor((last.occurred_at_ms, last.position)) if last else None
    return ok(EventPage([encode.event(one) for one in found.rows], cursor))


async def put_state(call: Call) -> Reply:
    """Set a state: the body is `{"value": …}` or the value itself."""
    members = decode.state_members(call.body)
    state_key = call.segments["key"]
    batch = decode.STATES.single(members, externalId=call.external_id, stateKey=state_key)
    checked = check_states(batch, await call.template(), call.now_ms)

    def accept(_outcome: Outcome) -> Reply:
        return ok(StateAck(state_key, members["value"]))

    return await _ingest_one(call, "states", checked, accept)


async def list_states(call: Call) -> Reply:
    """An entity's states, by key."""
    found = await call.store.states(call.operator.operator_id, call.external_id)
    if found is None:
        raise NotFound(_NO_ENTITY)
    return ok([encode.state(one) for one in found])


async def get_state(call: Call) -> Reply:
    """The latest value under one state key of an entity."""
    found = await call.store.states(
        call.operator.operator_id, call.external_id, call.segments["key"]
    )
    if found is None:
        raise NotFound(_NO_ENTITY)
    if not found:
        message = "State not found"
        raise NotFound(message)
    return ok(encode.state(found[0]))


async def _ingest_one(
    call: Call, kind: str, checked: Checked, accept: Callable[[Outcome], Reply]
) -> Reply:
    results: list[BatchResult] = []

    def finish(outcome: Outcome) -> Reply:
        result = checked.result(outcome)
        results.append(result)
        return item_reply(result.errors[0]) if result.errors else accept(outcome)

    reply = await call.write(checked.work, finish)
    if results:
        call.services.metrics.items(kind, results[-1])
    return reply
