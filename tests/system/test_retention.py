"""Retention of real processes: killed after every step there is, and carried out by a server unasked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from opdata.audit import Record
from opdata.storage import open_store
from opdata.storage.archive import OldEvent
from opdata.storage.work import ChangeSettings
from tests.contract.tenant import DAY_MS, NOW_MS, Tenant, event_row, state_row
from tests.faults.counts import COUNTS
from tests.support.archives import (
    archive_files,
    archived_events,
    archived_states,
    live_events,
    policy,
)
from tests.support.running import RunningServer
from tests.support.stored import STORES, stored_at

pytestmark = pytest.mark.clause("W50")

ROOT = Path(__file__).parents[2]
LATER_MS = NOW_MS + 20 * DAY_MS


def started(command: Sequence[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)


def by_id(rows: Sequence[OldEvent]) -> list[OldEvent]:
    return sorted(rows, key=lambda row: row.event_id)


async def filled(url: str) -> Tenant:
    """An operator with events that go to two files, events that are deleted, and erased entities' states."""
    store = await open_store(url)
    tenant = Tenant(store, await store.create_operator("a", bytes(32), NOW_MS))
    await tenant.create("p0", "p1", "erased")
    ages = [*[100] * 14, *[101] * 14, *[400] * 6, 1, 2]
    for name in ("p0", "p1"):
        rows = [
            event_row(name, f'{{"n":{at}.00}}', at_ms=NOW_MS - age * DAY_MS)
            for at, age in enumerate(ages)
        ]
        await tenant.append(*rows, now_ms=NOW_MS - 10 * DAY_MS)
    await tenant.set_states(state_row("erased", "1"))
    await tenant.delete("erased", now_ms=NOW_MS - 100 * DAY_MS)
    await tenant.change(ChangeSettings(retention_policy=policy(states=(30, 365))))
    return tenant


# The steps are the same on every store; the other one's turn is in the long run.
@pytest.mark.parametrize("db", STORES if COUNTS.is_long else STORES[:1], indirect=True)
async def test_killed_after_any_step_a_run_is_taken_up_and_no_row_is_lost_or_doubled(
    tmp_path: Path, db: str
) -> None:
    url = db or f"sqlite:///{tmp_path / 'opdata.db'}"
    folder = tmp_path / "archive"
    tenant = await filled(url)
    everything = by_id(await live_events(tenant.store, tenant.id))
    kept = [row for row in everything if row.occurred_at_ms >= NOW_MS - 365 * DAY_MS]
    stay = [row for row in kept if row.occurred_at_ms >= NOW_MS - 90 * DAY_MS]

    async def killed_after(*last_steps: str) -> list[str]:
        command = [sys.executable, "-m", "tests.system.retention_killed", url, str(tenant.id)]
        with started([*command, str(folder), str(at_ms), *last_steps]) as runs:
            assert runs.stdin is not None
            assert runs.stdout is not None
            steps = []
            for line in runs.stdout:
                steps.append(line.strip())
                await check_between_runs()
                if len(steps) <= len(last_steps):
                    runs.stdin.write("\n")
                    runs.stdin.flush()
        assert runs.returncode == 0
        return steps

    async def check_between_runs() -> None:
        files = await tenant.store.archive.files(tenant.id)
        counted = {file.path for file in files if file.state in {"moving", "kept"}}
        live = {row.event_id: row for row in await live_events(tenant.store, tenant.id)}
        # What only a file has: the rows of files that count, less those that are still live.
        paths = {path for path in archive_files(folder) if path.endswith(".parquet")}
        assert counted <= paths
        if at_ms == NOW_MS:
            there = {row.event_id: row for row in archived_events(folder)}
            assert set(there) | set(live) >= {row.event_id for row in kept}
            assert all(there[one] == live[one] for one in there.keys() & live)

    at_ms = NOW_MS
    steps = ["leased", "writing", "written", "published", "moving", "removed", "removed", "kept"]
    assert await killed_after(*steps) == [*steps, "done"]
    assert by_id(await live_events(tenant.store, tenant.id)) == stay
    archived = archived_events(folder)
    assert by_id([*archived, *stay]) == kept
    assert [(row.state_key, row.value) for row in archived_states(folder)] == [("balance", "1")]
    files = await tenant.store.archive.files(tenant.id)
    assert {file.state for file in files} == {"kept"}
    assert sorted(file.path for file in files) == archive_files(folder)

    # And the files' rows past their time: of some files a part, and then all.
    at_ms = NOW_MS + 265 * DAY_MS
    steps = ["writing", "published", "rewritten", "left"]
    assert await killed_after(*steps) == [*steps, "done"]
    expired = [row for row in kept if row.occurred_at_ms < at_ms - 365 * DAY_MS]
    assert expired
    assert by_id(archived_events(folder)) == by_id([row for row in kept if row not in expired])
    assert sorted(
        file.path for file in await tenant.store.archive.files(tenant.id)
    ) == archive_files(folder)
    assert stored_at(url).problems() == []
    await tenant.store.close()


async def test_a_server_carries_retention_out_by_itself_and_one_worker_does_it(
    tmp_path: Path, db: str
) -> None:
    data_dir = tmp_path / "data"
    url = db or f"sqlite:///{data_dir / 'opdata.db'}"
    RunningServer(data_dir, db=db).start().stop()
    tenant = await filled(url)
    flags = ("--retention-every-s", "0.3", "--workers", "2")
    server = RunningServer(data_dir, *flags, db=db).start()
    deadline = time.monotonic() + 30
    try:
        while await live_events(tenant.store, tenant.id):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        entries: list[Record] = []
        while not entries:
            chain = await tenant.store.audit.chain(tenant.id, after=0, limit=100)
            entries = [each for each in chain if each.action == "retention.run"]
            assert time.monotonic() < deadline
    finally:
        server.stop()
    detail = msgspec.json.decode(entries[0].detail)
    assert entries[0].actor == "server"
    # The clock of a server is the present, by which more is gone and less archived.
    assert detail["archived"].get("events", 0) + detail["deleted"].get("events", 0) > 0
    await tenant.store.close()
