"""Listings of everything an operator has: what exports and comparisons read (W52)."""

from __future__ import annotations

from opdata.api.context import Call, CursorInt, make_cursor, ok, read_cursor, time_param
from opdata.storage.reads import EventScan, StateScan
from opdata.storage.work import Reply
from opdata.wire import encode
from opdata.wire.schema import EventsParams, ListedEventPage, ListedStatePage, StatesParams


async def list_all_events(call: Call) -> Reply:
    """Events of all entities; `from` is inclusive and `to` exclusive. A page may be short, or empty."""
    params = call.params(EventsParams)
    page = await call.store.all_events(
        call.operator.operator_id,
        EventScan(
            limit=params.limit,
            event_type=params.eventType,
            from_ms=time_param("from", params.from_),
            to_ms=time_param("to", params.to),
            after=read_cursor(params.cursor, tuple[str, CursorInt, CursorInt]),
        ),
    )
    cursor = make_cursor(page.next)
    return ok(ListedEventPage([encode.listed_event(one) for one in page.rows], cursor))


async def list_all_states(call: Call) -> Reply:
    """States of all entities. A page may be short, or empty."""
    params = call.params(StatesParams)
    page = await call.store.all_states(
        call.operator.operator_id,
        StateScan(
            limit=params.limit,
            state_key=params.stateKey,
            after=read_cursor(params.cursor, tuple[str, str]),
        ),
    )
    cursor = make_cursor(page.next)
    return ok(ListedStatePage([encode.listed_state(one) for one in page.rows], cursor))
