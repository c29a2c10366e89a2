"""What SQLite alone takes: the same rows through bare apsw, one transaction a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from opdata.storage.sqlite.connection import SQL, connect
from opdata.storage.sqlite.schema import migrate

Row = tuple[Any, ...]


class BareSqlite:
    """Writes event batches as fast as plain apsw does: `executemany` of ready tuples.

    Same pragmas, same schema, same flush at the commit; no HTTP, no decoding, no look-up of players.
    """

    def __init__(self, directory: Path) -> None:
        self._connection: apsw.Connection = connect(directory / "bare.db", busy_timeout_s=5)
        migrate(self._connection)

    def write(self, rows: Sequence[Row]) -> float:
        """Seconds from BEGIN to the end of COMMIT."""
        started = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(SQL["append_events"], rows)
        self._connection.execute("COMMIT")
        return time.perf_counter() - started

    def close(self) -> None:
        """Release the file."""
        self._connection.close()
