"""What PostgreSQL alone takes: ready rows through bare asyncpg, a transaction a batch, in several forms.

A form is a statement by itself where that will do. The same schema, session settings and flush at the commit
as the server's. Batches are written over as many connections as the server is sent them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import asyncpg

from benchmarks.straight import EVENT_COLUMNS, PLAYER_COLUMNS, STATE_COLUMNS, Rows
from opdata.storage.postgres.connection import ConnectionOptions, connect_arguments

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Form: TypeAlias = "Callable[[Connection, Rows], Awaitable[object]]"

_PLAYERS_CONFLICT: Final = (
    "ON CONFLICT (operator_id, external_id, tombstone_no) DO UPDATE SET "
    "entity_type = excluded.entity_type, data = excluded.data, sealed = excluded.sealed, "
    "fingerprint = excluded.fingerprint, updated_at_ms = excluded.updated_at_ms"
)
_STATES_CONFLICT: Final = (
    "ON CONFLICT (operator_id, entity_no, state_key) DO UPDATE SET value = excluded.value, "
    "observed_at_ms = excluded.observed_at_ms, updated_at_ms = excluded.updated_at_ms"
)
TYPES: Final = {
    **dict.fromkeys(("operator_id", "entity_no", "created_at_ms", "updated_at_ms"), "bigint"),
    **dict.fromkeys(("event_no", "occurred_at_ms", "recorded_at_ms", "observed_at_ms"), "bigint"),
    **dict.fromkeys(("external_id", "entity_id", "entity_type", "event_type"), "text"),
    **dict.fromkeys(("sealed", "fingerprint", "event_id"), "bytea"),
    "state_key": "text",
    "data": "json",
    "value": "json",
}


_CASTS: Final = {"bigint": "::bigint[]", "json": "::json[]"}
_VALUES: Final = {"bytea": "decode({}, 'hex')"}


def _joined(table: str, columns: Sequence[str], conflict: str) -> Form:
    """A column a text parameter: arrays cost the driver several times that (decision 7)."""
    names = ", ".join(columns)
    arrays = ", ".join(
        f"string_to_array(${n}, E'\\x1f'){_CASTS.get(TYPES[name], '')}"
        for n, name in enumerate(columns, 1)
    )
    values = ", ".join(_VALUES.get(TYPES[name], "{}").format(name) for name in columns)
    sql = (
        f"INSERT INTO opdata.{table} ({names}) SELECT {values} FROM unnest({arrays}) AS r ({names}) "
        f"{conflict}"
    )

    async def write(connection: Connection, rows: Rows) -> None:
        texts = (map(_text, column) for column in zip(*rows, strict=True))
        await connection.execute(sql, *map("\x1f".join, texts))

    return write


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _stage(table: str, columns: Sequence[str]) -> str:
    described = ", ".join(f"{name} {TYPES[name]}" for name in columns)
    return f"CREATE TEMPORARY TABLE staged_{table} ({described}) ON COMMIT DELETE ROWS"


def _staged(table: str, columns: Sequence[str], conflict: str) -> Form:
    names = ", ".join(columns)
    sql = f"INSERT INTO opdata.{table} ({names}) SELECT {names} FROM staged_{table} {conflict}"

    async def write(connection: Connection, rows: Rows) -> None:
        async with connection.transaction():
            await connection.copy_records_to_table(f"staged_{table}", columns=columns, records=rows)
            await connection.execute(sql)

    return write


def _copy(table: str, columns: Sequence[str]) -> Form:
    async def write(connection: Connection, rows: Rows) -> None:
        await connection.copy_records_to_table(
            table, schema_name="opdata", columns=columns, records=rows
        )

    return write


NEW_ONLY: Final = "COPY of rows known to be new"
FORMS: Final[Mapping[str, Mapping[str, Form]]] = {
    "players": {
        "INSERT of texts … ON CONFLICT": _joined("entities", PLAYER_COLUMNS, _PLAYERS_CONFLICT),
        "COPY, INSERT … ON CONFLICT": _staged("entities", PLAYER_COLUMNS, _PLAYERS_CONFLICT),
        NEW_ONLY: _copy("entities", PLAYER_COLUMNS),
    },
    "events": {"COPY": _copy("events", EVENT_COLUMNS)},
    "states": {
        "INSERT of texts … ON CONFLICT": _joined("states", STATE_COLUMNS, _STATES_CONFLICT),
        "COPY, INSERT … ON CONFLICT": _staged("states", STATE_COLUMNS, _STATES_CONFLICT),
    },
}
"""The forms of each kind of rows. All but `NEW_ONLY` can meet rows that exist."""
FLOOR_FORM: Final = {
    "players": "COPY, INSERT … ON CONFLICT",
    "events": "COPY",
    "states": "INSERT of texts … ON CONFLICT",
}


class BarePostgres:
    """Connections to a database of its own, each taken by one batch at a time.

    Not the driver's pool, which asks the server to reset a session each time it comes back.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            self._free.put_nowait(connection)

    @classmethod
    async def connect(cls, url: str, connections: int) -> BarePostgres:
        """Open that many connections to a migrated database."""
        options = ConnectionOptions(url, busy_timeout_s=10, statement_timeout_s=60)
        made = [await asyncpg.connect(**connect_arguments(options)) for _ in range(connections)]
        for connection in made:
            await stage_tables(connection)
        await made[0].execute(
            "INSERT INTO opdata.operators (operator_id, name, key_salt, created_at_ms) "
            "VALUES (1, 'bench', '', 0)"
        )
        return cls(made)

    async def write(self, kind: str, form: str, rows: Rows) -> None:
        """Write rows in a transaction; return when it is flushed."""
        connection = await self._free.get()
        try:
            await FORMS[kind][form](connection, rows)
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            await connection.close()


async def stage_tables(connection: Connection) -> None:
    """Make the tables that a form copies into first, which are the session's own."""
    for table, columns in (("entities", PLAYER_COLUMNS), ("states", STATE_COLUMNS)):
        await connection.execute(_stage(table, columns))
