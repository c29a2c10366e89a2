"""Listing all events and all states of an operator, a page at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from opdata.model import ListedEvent, ListedState
from opdata.storage import scans
from opdata.storage.reads import MAX_PAGE_BYTES, EventQuery, EventScan, JobQuery, StateScan
from opdata.storage.work import Reply
from tests.contract.tenant import NOW_MS, Tenant, entity_row, event_row, job_draft, state_row


async def events_of(tenant: Tenant, limit: int = 1_000, **query: Any) -> list[list[ListedEvent]]:
    """All pages, each with its events."""
    pages, after = [], None
    while True:
        scan = EventScan(limit=limit, after=after, **query)
        page = await tenant.store.all_events(tenant.id, scan)
        pages.append(list(page.rows))
        if page.next is None:
            return pages
        assert after is None or page.next > after
        after = page.next


async def states_of(tenant: Tenant, limit: int = 1_000, **query: Any) -> list[list[ListedState]]:
    pages, after = [], None
    while True:
        scan = StateScan(limit=limit, after=after, **query)
        page = await tenant.store.all_states(tenant.id, scan)
        pages.append(list(page.rows))
        if page.next is None:
            return pages
        assert after is None or page.next > after
        after = page.next


def shown(pages: Sequence[Sequence[ListedEvent]]) -> list[tuple[str, str]]:
    return [(one.external_id, one.event.data) for page in pages for one in page]


async def test_all_events_come_by_entity_and_oldest_first(ours: Tenant, theirs: Tenant) -> None:
    await ours.create("b", "a", "ä", "c")
    await theirs.create("a", "b")
    await theirs.append(event_row("a", '"theirs"'))
    await ours.append(
        event_row("c", "1", at_ms=NOW_MS + 5),
        event_row("a", "2", at_ms=NOW_MS + 1, key="k2"),
        event_row("c", "3", at_ms=NOW_MS - 5),
        event_row("a", "4", at_ms=NOW_MS + 1),
        event_row("ä", "5"),
    )
    [page] = await events_of(ours)
    assert shown([page]) == [("a", "2"), ("a", "4"), ("c", "3"), ("c", "1"), ("ä", "5")]
    assert [one.idempotency_key for one in page] == ["k2", None, None, None, None]
    first = page[0].event
    assert (first.occurred_at_ms, first.recorded_at_ms, first.event_type) == (
        NOW_MS + 1,
        NOW_MS,
        "session",
    )
    assert shown(await events_of(theirs)) == [("a", '"theirs"')]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 13, 100])
async def test_pages_of_any_size_hold_every_event_once_in_order(ours: Tenant, limit: int) -> None:
    names = [f"p{n:02}" for n in range(6)]
    await ours.create(*names)
    # Several of one moment, and one entity with more than a page of them.
    await ours.append(
        *(event_row(name, f"{n}", at_ms=NOW_MS + n // 2) for n in range(2) for name in names),
        *(event_row("p03", f"{n}", at_ms=NOW_MS + n // 3) for n in range(2, 30)),
    )
    pages = await events_of(ours, limit)
    assert all(len(page) <= limit for page in pages)
    assert shown(pages) == shown(await events_of(ours))
    assert len(shown(pages)) == 40
    assert [data for name, data in shown(pages) if name == "p03"] == [str(n) for n in range(30)]


async def test_all_events_keep_to_a_type_and_a_time(ours: Tenant) -> None:
    await ours.create("a", "b")
    await ours.append(
        *(event_row("a", str(n), at_ms=NOW_MS + n) for n in range(6)),
        event_row("b", "6", at_ms=NOW_MS + 3, event_type="bonus"),
    )
    assert shown(await events_of(ours, event_type="bonus")) == [("b", "6")]
    window = {"from_ms": NOW_MS + 2, "to_ms": NOW_MS + 5}
    for limit in (1, 2, 10):
        assert shown(await events_of(ours, limit, **window)) == [
            ("a", "2"),
            ("a", "3"),
            ("a", "4"),
            ("b", "6"),
        ]


async def test_erased_entities_have_neither_events_nor_states_to_list(ours: Tenant) -> None:
    await ours.create("a", "b")
    await ours.append(event_row("a", "1"), event_row("b", "2"))
    await ours.set_states(state_row("a", "1"), state_row("b", "2"))
    await ours.delete("a")
    await ours.create("a")
    assert shown(await events_of(ours)) == [("b", "2")]
    assert [one.external_id for page in await states_of(ours) for one in page] == ["b"]


async def test_a_page_walks_so_many_entities_and_no_more(
    ours: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlite", "postgres"):
        monkeypatch.setattr(f"opdata.storage.{module}.store.WALKED_ENTITIES", 10)
    assert scans.WALKED_ENTITIES == 5_000
    names = [f"p{n:02}" for n in range(35)]
    await ours.create(*names)
    await ours.append(event_row("p07", "1"), event_row("p34", "2"))
    await ours.set_states(state_row("p07", "1"), state_row("p34", "2"))
    assert [shown([page]) for page in await events_of(ours)] == [
        [("p07", "1")],
        [],
        [],
        [("p34", "2")],
    ]
    assert [len(page) for page in await states_of(ours)] == [1, 0, 0, 1]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_all_states_come_by_entity_and_key(ours: Tenant, theirs: Tenant, limit: int) -> None:
    await ours.create("b", "a", "c")
    await theirs.create("a")
    await theirs.set_states(state_row("a", '"theirs"'))
    await ours.set_states(
        state_row("b", "1", key="kyc_status", observed_at_ms=NOW_MS - 9),
        state_row("a", "2", key="kyc_status"),
        state_row("b", "3", key="balance"),
        state_row("a", "4", key="balance"),
    )
    found = [one for page in await states_of(ours, limit) for one in page]
    assert [(one.external_id, one.state.state_key, one.state.value) for one in found] == [
        ("a", "balance", "4"),
        ("a", "kyc_status", "2"),
        ("b", "balance", "3"),
        ("b", "kyc_status", "1"),
    ]
    assert [one.observed_at_ms for one in found] == [NOW_MS, NOW_MS, NOW_MS, NOW_MS - 9]
    by_key = [one for page in await states_of(ours, limit, state_key="balance") for one in page]
    assert [one.state.value for one in by_key] == ["4", "3"]


LARGE = '{"n":"' + "é" * (MAX_PAGE_BYTES // 4) + '"}'
"""Half a page."""


async def test_pages_of_large_rows_are_short_and_lose_none(ours: Tenant) -> None:
    names = [f"p{number}" for number in range(5)]
    await ours.upsert(*(entity_row(name, LARGE) for name in names))
    await ours.append(*(event_row(name, LARGE) for name in names for _ in range(2)))
    await ours.set_states(*(state_row(name, LARGE) for name in names))

    listed, after = [], None
    while True:
        page = await ours.store.entities(ours.id, entity_type=None, after=after, limit=100)
        listed.append([entity.external_id for entity in page.rows])
        if not page.more:
            break
        after = listed[-1][-1]
    events, states = await events_of(ours), await states_of(ours)
    own = await ours.store.events(ours.id, "p1", EventQuery(limit=100))

    assert [name for names in listed for name in names] == names
    assert [len(each) for each in listed] == [2, 2, 1]
    assert [event.external_id for page in events for event in page] == sorted(names * 2)
    assert max(map(len, events)) == 2
    assert [state.external_id for page in states for state in page] == names
    assert max(map(len, states)) == 2
    assert own is not None
    assert len(own.rows) == 2


async def test_pages_of_compressed_rows_may_be_shorter_and_lose_none(ours: Tenant) -> None:
    """A database that keeps rows compressed does not inflate a thousand of them to see which fit."""
    scattered = random.Random(1).randbytes(MAX_PAGE_BYTES // 24).hex()
    chunks = [scattered[at : at + 1024] for at in range(0, len(scattered), 1024)]
    twice = (
        '"' + "".join(chunk * 2 for chunk in chunks) + '"'
    )  # a sixth of a page, stored as a twelfth
    names = [f"p{number}" for number in range(5)]
    await ours.upsert(*(entity_row(name, twice) for name in names))
    await ours.append(*(event_row(name, twice) for name in names))
    await ours.set_states(*(state_row(name, twice) for name in names))

    listed, after = [], None
    while True:
        page = await ours.store.entities(ours.id, entity_type=None, after=after, limit=100)
        listed.append([entity.external_id for entity in page.rows])
        if not page.more:
            break
        after = listed[-1][-1]
    events, states = await events_of(ours), await states_of(ours)

    assert [name for names in listed for name in names] == names
    assert [event.external_id for page in events for event in page] == names
    assert [state.external_id for page in states for state in page] == names
    shortest = 2 if (await ours.store.report()).store == "postgresql" else 5
    assert [len(pages[0]) for pages in (listed, events, states)] == [shortest] * 3


async def test_pages_of_jobs_with_large_outputs_are_short_and_lose_none(ours: Tenant) -> None:
    for number in range(5):
        await ours.create(
            f"p{number}", job=job_draft(), reply=Reply(200, b"done", job_output=LARGE)
        )
    listed, before = [], None
    while True:
        page = await ours.store.jobs(JobQuery(100, ours.id, before=before))
        listed.append([job.job_id for job in page.rows])
        if not page.more:
            break
        before = (page.rows[-1].created_at_ms, page.rows[-1].job_id)
    assert len({job_id for page in listed for job_id in page}) == 5
    assert max(map(len, listed)) == 2
