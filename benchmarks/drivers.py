"""Which driver for PostgreSQL: asyncpg and psycopg 3 write the same rows in each of their best forms.

`python -m benchmarks.drivers`. The figures are in docs/decisions/0007-postgresql-driver.md.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import asyncpg
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import payloads
from benchmarks.bare_postgres import FORMS, TYPES, Connection, Form, stage_tables
from benchmarks.places import place
from benchmarks.straight import EVENT_COLUMNS, PLAYER_COLUMNS, Rows, Straight, new_sealer

_ROUNDS: Final = 5
_BATCHES: Final = 8  # of each form a round
_UNNEST: Final = (
    f"INSERT INTO opdata.entities ({', '.join(PLAYER_COLUMNS)}) SELECT * FROM unnest("
    + ", ".join(f"{{}}::{TYPES[name]}[]" for name in PLAYER_COLUMNS)
    + ") ON CONFLICT (operator_id, external_id, tombstone_no) DO UPDATE SET data = excluded.data"
)


class Took(NamedTuple):
    """Seconds of a batch: on the clock, and of this process's processor."""

    wall_s: float
    processor_s: float


Write = Callable[[Rows], Awaitable[None]]


def main() -> int:
    """Measure and print."""
    with place("postgres") as where:
        measured = uvloop.run(_measure(where.new_home().url))
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
        await stage_tables(fast)
        players: dict[str, Write] = {
            **{f"asyncpg, {name}": _on(fast, form) for name, form in FORMS["players"].items()},
            "asyncpg, INSERT of arrays … ON CONFLICT": _on(fast, _asyncpg_arrays),
            "psycopg, INSERT of arrays … ON CONFLICT": _psycopg_arrays(other),
            "psycopg, COPY of rows known to be new": _psycopg_copy(
                other, "entities", PLAYER_COLUMNS
            ),
        }
        events: dict[str, Write] = {
            **{f"asyncpg, {name}": _on(fast, form) for name, form in FORMS["events"].items()},
            "psycopg, COPY": _psycopg_copy(other, "events", EVENT_COLUMNS),
        }
        took: dict[tuple[str, str], list[Took]] = {}
        straight = Straight(new_sealer())
        for turn in range(_ROUNDS):
            for at, (form, write) in enumerate(players.items()):
                for n in range(_BATCHES):
                    body = payloads.players(turn * _BATCHES + n, prefix=f"form{at}")
                    rows = straight.players(body)
                    took.setdefault(("1,000 players", form), []).append(await _timed(write, rows))
            for form, write in events.items():
                for n in range(_BATCHES):
                    rows = straight.events(payloads.events(n, _BATCHES, prefix="form0"))
                    took.setdefault(("5,000 events", form), []).append(await _timed(write, rows))
    await fast.close()
    return took


async def _timed(write: Write, rows: Rows) -> Took:
    wall, processor = time.perf_counter(), time.process_time()
    await write(rows)
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def _on(connection: Connection, form: Form) -> Write:
    async def write(rows: Rows) -> None:
        await form(connection, rows)

    return write


async def _asyncpg_arrays(connection: Connection, rows: Rows) -> None:
    sql = _UNNEST.format(*(f"${n}" for n, _ in enumerate(PLAYER_COLUMNS, 1)))
    await connection.execute(sql, *zip(*rows, strict=True))


def _psycopg_arrays(connection: psycopg.AsyncConnection[Any]) -> Write:
    sql = _UNNEST.format(*("%b" for _ in PLAYER_COLUMNS))

    async def write(rows: Rows) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        async with connection.pipeline():
            await connection.execute(sql.encode(), columns, prepare=True)
            await connection.commit()

    return write


def _psycopg_copy(
    connection: psycopg.AsyncConnection[Any], table: str, columns: Sequence[str]
) -> Write:
    statement = f"COPY opdata.{table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
    types = [TYPES[name] for name in columns]

    async def write(rows: Rows) -> None:
        async with connection.cursor().copy(statement.encode()) as copy:
            copy.set_types(types)
            for row in rows:
                await copy.write_row(row)
        await connection.commit()

    return write


if __name__ == "__main__":
    sys.exit(main())
