"""An opdata server as a destination of dlt: three adapters say what a resource holds, a sink sends it.

    dlt.pipeline("casino", destination=opdata).run(as_entities(players(), "player", id="player_id"))

Batches that were sent before a pipeline died may be sent again. That doubles nothing: entities and states are
replaced, and an event has the idempotency key that its adapter asks for.
"""

from __future__ import annotations

from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.common.schema import TTableSchema
from dlt.common.typing import TDataItems
from dlt.extract import DltResource

from opdata import BatchResult, Client

Json = dict[str, Any]
Hint = dict[str, str | None]

HINT = "x-opdata"
BATCH_ITEMS = 5_000


def as_entities(resource: DltResource, entity_type: str, *, id: str) -> DltResource:
    """Rows are entities of this type; the column `id` is the external id, all others are data."""
    return _hinted(resource, {"kind": "entities", "type": entity_type, "id": id})


def as_events(
    resource: DltResource,
    event_type: str,
    *,
    id: str,
    idempotency_key: str,
    occurred_at: str | None = None,
) -> DltResource:
    """Rows are events of this type. `idempotency_key` is the column that tells them apart, for good."""
    columns = {"id": id, "idempotency_key": idempotency_key, "occurred_at": occurred_at}
    return _hinted(resource, {"kind": "events", "type": event_type, **columns})


def as_states(resource: DltResource, state_key: str, *, id: str) -> DltResource:
    """Rows are states under this key; all columns but `id` are the value, as an object."""
    return _hinted(resource, {"kind": "states", "type": state_key, "id": id})


@dlt.destination(name="opdata", batch_size=BATCH_ITEMS, loader_parallelism_strategy="sequential")
def opdata(items: TDataItems, table: TTableSchema, /) -> None:
    """Send a batch of rows; the server and the key are those of OPDATA_URL and OPDATA_API_KEY.

    A row that is refused fails the load job with a message that names it; its neighbours are stored.
    """
    hint: Hint | None = table.get(HINT)  # type: ignore[assignment]
    if hint is None:
        message = f"Table {table['name']} is no entities, events or states: use an adapter"
        raise DestinationTerminalException(message)
    with Client() as client:
        result: BatchResult[Json]
        if hint["kind"] == "entities":
            result = client.send_entities(items, to_item=lambda row: entity(row, hint))
        elif hint["kind"] == "events":
            result = client.send_events(items, to_item=lambda row: event(row, hint))
        else:
            result = client.send_states(items, to_item=lambda row: state(row, hint))
    if result.errors:
        first = result.errors[0]
        raise DestinationTerminalException(
            f"{result.failed} of {result.total} rows of {table['name']} were refused, the first is "
            f"{first.external_id}: {first.code}: {first.message}"
        )


def entity(row: Json, hint: Hint) -> Json:
    """A row as an entity."""
    external_id, data = _split(row, hint)
    return {"externalId": external_id, "entityType": hint["type"], "data": data}


def event(row: Json, hint: Hint) -> Json:
    """A row as an event."""
    external_id, data = _split(row, hint)
    key = str(row[str(hint["idempotency_key"])])
    item = {"externalId": external_id, "eventType": hint["type"], "idempotencyKey": key}
    if hint["occurred_at"] is not None:
        item["occurredAt"] = data.pop(hint["occurred_at"])
    return item | {"data": data}


def state(row: Json, hint: Hint) -> Json:
    """A row as a state."""
    external_id, value = _split(row, hint)
    return {"externalId": external_id, "stateKey": hint["type"], "value": value}


def _split(row: Json, hint: Hint) -> tuple[str, Json]:
    """The external id of a row, and its other columns without those that are null."""
    column = str(hint["id"])
    rest = {name: value for name, value in row.items() if name != column and value is not None}
    return str(row[column]), rest


def _hinted(resource: DltResource, hint: Hint) -> DltResource:
    return resource.apply_hints(additional_table_hints={HINT: hint})
