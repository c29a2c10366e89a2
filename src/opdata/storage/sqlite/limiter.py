"""Rate limits shared by all processes on one machine: a token bucket a row, in a file of their own.

The file is not flushed to disk and holds nothing worth keeping: after a power cut the buckets are
full again. It lies beside the database so that taking a token never waits for a batch's commit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from opdata.model import Quota
from opdata.storage.base import Taken
from opdata.storage.buckets import bucket_of, taken_of
from opdata.storage.sqlite.connection import create_file, translated, use_log, wait_when_busy

_WAIT_S: Final = 2.0

# ?3 is now, ?4 the interval, ?5 the bucket's size; see opdata.storage.buckets.
_TAKE: Final = """
INSERT INTO buckets (operator_id, category, full_at_us) VALUES (?1, ?2, ?3 + ?4)
ON CONFLICT (operator_id, category) DO UPDATE
    SET full_at_us = max(?3, min(full_at_us, ?3 + ?5)) + ?4
    WHERE max(?3, min(full_at_us, ?3 + ?5)) + ?4 <= ?3 + ?5
RETURNING full_at_us
"""
_LOOK: Final = "SELECT full_at_us FROM buckets WHERE operator_id = ?1 AND category = ?2"
_BRING_NEAR: Final = """
UPDATE buckets SET full_at_us = min(full_at_us, ?3) WHERE operator_id = ?1 AND category = ?2
"""


class Limiter:
    """Token buckets by operator and category; one connection, used from one thread."""

    def __init__(self, path: Path) -> None:
        with translated():
            try:
                self._connection = _open(path)
            except (apsw.CorruptError, apsw.NotADBError):
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                self._connection = _open(path)

    def take(self, operator_id: int, category: str, quota: Quota, now_ms: int) -> Taken:
        """Take one request from the quota, atomically. Raises `Unavailable`."""
        bucket = bucket_of(quota, now_ms)
        key = (operator_id, category)
        with translated():
            row = self._connection.execute(
                _TAKE, (*key, bucket.now_us, bucket.interval_us, bucket.size_us)
            ).fetchone()
            granted = row is not None
            if not granted:
                row = self._connection.execute(_LOOK, key).fetchone()
                if row and row[0] > bucket.latest_us:
                    self._connection.execute(_BRING_NEAR, (*key, bucket.latest_us))
        return taken_of(bucket, row[0] if row else None, granted=granted)

    def close(self) -> None:
        """Release the file."""
        self._connection.close()


def _open(path: Path) -> apsw.Connection:
    create_file(path)
    connection = apsw.Connection(str(path))
    wait_when_busy(connection, _WAIT_S)
    use_log(connection, _WAIT_S)
    connection.pragma("synchronous", "OFF")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS buckets (operator_id INTEGER NOT NULL, category TEXT NOT NULL,"
        " full_at_us INTEGER NOT NULL, PRIMARY KEY (operator_id, category)) STRICT, WITHOUT ROWID"
    )
    return connection
