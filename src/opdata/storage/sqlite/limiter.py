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
from opdata.storage.sqlite.connection import create_file, translated, use_log, wait_when_busy

_WAIT_S: Final = 2.0

# GCRA, the generic cell rate algorithm: `full_at_us` is when the bucket will be full again. A
# request moves it on by one emission interval, and is refused if that would take it further than
# a whole bucket from now. A clock set back must not lock anyone out for longer than that either:
# what is stored is brought within it, so that the wait is counted on the new clock.
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
        now_us = now_ms * 1000
        interval_us = max(1, quota.window_s * 1_000_000 // quota.requests)
        bucket_us = interval_us * quota.requests
        with translated():
            row = self._connection.execute(
                _TAKE, (operator_id, category, now_us, interval_us, bucket_us)
            ).fetchone()
            granted = row is not None
            if not granted:
                row = self._connection.execute(_LOOK, (operator_id, category)).fetchone()
                if row and row[0] > now_us + bucket_us:
                    self._connection.execute(
                        _BRING_NEAR, (operator_id, category, now_us + bucket_us)
                    )
        used_us = min(row[0] - now_us, bucket_us) if row else 0
        return Taken(
            granted=granted,
            remaining=max(0, (bucket_us - used_us) // interval_us),
            reset_s=max(0, used_us) / 1_000_000,
            retry_after_s=0 if granted else (used_us + interval_us - bucket_us) / 1_000_000,
        )

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
