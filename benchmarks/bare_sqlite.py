"""What SQLite alone takes: ready rows through bare apsw, a transaction a batch, in several forms.

The same schema, pragmas and flush at the commit as the server's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

import apsw

from benchmarks.straight import EVENT_COLUMNS, PLAYER_COLUMNS, STATE_COLUMNS, Rows
from opdata.storage.sqlite.connection import connect
from opdata.storage.sqlite.schema import migrate

Form = Callable[[apsw.Connection, str, Rows], None]

ROWS_A_STATEMENT: Final = 100
_CONFLICTS: Final = {
    "players": (
        "ON CONFLICT (operator_id, external_id) WHERE deleted_at_ms IS NULL DO UPDATE SET "
        "entity_type = excluded.entity_type, data = excluded.data, sealed = excluded.sealed, "
        "fingerprint = excluded.fingerprint, updated_at_ms = excluded.updated_at_ms"
    ),
    "events": "",
    "states": (
        "ON CONFLICT (operator_id, entity_no, state_key) DO UPDATE SET value = excluded.value, "
        "observed_at_ms = excluded.observed_at_ms, updated_at_ms = excluded.updated_at_ms"
    ),
}


def _row_by_row(connection: apsw.Connection, kind: str, rows: Rows) -> None:
    connection.executemany(_statement(kind, 1), rows)


def _hundreds(connection: apsw.Connection, kind: str, rows: Rows) -> None:
    whole = len(rows) - len(rows) % ROWS_A_STATEMENT
    many = _statement(kind, ROWS_A_STATEMENT)
    for start in range(0, whole, ROWS_A_STATEMENT):
        block = rows[start : start + ROWS_A_STATEMENT]
        connection.execute(many, tuple(chain.from_iterable(block)))
    if whole < len(rows):
        connection.executemany(_statement(kind, 1), rows[whole:])


_FORMS: Final[dict[str, Form]] = {
    "executemany": _row_by_row,
    "100 rows a statement": _hundreds,
}
FORMS: Final[Mapping[str, Mapping[str, Form]]] = dict.fromkeys(_CONFLICTS, _FORMS)
"""The forms of each kind of rows. All of them can meet rows that exist."""
FLOOR_FORM: Final = dict.fromkeys(_CONFLICTS, "100 rows a statement")


class BareSqlite:
    """A connection to a database of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        self._connection = connect(home / "opdata.db", busy_timeout_s=5)
        migrate(self._connection)
        self._connection.execute(
            "INSERT INTO operators (name, key_salt, created_at_ms) VALUES ('bench', x'00', 0)"
        )

    async def write(self, kind: str, form: str, rows: Rows) -> None:
        """Write rows in a transaction; return when it is flushed."""
        self._connection.execute("BEGIN IMMEDIATE")
        FORMS[kind][form](self._connection, kind, rows)
        self._connection.execute("COMMIT")

    async def close(self) -> None:
        """Release the file."""
        self._connection.close()


def _statement(kind: str, rows: int) -> str:
    columns = {"players": PLAYER_COLUMNS, "events": EVENT_COLUMNS, "states": STATE_COLUMNS}[kind]
    table = {"players": "entities"}.get(kind, kind)
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)} "
        f"{_CONFLICTS[kind]}"
    )
