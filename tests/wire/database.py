"""The database behind the server: what stands in it, what its bytes are, and tampering with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.api import Api


def change(api: Api, sql: str, *values: Any) -> None:
    """Change the database behind the server's back."""
    api.stored.change(sql, *values)


def raw_bytes(api: Api) -> bytes:
    """Every byte of the database's files, its write-ahead log included."""
    return api.stored.raw_bytes()


def row_counts(api: Api) -> Mapping[str, int]:
    """How many rows every table of the database has."""
    return {name: api.rows(f"SELECT count(*) FROM {name}")[0][0] for name in api.stored.tables()}


def all_rows(api: Api) -> Mapping[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    return {name: api.rows(f"SELECT * FROM {name}") for name in api.stored.tables()}


def live_entities(api: Api) -> list[str]:
    """The external ids of the live entities of all operators."""
    rows = api.rows("SELECT external_id FROM entities WHERE deleted_at_ms IS NULL ORDER BY 1")
    return [external_id for (external_id,) in rows]


def stored_events(api: Api) -> list[tuple[Any, ...]]:
    """External id, type and data of every event, in order of recording."""
    return api.rows(
        "SELECT external_id, event_type, events.data FROM events"
        " JOIN entities USING (entity_no) ORDER BY event_no"
    )


def stored_states(api: Api) -> dict[tuple[str, str], str]:
    """The text of every state by external id and state key."""
    rows = api.rows(
        "SELECT external_id, state_key, value FROM states JOIN entities USING (entity_no)"
    )
    return {(external_id, key): value for external_id, key, value in rows}
