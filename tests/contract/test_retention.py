"""Retention carried out (W50): every row is in the live tables or in an archive file, once, or past its time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from opdata.clock import now_ms
from opdata.errors import Unavailable
from opdata.retention.folder import Folder
from opdata.retention.parquet import ArchiveDamaged
from opdata.retention.progress import Pace
from opdata.retention.run import Busy, Run
from opdata.retention.survey import preview
from opdata.storage.archive import PAGE_BYTES, OldEvent, payload_bytes
from opdata.storage.base import Store
from opdata.storage.leases import Lease, LeaseLost
from opdata.storage.work import ChangeSettings
from tests.contract.conftest import Opener
from tests.contract.tenant import DAY_MS, NOW_MS, EventRow, Tenant, event_row, state_row
from tests.support.archives import (
    ALWAYS,
    SMALL,
    archive_files,
    archive_modes,
    archived_events,
    archived_states,
    carried_out,
    live_events,
    policy,
)

RECORDED = NOW_MS - 20 * DAY_MS
AGES = (5, 60, 90, 91, 92, 93, *range(94, 100), 110, 111, 112, 364, 365, 366, 400, 401, 402, 403)
AWKWARD = [
    '{"amount":100.00,"n":12345678901234567890.12}',
    '{\n\t"amount" : 1e400,\r\n "text": "a\\nb \\u001f \\"q\\" é 𝛑"}',
    '{"empty":"","null":null,"zero":-0.0}',
]

pytestmark = [
    pytest.mark.clause("W50"),
    pytest.mark.parametrize("reopen", ["sqlite", "postgres18"], indirect=True),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def events(name: str, *ages_in_days: int) -> list[EventRow]:
    """One event an age, each with data of its own."""
    return [
        event_row(
            name,
            AWKWARD[at % 3].replace("{", f'{{"of":"{name}-{at}",', 1),
            at_ms=NOW_MS - age * DAY_MS,
        )
        for at, age in enumerate(ages_in_days)
    ]


async def fill(tenant: Tenant, names: int = 3, *, ages: Sequence[int] = AGES) -> list[OldEvent]:
    """Entities with events of all ages, recorded a while ago; all of the events."""
    external_ids = [f"p{number}" for number in range(names)]
    await tenant.create(*external_ids)
    for name in external_ids:
        await tenant.append(*events(name, *ages), now_ms=RECORDED)
    return await live_events(tenant.store, tenant.id)


async def set_policy(tenant: Tenant, **windows: tuple[int, int] | None) -> None:
    await tenant.change(ChangeSettings(retention_policy=policy(**windows)))


async def carry_out(tenant: Tenant, folder: Path, at_ms: int = NOW_MS, **options: Any) -> Any:
    return await carried_out(tenant.store, tenant.id, folder, at_ms, **options)


def aged(rows: list[OldEvent], least: int, most: int = 10**6) -> list[OldEvent]:
    """Those that are older than so many days, and not older than so many."""
    return [row for row in rows if least * DAY_MS < NOW_MS - row.occurred_at_ms <= most * DAY_MS]


def same(found: list[OldEvent], expected: list[OldEvent]) -> bool:
    return sorted(found, key=lambda row: row.event_id) == sorted(
        expected, key=lambda row: row.event_id
    )


async def test_events_leave_at_hot_days_into_files_and_are_gone_at_archive_days(
    ours: Tenant, folder: Path
) -> None:
    everything = await fill(ours)
    await set_policy(ours)
    report = await carry_out(ours, folder)
    stay, archived, gone = aged(everything, 0, 90), aged(everything, 90, 365), aged(everything, 365)
    assert all((stay, archived, gone))
    assert same(await live_events(ours.store, ours.id), stay)
    assert same(archived_events(folder), archived)
    assert (report.archived["events"], report.deleted["events"]) == (len(archived), len(gone))
    files = await ours.store.archive.files(ours.id)
    assert {file.state for file in files} == {"kept"}
    assert sum(file.rows for file in files) == len(archived)
    assert sorted(file.path for file in files) == archive_files(folder)
    for file in files:
        assert file.path == f"{ours.id}/events/{file.path.split('/')[2]}/{file.file_id}.parquet"
        assert file.oldest_ms <= file.newest_ms


async def test_files_tell_nothing_of_whose_an_event_is_but_the_entitys_id(
    ours: Tenant, folder: Path
) -> None:
    await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    known = {(await ours.entity(f"p{number}")).entity_id for number in range(3)}  # type: ignore[union-attr]
    assert {row.entity_id for row in archived_events(folder)} == known
    assert archive_modes(folder) == {0}


async def test_a_second_run_finds_nothing_to_do(ours: Tenant, folder: Path) -> None:
    await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    before = archive_files(folder)
    assert not (await carry_out(ours, folder)).changed
    assert archive_files(folder) == before


async def test_one_operators_retention_is_nothing_to_another(
    ours: Tenant, theirs: Tenant, folder: Path
) -> None:
    await fill(ours)
    untouched = await fill(theirs)
    await set_policy(ours)
    await carry_out(ours, folder)
    assert not (await carry_out(theirs, folder)).changed
    assert same(await live_events(theirs.store, theirs.id), untouched)


async def test_without_a_policy_data_past_data_retention_days_is_deleted_and_not_archived(
    ours: Tenant, folder: Path
) -> None:
    everything = await fill(ours)
    await ours.change(ChangeSettings(data_retention_days=100))
    report = await carry_out(ours, folder)
    assert same(await live_events(ours.store, ours.id), aged(everything, 0, 100))
    assert report.deleted["events"] == len(aged(everything, 100))
    assert archive_files(folder) == []


async def test_a_policy_for_one_kind_leaves_the_other_to_data_retention_days(
    ours: Tenant, folder: Path
) -> None:
    await ours.create("a", "b")
    await ours.append(*events("b", 40, 80), now_ms=RECORDED)
    await ours.set_states(state_row("a", "1"))
    await ours.delete("a", now_ms=NOW_MS - 40 * DAY_MS)
    await set_policy(ours, events=None, states=(30, 90))
    await ours.change(ChangeSettings(data_retention_days=50))
    report = await carry_out(ours, folder)
    assert report.deleted == {"events": 1}
    assert report.archived == {"states": 1}


async def test_without_any_setting_everything_is_kept(ours: Tenant, folder: Path) -> None:
    everything = await fill(ours)
    assert not (await carry_out(ours, folder)).changed
    assert same(await live_events(ours.store, ours.id), everything)


async def test_history_that_was_just_loaded_stays_for_a_week(ours: Tenant, folder: Path) -> None:
    await ours.create("p")
    await ours.append(*events("p", 100, 400, 20_000), now_ms=NOW_MS - 6 * DAY_MS)
    await set_policy(ours)
    assert not (await carry_out(ours, folder)).changed
    found = await preview(ours.store, await operator_of(ours), NOW_MS)
    assert [tally.settled for tally in found.due[0].tallies] == [False] * 3
    report = await carry_out(ours, folder, NOW_MS + 2 * DAY_MS)
    assert (report.archived["events"], report.deleted["events"]) == (1, 2)


async def test_the_latest_state_of_a_live_entity_stays_however_old_it_is(
    ours: Tenant, folder: Path
) -> None:
    await ours.create("p")
    await ours.set_states(state_row("p", "1"), now_ms=NOW_MS - 3_000 * DAY_MS)
    await set_policy(ours, states=(30, 30))
    await ours.change(ChangeSettings(data_retention_days=1))
    assert not (await carry_out(ours, folder)).changed
    assert await ours.values("p") == {"balance": "1"}


async def test_what_an_erased_entity_leaves_behind_goes_with_its_time_and_the_ledger_stays(
    ours: Tenant, folder: Path
) -> None:
    await ours.create("old", "new", "with events")
    for name in ("old", "new", "with events"):
        await ours.set_states(state_row(name, AWKWARD[1]), state_row(name, "2", key="tier"))
    await ours.append(event_row("with events"), now_ms=RECORDED)
    for name, age in (("old", 31), ("new", 29), ("with events", 31)):
        await ours.delete(name, now_ms=NOW_MS - age * DAY_MS)
    ledger = await ours.erasures()
    await set_policy(ours, events=(90, 365), states=(30, 60))
    report = await carry_out(ours, folder)
    assert (report.archived["states"], report.records) == (4, 1)
    found = archived_states(folder)
    assert {row.entity_id for row in found} <= {erasure.entity_id for erasure in ledger}
    assert sorted(row.value for row in found) == sorted([AWKWARD[1], "2"] * 2)
    assert {row.erased_at_ms for row in found} == {NOW_MS - 31 * DAY_MS}
    # Later the files' rows go, and the record whose last event has gone by then.
    later = await carry_out(ours, folder, NOW_MS + 95 * DAY_MS)
    assert later.expired["states"] == 4
    assert archived_states(folder) == []
    assert later.records == 2
    assert await ours.erasures() == ledger


async def test_events_of_an_erased_entity_are_archived_like_any_other(
    ours: Tenant, folder: Path
) -> None:
    await ours.create("p")
    await ours.append(*events("p", 100, 200), now_ms=RECORDED)
    before = await live_events(ours.store, ours.id)
    await ours.delete("p")
    await set_policy(ours)
    await carry_out(ours, folder)
    assert same(archived_events(folder), before)


async def test_a_key_outlives_the_event_it_was_sent_with(ours: Tenant, folder: Path) -> None:
    """W42."""
    await ours.create("p")
    old = event_row("p", "1", at_ms=NOW_MS - 100 * DAY_MS, key="k")
    gone = event_row("p", "2", at_ms=NOW_MS - 900 * DAY_MS, key="g")
    await ours.append(old, gone, now_ms=RECORDED)
    await set_policy(ours)
    await carry_out(ours, folder)
    assert await ours.event_data("p") == []
    assert [row.idempotency_key for row in archived_events(folder)] == ["k"]
    again = (row._replace(event_id=event_row("p").event_id) for row in (old, gone))
    written = await ours.append(*again)
    assert written.duplicates == {0: old.event_id, 1: gone.event_id}
    assert await ours.event_data("p") == []
    other = event_row("p", "3", at_ms=NOW_MS, key="k")
    assert (await ours.append(other)).refused == {0: "DUPLICATE_CONFLICT"}


async def test_rows_of_files_are_gone_past_archive_days_and_the_others_stay_as_they_are(
    ours: Tenant, folder: Path
) -> None:
    everything = await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    archived = archived_events(folder)
    at_ms = NOW_MS + 100 * DAY_MS
    report = await carry_out(ours, folder, at_ms)
    left = [
        row
        for row in everything
        if at_ms - 365 * DAY_MS <= row.occurred_at_ms < at_ms - 90 * DAY_MS
    ]
    assert same(archived_events(folder), left)
    assert report.expired["events"] == len([row for row in archived if row not in left]) > 0
    files = await ours.store.archive.files(ours.id)
    assert sorted(file.path for file in files) == archive_files(folder)
    assert sum(file.rows for file in files) == len(left)
    assert [Folder(folder).problem_of(file) for file in files] == [None] * len(files)
    await carry_out(ours, folder, NOW_MS + 1_000 * DAY_MS)
    assert archive_files(folder) == []
    assert await ours.store.archive.files(ours.id) == []


@pytest.mark.clause("W53")
async def test_nothing_of_a_held_entity_leaves_or_is_deleted_from_anywhere(
    ours: Tenant, folder: Path
) -> None:
    await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    await ours.append(*events("p1", 100, 500), now_ms=RECORDED)
    held = await ours.event_data("p1")
    [entity] = [each for each in [await ours.entity("p1")] if each]
    kept = [row for row in archived_events(folder) if row.entity_id == entity.entity_id]
    await ours.place_hold("p1")
    report = await carry_out(ours, folder, NOW_MS + 1_000 * DAY_MS)
    assert await ours.event_data("p1") == held
    assert report.held["events"] == len(held)
    assert same(archived_events(folder), kept)
    assert await ours.event_data("p0") == []
    await ours.lift_hold("p1")
    await carry_out(ours, folder, NOW_MS + 1_000 * DAY_MS)
    assert await ours.event_data("p1") == []
    assert archive_files(folder) == []


@pytest.mark.clause("W53")
async def test_a_hold_covers_those_who_had_the_name_before(ours: Tenant, folder: Path) -> None:
    await ours.create("p")
    await ours.set_states(state_row("p", "1"))
    await ours.append(*events("p", 100), now_ms=RECORDED)
    await ours.delete("p", now_ms=NOW_MS - 50 * DAY_MS)
    await ours.create("p")
    await ours.place_hold("p")
    await set_policy(ours, events=(30, 30), states=(30, 30))
    report = await carry_out(ours, folder)
    assert not report.changed
    assert report.held == {"events": 1, "states": 1}


class Interposed:
    """An archive before whose n-th call of a method something else happens."""

    def __init__(
        self, archive: Any, method: str, first: Callable[[], Awaitable[object]], nth: int = 1
    ) -> None:
        self._archive = archive
        self._method = method
        self._first = first
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._archive, name)
        if name != self._method:
            return found

        async def interposed(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                await self._first()
            return await found(*arguments)

        return interposed


async def interposed_run(
    tenant: Tenant,
    store: Store,
    folder: Path,
    method: str,
    first: Callable[[], Awaitable[object]],
    nth: int = 1,
) -> Any:
    """A run during which something else happens, before its n-th call of a method of the archive."""
    store.archive = Interposed(store.archive, method, first, nth)
    return await carry_out(tenant.through(store), folder)


@pytest.mark.clause("W53")
async def test_what_is_held_while_its_file_is_being_emptied_into_stays_where_it_is(
    ours: Tenant, folder: Path, reopen: Opener
) -> None:
    await ours.create("p0", "p1")
    for name in ("p0", "p1"):
        await ours.append(*events(name, *range(100, 115)), now_ms=RECORDED)
    everything = await live_events(ours.store, ours.id)
    await set_policy(ours)
    report = await interposed_run(
        ours, await reopen(), folder, "remove_events", lambda: ours.place_hold("p1"), nth=2
    )
    assert report.held["events"] > 0
    await ours.lift_hold("p1")
    hot, archived = await live_events(ours.store, ours.id), archived_events(folder)
    assert hot
    assert same(hot + archived, everything)
    assert {file.state for file in await ours.store.archive.files(ours.id)} == {"kept"}


@pytest.mark.clause("W53")
async def test_what_is_held_while_rows_are_being_deleted_is_not_deleted(
    ours: Tenant, folder: Path, reopen: Opener
) -> None:
    await ours.create("p0", "p1")
    for name in ("p0", "p1"):
        await ours.append(*events(name, *range(400, 415)), now_ms=RECORDED)
    await set_policy(ours)
    await interposed_run(
        ours, await reopen(), folder, "remove_events", lambda: ours.place_hold("p1"), nth=2
    )
    assert await ours.event_data("p0") == []
    assert len(await ours.event_data("p1")) >= 10


async def test_an_erasure_while_a_file_is_being_filled_changes_nothing_about_it(
    ours: Tenant, folder: Path, reopen: Opener
) -> None:
    everything = await fill(ours)
    await set_policy(ours)
    await interposed_run(
        ours, await reopen(), folder, "remove_events", lambda: ours.delete("p1"), nth=3
    )
    assert same(archived_events(folder), aged(everything, 90, 365))
    assert same(await live_events(ours.store, ours.id), aged(everything, 0, 90))


async def test_while_somebody_has_the_lease_another_run_does_nothing(
    ours: Tenant, theirs: Tenant, folder: Path
) -> None:
    await fill(ours)
    await set_policy(ours)
    lease = Lease(ours.id, "somebody", now_ms() + 60_000)
    assert await ours.store.archive.take_lease(lease, now_ms())
    with pytest.raises(Busy):
        await carry_out(ours, folder)
    assert archive_files(folder) == []
    assert not (await carry_out(theirs, folder)).changed
    await ours.store.archive.end_lease(lease, None)
    assert (await carry_out(ours, folder)).changed


async def test_a_run_that_lost_its_lease_changes_nothing_any_more(
    ours: Tenant, folder: Path, reopen: Opener
) -> None:
    """As one that was frozen: it wakes with a file to put into the manifest, and another has been there."""
    everything = await fill(ours)
    await set_policy(ours)
    other = await reopen()

    async def take_over() -> None:
        await asyncio.sleep(0.01)
        assert (await carried_out(other, ours.id, folder, NOW_MS)).changed

    for nth in (2, 4):
        with pytest.raises(LeaseLost):
            await interposed_run(ours, await reopen(), folder, "put_files", take_over, nth=nth)
        assert same(await live_events(ours.store, ours.id), aged(everything, 0, 90))
        known = {file.path for file in await ours.store.archive.files(ours.id)}
        assert known <= set(archive_files(folder))
        break


@pytest.mark.parametrize("method", ["put_files", "remove_events", "forget_file"])
async def test_without_the_lease_no_method_changes_anything(ours: Tenant, method: str) -> None:
    archive = ours.store.archive
    assert await archive.take_lease(Lease(ours.id, "new", NOW_MS + 2), NOW_MS + 1)
    lost = Lease(ours.id, "old", NOW_MS + 9)
    argument: Any = "id" if method == "forget_file" else []
    with pytest.raises(LeaseLost):
        await getattr(archive, method)(lost, argument)
    with pytest.raises(LeaseLost):
        await archive.renew_lease(lost)
    await archive.end_lease(lost, NOW_MS)
    record = await archive.lease(ours.id)
    assert record is not None
    assert (record.holder, record.expires_at_ms, record.finished_at_ms) == ("new", NOW_MS + 2, None)


async def test_a_lease_is_taken_over_once_it_has_expired(ours: Tenant) -> None:
    archive = ours.store.archive
    assert await archive.take_lease(Lease(ours.id, "a", NOW_MS + 10), NOW_MS)
    assert not await archive.take_lease(Lease(ours.id, "b", NOW_MS + 20), NOW_MS + 9)
    assert await archive.take_lease(Lease(ours.id, "b", NOW_MS + 20), NOW_MS + 10)
    await archive.end_lease(Lease(ours.id, "b", 0), NOW_MS + 12)
    record = await archive.lease(ours.id)
    assert record is not None
    assert (record.holder, record.finished_at_ms) == ("", NOW_MS + 12)
    assert await archive.take_lease(Lease(ours.id, "a", NOW_MS + 30), NOW_MS + 13)


async def test_events_that_arrive_during_a_run_are_neither_lost_nor_doubled(
    ours: Tenant, folder: Path, reopen: Opener
) -> None:
    await fill(ours)
    await set_policy(ours)
    sender = ours.through(await reopen())
    sent = 0
    done = asyncio.Event()

    async def ingest() -> None:
        nonlocal sent
        while not done.is_set() and sent < 120:
            rows = events(f"p{sent % 3}", 10, 100, 400)
            # Some of them are settled at once: as old as those that the run is about to take.
            await sender.append(*rows, now_ms=RECORDED if sent % 2 else NOW_MS)
            sent += len(rows)

    before = len(await live_events(ours.store, ours.id))
    task = asyncio.create_task(ingest())
    deleted = 0
    for _ in range(3):
        deleted += (await carry_out(ours, folder)).deleted["events"]
    done.set()
    await task
    hot, archived = await live_events(ours.store, ours.id), archived_events(folder)
    ids = [row.event_id for row in hot + archived]
    assert len(ids) == len(set(ids)) == before + sent - deleted
    assert {row.data for row in hot} & set(AWKWARD) == set()


async def test_a_run_that_is_stopped_ends_between_two_files(ours: Tenant, folder: Path) -> None:
    everything = await fill(ours)
    await set_policy(ours)
    stop = asyncio.Event()
    run = Run(
        ours.store,
        Folder(folder),
        await operator_of(ours),
        actor="cli:test",
        stop=stop,
        show=lambda progress: stop.set() if progress.step == "moving" else None,
        pace=SMALL,
    )
    report = await run.perform(NOW_MS)
    assert report.stopped
    assert report.files == 1
    [file] = await ours.store.archive.files(ours.id)
    assert file.state == "kept"
    assert archive_files(folder) == [file.path]
    record = await ours.store.archive.lease(ours.id)
    assert record is not None
    assert (record.holder, record.finished_at_ms) == ("", None)
    await carry_out(ours, folder)
    assert same(archived_events(folder), aged(everything, 90, 365))


async def test_a_full_disk_ends_the_run_and_loses_nothing(ours: Tenant, tmp_path: Path) -> None:
    everything = await fill(ours)
    await set_policy(ours)
    (tmp_path / "full").write_text("where the archive directory should be")
    with pytest.raises(Unavailable, match="archive directory cannot be used"):
        await carry_out(ours, tmp_path / "full")
    kept = aged(everything, 0, 365)
    assert same(await live_events(ours.store, ours.id), kept)
    await carry_out(ours, tmp_path / "archive")
    assert same(archived_events(tmp_path / "archive"), aged(everything, 90, 365))
    assert {file.state for file in await ours.store.archive.files(ours.id)} == {"kept"}


@pytest.mark.parametrize("damage", ["missing", "changed"])
async def test_a_file_that_is_not_what_was_written_is_reported_and_not_touched(
    ours: Tenant, folder: Path, damage: str
) -> None:
    await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    file = folder / archive_files(folder)[0]
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    report = await carry_out(ours, folder, NOW_MS + 1_000 * DAY_MS)
    [problem] = report.problems
    assert str(file.relative_to(folder)) in problem
    assert len(await ours.store.archive.files(ours.id)) == 1


async def test_a_file_that_is_in_no_manifest_is_never_touched(ours: Tenant, folder: Path) -> None:
    await fill(ours)
    await set_policy(ours)
    stranger = folder / str(ours.id) / "events" / "2020-01" / "x.parquet"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"of an earlier life of this database")
    await carry_out(ours, folder, NOW_MS + 1_000 * DAY_MS)
    assert stranger.exists()


async def test_without_the_file_it_was_filling_an_interrupted_run_is_not_taken_up(
    ours: Tenant, folder: Path, tmp_path: Path
) -> None:
    everything = await fill(ours)
    await set_policy(ours)

    class Killed(BaseException):
        pass

    def kill(progress: Any) -> None:
        if progress.step == "moving":
            raise Killed

    with pytest.raises(Killed):
        await carry_out(ours, folder, show=kill)
    with pytest.raises(ArchiveDamaged, match="run it where that file is"):
        await carry_out(ours, tmp_path / "another host")
    assert same(await live_events(ours.store, ours.id), aged(everything, 0, 365))
    assert (await carry_out(ours, folder)).taken_up == 1
    assert same(archived_events(folder), aged(everything, 90, 365))


async def test_an_entity_with_more_events_than_a_page_and_a_walk_longer_than_one_lose_none(
    ours: Tenant, folder: Path
) -> None:
    many = [f"many{number:04}" for number in range(1_003)]
    await ours.create(*many[:1_000])
    await ours.create(*many[1_000:])
    await ours.append(
        *(event_row(name, at_ms=NOW_MS - 100 * DAY_MS) for name in many), now_ms=RECORDED
    )
    same_moment = [event_row("many0500", str(at), at_ms=NOW_MS - 101 * DAY_MS) for at in range(120)]
    await ours.append(*same_moment, now_ms=RECORDED)
    everything = await live_events(ours.store, ours.id)
    assert len(everything) == 1_123
    await set_policy(ours)
    await carry_out(ours, folder, pace=Pace(file_rows=1_000, page_rows=50, step_rows=500, rest=0))
    assert same(archived_events(folder), everything)


async def test_a_run_is_recorded_in_the_audit_log(ours: Tenant, folder: Path) -> None:
    await fill(ours)
    await set_policy(ours)
    report = await carry_out(ours, folder)
    [entry] = [
        each
        for each in await ours.store.audit.chain(ours.id, after=0, limit=100)
        if each.action == "retention.run"
    ]
    assert entry.actor == "cli:test"
    assert f'"archived":{{"events":{report.archived["events"]}}}' in entry.detail
    await carry_out(ours, folder)
    assert len(await ours.store.audit.chain(ours.id, after=entry.seq, limit=100)) == 0


async def test_a_preview_counts_by_month_what_a_run_then_does(ours: Tenant, folder: Path) -> None:
    everything = await fill(ours)
    await set_policy(ours)
    await ours.place_hold("p2")
    [due] = (await preview(ours.store, await operator_of(ours), NOW_MS)).due
    held = [row for row in due.tallies if row.held]
    going = [row for row in due.tallies if not row.held]
    assert sum(row.rows for row in held) == len(aged(everything, 90)) / 3
    months = {row.month for row in going}
    assert all(len(month) == 7 for month in months)
    assert len(months) > 3
    assert same(
        await live_events(ours.store, ours.id), [r for r in everything if '"p2-' not in r.data]
    )
    report = await carry_out(ours, folder)
    assert report.archived["events"] == sum(row.rows for row in going if not row.gone)
    assert report.deleted["events"] == sum(row.rows for row in going if row.gone)
    size = sum(len(row.data.encode()) for row in aged(everything, 90) if '"p2-' not in row.data)
    assert sum(row.size_bytes for row in going) == size


@pytest.mark.clause("W53")
@pytest.mark.parametrize("nth", [5, 6])
async def test_what_an_interrupted_move_has_deleted_stays_in_the_file_when_it_is_held_by_then(
    ours: Tenant, folder: Path, reopen: Opener, nth: int
) -> None:
    everything = await fill(ours)
    await set_policy(ours)

    async def cut() -> None:
        raise Unavailable

    with pytest.raises(Unavailable):
        await interposed_run(ours, await reopen(), folder, "remove_events", cut, nth=nth)
    for name in ("p0", "p1", "p2"):
        await ours.place_hold(name)
    await carry_out(ours, folder)
    for name in ("p0", "p1", "p2"):
        await ours.lift_hold(name)
    hot, archived = await live_events(ours.store, ours.id), archived_events(folder)
    left = {row.event_id for row in hot + archived}
    assert {row.event_id for row in aged(everything, 0, 365)} <= left
    assert len(hot + archived) == len(left)


@pytest.mark.parametrize("nth", [3, 4, 5])
async def test_an_erasure_while_a_file_is_being_read_for_puts_no_row_into_it_twice(
    ours: Tenant, folder: Path, reopen: Opener, nth: int
) -> None:
    everything = await fill(ours, ages=range(100, 130))
    await set_policy(ours)
    store = await reopen()
    archive: Any = Interposed(store.archive, "old_events", lambda: ours.delete("p1"), nth)
    store.archive = archive
    pace = Pace(file_rows=1_000, page_rows=16, step_rows=10, rest=0)
    await carry_out(ours.through(store), folder, pace=pace)
    assert same(archived_events(folder), everything)


async def test_files_and_pages_are_bounded_by_bytes(ours: Tenant, folder: Path) -> None:
    await ours.create("a", "b")
    data = '{"of":"' + "x" * 1_000_000 + '"}'
    for name in ("a", "b"):
        rows = [event_row(name, data, at_ms=NOW_MS - 100 * DAY_MS + at) for at in range(6)]
        await ours.append(*rows, now_ms=RECORDED)
    page = await ours.store.archive.old_events(ours.id, ALWAYS, None, 2_000)
    assert len(page.rows) == PAGE_BYTES // len(data) + 1
    everything = await live_events(ours.store, ours.id)
    await set_policy(ours)
    await carry_out(ours, folder, pace=Pace(file_bytes=6_000_000, rest=0))
    assert same(archived_events(folder), everything)
    files = await ours.store.archive.files(ours.id)
    assert len(files) == 2
    assert sum(map(payload_bytes, everything)) > 12_000_000


async def test_pages_of_states_end_with_an_entity(ours: Tenant, folder: Path) -> None:
    names = ["a", "b", "c", "d"]
    await ours.create(*names)
    for name in names:
        rows = [state_row(name, '"' + "x" * 1_500_000 + '"', key=key) for key in ("k", "l")]
        await ours.set_states(*rows)
        await ours.delete(name, now_ms=NOW_MS - 40 * DAY_MS)
    span = replace(ALWAYS, kind="states")
    page = await ours.store.archive.old_states(ours.id, span, None, 100)
    assert len(page.rows) == 4
    await set_policy(ours, events=None, states=(30, 60))
    await carry_out(ours, folder)
    assert len(archived_states(folder)) == 8


async def test_want_of_memory_is_told_as_such(
    ours: Tenant, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opdata.retention.parquet._MEMORY", "1MB")
    everything = await fill(ours)
    await set_policy(ours)
    with pytest.raises(Unavailable, match="of memory"):
        await carry_out(ours, folder)
    assert same(await live_events(ours.store, ours.id), aged(everything, 0, 365))


@pytest.mark.clause("W53")
async def test_what_is_held_while_files_are_thinned_stays_in_them(
    ours: Tenant, folder: Path, reopen: Opener
) -> None:
    await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    entity = await ours.entity("p1")
    assert entity is not None
    store = await reopen()
    archive: Any = Interposed(store.archive, "put_files", lambda: ours.place_hold("p1"), 2)
    store.archive = archive
    files = await ours.store.archive.files(ours.id)
    before = archived_events(folder)
    await carry_out(ours.through(store), folder, NOW_MS + 1_000 * DAY_MS)
    kept = [row for row in archived_events(folder) if row.entity_id == entity.entity_id]
    # Of the first file nothing was held yet.
    first_ms = files[0].newest_ms
    assert kept
    held = [r for r in before if r.entity_id == entity.entity_id and r.occurred_at_ms > first_ms]
    assert {row.event_id for row in held} <= {row.event_id for row in kept}


async def test_without_its_volume_no_file_that_leaves_is_forgotten(
    ours: Tenant, folder: Path
) -> None:
    await fill(ours)
    await set_policy(ours)
    await carry_out(ours, folder)
    file = (await ours.store.archive.files(ours.id))[0]
    lease = Lease(ours.id, "x", now_ms() + 60_000)
    assert await ours.store.archive.take_lease(lease, now_ms())
    await ours.store.archive.put_files(lease, [replace(file, state="leaving")])
    await ours.store.archive.end_lease(lease, None)
    volume = folder.with_name("elsewhere")
    os.rename(folder, volume)  # noqa: PTH104 - a test may block
    for _ in ("missing", "empty"):
        with pytest.raises(Unavailable, match="missing or empty"):
            await carry_out(ours, folder)
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    os.rmdir(folder)  # noqa: PTH106
    os.rename(volume, folder)  # noqa: PTH104
    assert (await carry_out(ours, folder)).taken_up == 1
    assert not (folder / file.path).exists()


async def test_a_lease_of_a_clock_that_was_ahead_holds_nobody_up(ours: Tenant) -> None:
    ahead = NOW_MS + 365 * DAY_MS
    assert await ours.store.archive.take_lease(Lease(ours.id, "dead", ahead + 60_000), ahead)
    assert await ours.store.archive.take_lease(Lease(ours.id, "next", NOW_MS + 60_000), NOW_MS)


async def operator_of(tenant: Tenant) -> Any:
    return await tenant.store.operator(tenant.id)
