"""Which driver for PostgreSQL: asyncpg and psycopg 3 write the same rows in each of their best forms.

`python -m benchmarks.drivers`. The figures are in docs/decisions/0007-postgresql-driver.md.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import payloads, rows
from benchmarks.bare_postgres import EVENTS, INSERTS, UPSERTS, Form
from opdata.storage.postgres.copying import ENTITY_COLUMNS, EVENT_COLUMNS
from tests.support.postgres import PostgresServer, migrated_database

Row = tuple[Any, ...]

_ROUNDS: Final = 5
_BATCHES: Final = 8  # of each form a round
_ENTITY_TYPES: Final = (
    *("int8", "int8", "int8", "int8", "text", "text", "text", "json", "bytea", "bytea"),
)
_EVENT_TYPES: Final = ("int8", "int8", "int8", "int8", "int8", "bytea", "text", "json", "text")
_UNNEST: Final = (
    f"INSERT INTO opdata.entities ({', '.join(ENTITY_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"%b::{kind}[]" for kind in _ENTITY_TYPES)
    + ") ON CONFLICT (operator_id, external_id, tombstone_no) DO UPDATE SET data = excluded.data"
)


class Took(NamedTuple):
    """Seconds of a batch: on the clock, and of this process's processor."""

    wall_s: float
    processor_s: float


Write = Callable[[Sequence[Row]], Awaitable[None]]


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="opdata-drivers-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = PostgresServer(18, parent=folder).start()
        try:
            measured = uvloop.run(_measure(migrated_database(server.url)))
        finally:
            server.remove()
    table = Table("rows", "form", "ms", "of it Python, ms")
    for (kind, form), took in measured.items():
        wall, processor = (statistics.median(each) * 1e3 for each in zip(*took, strict=True))
        table.add_row(kind, form, f"{wall:.1f}", f"{processor:.1f}")
    Console().print(table)
    return 0


async def _measure(url: str) -> dict[tuple[str, str], list[Took]]:
    """Every form in turn, round by round, so that all meet the same weather."""
    fast = await asyncpg.connect(url)
    async with await psycopg.AsyncConnection.connect(url) as other:
        await fast.execute(_stage())
        entities: dict[str, Write] = {
            **{f"asyncpg, {name}": _on(fast, form) for name, form in (UPSERTS | INSERTS).items()},
            "psycopg, INSERT … unnest … ON CONFLICT": _psycopg_unnest(other),
            "psycopg, COPY of rows known to be new": _psycopg_copy(
                other, "entities", ENTITY_COLUMNS, _ENTITY_TYPES
            ),
        }
        events: dict[str, Write] = {
            **{f"asyncpg, {name}": _on(fast, form) for name, form in EVENTS.items()},
            "psycopg, COPY": _psycopg_copy(other, "events", EVENT_COLUMNS, _EVENT_TYPES),
        }
        took: dict[tuple[str, str], list[Took]] = {}
        players = rows.Players()
        for turn in range(_ROUNDS):
            for at, (form, write) in enumerate(entities.items()):
                for n in range(_BATCHES):
                    batch = players.rows(turn * _BATCHES + n, f"form{at}")
                    took.setdefault(("1,000 players", form), []).append(await _timed(write, batch))
            for at, (form, write) in enumerate(events.items()):
                for n in range(_BATCHES):
                    number = (turn * len(events) + at) * _BATCHES + n
                    batch = rows.event_rows_postgres(payloads.events(number, 100), number)
                    took.setdefault(("5,000 events", form), []).append(await _timed(write, batch))
    await fast.close()
    return took


async def _timed(write: Write, batch: Sequence[Row]) -> Took:
    wall, processor = time.perf_counter(), time.process_time()
    await write(batch)
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def _on(connection: asyncpg.Connection[asyncpg.Record], form: Form) -> Write:
    async def write(batch: Sequence[Row]) -> None:
        async with connection.transaction():
            await form(connection, batch)

    return write


def _psycopg_unnest(connection: psycopg.AsyncConnection[Any]) -> Write:
    async def write(batch: Sequence[Row]) -> None:
        columns = [list(column) for column in zip(*batch, strict=True)]
        async with connection.pipeline():
            await connection.execute(_UNNEST, columns, prepare=True)
            await connection.commit()

    return write


def _psycopg_copy(
    connection: psycopg.AsyncConnection[Any],
    table: str,
    columns: Sequence[str],
    types: Sequence[str],
) -> Write:
    statement = f"COPY opdata.{table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"

    async def write(batch: Sequence[Row]) -> None:
        async with connection.cursor().copy(statement) as copy:
            copy.set_types(types)
            for row in batch:
                await copy.write_row(row)
        await connection.commit()

    return write


def _stage() -> str:
    columns = zip(ENTITY_COLUMNS, _ENTITY_TYPES, strict=True)
    return f"CREATE TEMPORARY TABLE staged ({', '.join(' '.join(column) for column in columns)})"


if __name__ == "__main__":
    sys.exit(main())
