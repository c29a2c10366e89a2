"""What PostgreSQL alone takes: the same rows through the bare driver, one transaction a batch.

The same tables, settings and durability; rows made beforehand; no HTTP, no decoding, no checks, no
encryption, no look-ups, no job. Several forms of each write, because the best one is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import asyncpg
import uvloop

from opdata.storage.postgres.connection import ConnectionOptions, connect_arguments
from opdata.storage.postgres.copying import ENTITY_COLUMNS, EVENT_COLUMNS

Row = tuple[Any, ...]
Form: TypeAlias = "Callable[[asyncpg.Connection[asyncpg.Record], Sequence[Row]], Awaitable[object]]"

_TYPES: Final = (
    *("bigint", "bigint", "bigint", "bigint"),
    *("text", "text", "text", "json", "bytea", "bytea"),
)
_COLUMNS: Final = ", ".join(ENTITY_COLUMNS)
_REPLACE: Final = (
    "ON CONFLICT (operator_id, external_id, tombstone_no) DO UPDATE SET "
    "entity_type = excluded.entity_type, data = excluded.data, sealed = excluded.sealed, "
    "fingerprint = excluded.fingerprint, updated_at_ms = excluded.updated_at_ms"
)
_UNNEST: Final = (
    f"INSERT INTO opdata.entities ({_COLUMNS}) SELECT * FROM unnest("
    f"{', '.join(f'${n}::{kind}[]' for n, kind in enumerate(_TYPES, 1))}) {_REPLACE}"
)
_MERGE: Final = f"INSERT INTO opdata.entities ({_COLUMNS}) SELECT * FROM staged {_REPLACE}"
_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS staged ("
    + ", ".join(f"{name} {kind}" for name, kind in zip(ENTITY_COLUMNS, _TYPES, strict=True))
    + ")"
)


async def _upsert_arrays(
    connection: asyncpg.Connection[asyncpg.Record], rows: Sequence[Row]
) -> None:
    await connection.execute(_UNNEST, *zip(*rows, strict=True))


async def _copy_and_merge(
    connection: asyncpg.Connection[asyncpg.Record], rows: Sequence[Row]
) -> None:
    await connection.copy_records_to_table("staged", columns=ENTITY_COLUMNS, records=rows)
    await connection.execute(_MERGE)
    await connection.execute("TRUNCATE staged")


async def _copy(connection: asyncpg.Connection[asyncpg.Record], rows: Sequence[Row]) -> None:
    await connection.copy_records_to_table(
        "entities", schema_name="opdata", columns=ENTITY_COLUMNS, records=rows
    )


async def _copy_events(connection: asyncpg.Connection[asyncpg.Record], rows: Sequence[Row]) -> None:
    await connection.copy_records_to_table(
        "events", schema_name="opdata", columns=EVENT_COLUMNS, records=rows
    )


UPSERTS: Final[dict[str, Form]] = {
    "INSERT … unnest … ON CONFLICT": _upsert_arrays,
    "COPY, INSERT … ON CONFLICT": _copy_and_merge,
}
"""Forms that can meet rows that exist, as a batch of entities can."""
INSERTS: Final[dict[str, Form]] = {"COPY of rows known to be new": _copy}
EVENTS: Final[dict[str, Form]] = {"COPY": _copy_events}


class BarePostgres:
    """One connection to a migrated database, and an event loop of its own."""

    def __init__(self, url: str) -> None:
        self._runner = uvloop.Loop()
        options = ConnectionOptions(url, busy_timeout_s=10, statement_timeout_s=60)
        self._connection = self._runner.run_until_complete(
            asyncpg.connect(**connect_arguments(options))
        )
        self._runner.run_until_complete(self._connection.execute(_STAGE))

    def write(self, form: Form, rows: Sequence[Row]) -> float:
        """Seconds from BEGIN to the end of COMMIT."""
        return self._runner.run_until_complete(self._timed(form, rows))

    def close(self) -> None:
        """Hang up."""
        self._runner.run_until_complete(self._connection.close())
        self._runner.close()

    async def _timed(self, form: Form, rows: Sequence[Row]) -> float:
        started = time.perf_counter()
        async with self._connection.transaction():
            await form(self._connection, rows)
        return time.perf_counter() - started
