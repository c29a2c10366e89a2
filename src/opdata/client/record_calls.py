"""The calls for single entities, events and states, and their listings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec

from opdata.client import records
from opdata.client.calls import MAX_PAGE_ITEMS, AsyncCalls, time_text
from opdata.client.items import Entity, Event, State, encode
from opdata.client.paths import entity_path
from opdata.client.records import EntityAck, EventAck, Page, StoredEntity, StoredEvent, StoredState


class AsyncRecordCalls(AsyncCalls):
    """One record at a time, or a listing of them. Raises `NotFound` for what does not exist."""

    async def put_entity(self, entity: Entity, *, idempotency_key: str | None = None) -> EntityAck:
        """Create the entity, or replace the one of that `external_id`."""
        return await self._write(
            records.ENTITY_ACK,
            "POST",
            "/entities",
            encode(entity),
            idempotency_key=idempotency_key,
        )

    async def get_entity(self, external_id: str) -> StoredEntity:
        """An entity with its personal fields in clear: the only call that tells them (W49)."""
        return await self._read(records.ENTITY, entity_path(external_id))

    async def delete_entity(self, external_id: str, *, idempotency_key: str | None = None) -> None:
        """Erase an entity: its personal fields are gone at once, its events and states unreadable."""
        await self._write(
            records.DELETED, "DELETE", entity_path(external_id), idempotency_key=idempotency_key
        )

    async def list_entities(
        self, *, entity_type: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[StoredEntity]:
        """A page of entities by `external_id`; personal fields read `"[encrypted]"`."""
        params = {"entityType": entity_type, "limit": str(limit), "cursor": cursor}
        return await self._read(records.ENTITIES, "/entities", params)

    def iter_entities(self, *, entity_type: str | None = None) -> AsyncIterator[StoredEntity]:
        """All entities, as `list_entities` tells them."""

        async def page_at(cursor: str | None) -> Page[StoredEntity]:
            return await self.list_entities(
                entity_type=entity_type, limit=MAX_PAGE_ITEMS, cursor=cursor
            )

        return self._pages(page_at)

    async def add_event(self, event: Event, *, idempotency_key: str | None = None) -> EventAck:
        """Append one event. Raises `Conflict` when its own key belongs to another event (W42)."""
        return await self._write(
            records.EVENT_ACK,
            "POST",
            entity_path(event.external_id, "events"),
            encode(event),
            idempotency_key=idempotency_key,
        )

    async def list_events(
        self,
        external_id: str | None = None,
        *,
        event_type: str | None = None,
        occurred_from: datetime | None = None,
        occurred_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[StoredEvent]:
        """A page of an entity's events, newest first; or of all events, those of one entity together.

        `occurred_from` is inclusive, `occurred_before` exclusive; both must be aware.
        """
        params = {
            "eventType": event_type,
            "from": time_text("occurred_from", occurred_from),
            "to": time_text("occurred_before", occurred_before),
            "limit": str(limit),
            "cursor": cursor,
        }
        if external_id is None:
            return await self._read(records.EVENTS, "/events", params)
        page = await self._read(records.EVENTS, entity_path(external_id, "events"), params)
        return _named(page, external_id)

    def iter_events(
        self,
        external_id: str | None = None,
        *,
        event_type: str | None = None,
        occurred_from: datetime | None = None,
        occurred_before: datetime | None = None,
    ) -> AsyncIterator[StoredEvent]:
        """All events of an entity or of all, in the order of `list_events`."""

        async def page_at(cursor: str | None) -> Page[StoredEvent]:
            return await self.list_events(
                external_id,
                event_type=event_type,
                occurred_from=occurred_from,
                occurred_before=occurred_before,
                limit=MAX_PAGE_ITEMS,
                cursor=cursor,
            )

        return self._pages(page_at)

    async def put_state(self, state: State, *, idempotency_key: str | None = None) -> None:
        """Set one state."""
        body: dict[str, Any] = {"value": state.value}
        if state.observed_at is not None:
            body["observedAt"] = state.observed_at
        await self._write(
            records.STATE_ACK,
            "PUT",
            entity_path(state.external_id, "state", state.state_key),
            encode(body),
            idempotency_key=idempotency_key,
        )

    async def get_state(self, external_id: str, state_key: str) -> StoredState:
        """The latest value under one key of an entity."""
        state = await self._read(records.STATE, entity_path(external_id, "state", state_key))
        return msgspec.structs.replace(state, external_id=external_id)

    async def get_states(self, external_id: str) -> list[StoredState]:
        """All states of an entity, by key."""
        states = await self._read(records.STATES_OF_ENTITY, entity_path(external_id, "state"))
        return [msgspec.structs.replace(state, external_id=external_id) for state in states]

    async def list_states(
        self, *, state_key: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[StoredState]:
        """A page of the states of all entities."""
        params = {"stateKey": state_key, "limit": str(limit), "cursor": cursor}
        return await self._read(records.STATES, "/states", params)

    def iter_states(self, *, state_key: str | None = None) -> AsyncIterator[StoredState]:
        """The states of all entities."""

        async def page_at(cursor: str | None) -> Page[StoredState]:
            return await self.list_states(state_key=state_key, limit=MAX_PAGE_ITEMS, cursor=cursor)

        return self._pages(page_at)


def _named(page: Page[StoredEvent], external_id: str) -> Page[StoredEvent]:
    """The page with the id that a listing of one entity leaves out."""
    items = [msgspec.structs.replace(event, external_id=external_id) for event in page.items]
    return Page(items, page.next_cursor)
