"""Archive files as any program reads them, and retention carried out on an open store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb

from opdata.model import RetentionPolicy, RetentionWindow
from opdata.retention.folder import Folder
from opdata.retention.progress import Pace, Progress, Report
from opdata.retention.run import Run
from opdata.storage.archive import OldEvent, OldState, Place, Span
from opdata.storage.base import Store

DAY_MS: Final = 86_400_000
ALWAYS: Final = Span("events", -(2**62), 2**62, 2**62)
SMALL: Final = Pace(file_rows=40, page_rows=16, step_rows=10, rest=0)
"""Several files, pages and steps for a hundred rows."""
_EVENTS: Final = """
SELECT entity_no, event_no, event_id, entity_id, event_type, data, epoch_ms(occurred_at),
    epoch_ms(recorded_at), idempotency_key
"""
_STATES: Final = """
SELECT entity_no, state_key, entity_id, value, epoch_ms(observed_at), epoch_ms(updated_at),
    epoch_ms(erased_at)
"""


def policy(
    events: tuple[int, int] | None = (90, 365), states: tuple[int, int] | None = None
) -> RetentionPolicy:
    """Windows in days, hot and archive."""
    windows = [RetentionWindow(*each) if each else None for each in (events, states)]
    return RetentionPolicy(*windows)


async def carried_out(
    store: Store,
    operator_id: int,
    folder: Path,
    at_ms: int,
    *,
    pace: Pace = SMALL,
    show: Callable[[Progress], None] = lambda _progress: None,
) -> Report:
    """What a run for an operator has done."""
    operator = await store.operator(operator_id)
    assert operator is not None
    run = Run(store, Folder(folder), operator, actor="cli:test", pace=pace, show=show, lease_ms=1)
    return await run.perform(at_ms)


def archived_events(folder: Path) -> list[OldEvent]:
    """The events of all files below a directory, whatever any manifest says."""
    rows = _read(folder, "events", _EVENTS)
    return [
        OldEvent(number, event_no, bytes.fromhex(event_id.removeprefix("eev_")), *rest)
        for number, event_no, event_id, *rest in rows
    ]


def archived_states(folder: Path) -> list[OldState]:
    """The states of all files below a directory."""
    return [OldState(*row) for row in _read(folder, "states", _STATES)]


def archive_files(folder: Path) -> list[str]:
    """Everything below a directory that is a file, drafts included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def archive_modes(folder: Path) -> set[int]:
    """The permissions that others than the owner have on a directory and all that is in it."""
    return {path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))}


async def live_events(store: Store, operator_id: int) -> list[OldEvent]:
    """The events in the live table, erased entities' included; those of held entities are left out."""
    rows: list[OldEvent] = []
    place: Place | None = None
    while True:
        page = await store.archive.old_events(operator_id, ALWAYS, place, 7)
        rows += page.rows
        if page.next is None:
            return rows
        place = page.next


def _read(folder: Path, kind: str, columns: str) -> list[tuple[Any, ...]]:
    if not list(folder.glob(f"*/{kind}/*/*.parquet")):
        return []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(
            f"{columns} FROM read_parquet('{folder}/*/{kind}/*/*.parquet')"
        ).fetchall()
