"""What the database alone takes: the same rows through the bare driver, one transaction a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from benchmarks.payloads import EVENTS_A_BATCH
from opdata.ids import new_event_ids
from opdata.storage.sqlite.connection import SQL, connect
from opdata.storage.sqlite.schema import migrate

Row = tuple[Any, ...]

_NOW_MS = 1_700_000_000_000


class BareEvents:
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


def rows_of(body: bytes) -> Sequence[Row]:
    """The rows of a batch of events, ready to be written."""
    items = msgspec.json.decode(body)
    ids = new_event_ids(EVENTS_A_BATCH, _NOW_MS)
    return [
        (
            *(1, _number(item["externalId"]), event_id, item["eventType"]),
            *(msgspec.json.encode(item["data"]).decode(), _NOW_MS, _NOW_MS),
        )
        for item, event_id in zip(items, ids, strict=True)
    ]


def _number(external_id: str) -> int:
    _, batch, number = external_id.split("_")
    return int(batch) * 1_000 + int(number) + 1
