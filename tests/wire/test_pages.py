"""Lists in pages: limits, cursors, and rows that are added between two pages."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.api import Api, deposit, player
from tests.wire.answers import all_succeeded, data_of, error_of

LISTS = ["/entities", "/entities/p000/events", "/batch/jobs"]


async def pages(api: Api, path: str, **params: Any) -> AsyncIterator[list[Any]]:
    """A list's pages, each with its items."""
    while True:
        page = await api.data(path, params=params)
        yield page["items"]
        if page["nextCursor"] is None:
            return
        params["cursor"] = page["nextCursor"]


async def walked(api: Api, path: str, **params: Any) -> list[Any]:
    """All items of all pages."""
    return [item async for page in pages(api, path, **params) for item in page]


@pytest.fixture(autouse=True)
async def many_rows(api: Api) -> None:
    """120 players and as many events of the first, a few of one time, in 5 jobs."""
    for batch in range(5):
        names = [f"p{n:03}" for n in range(batch * 24, batch * 24 + 24)]
        all_succeeded(await api.post("/batch/entities", [player(name) for name in names]), 24)
    times = [f"2026-01-01T00:{n % 40:02}:00Z" for n in range(120)]
    items = [deposit("p000", n, occurredAt=time) for n, time in enumerate(times)]
    all_succeeded(await api.post("/batch/events", items), 120)


async def test_a_walk_over_all_pages_sees_every_row_once(api: Api) -> None:
    for limit in (1, 7, 24, 119, 120, 121):
        found = await walked(api, "/entities", limit=limit)
        assert [one["externalId"] for one in found] == [f"p{n:03}" for n in range(120)]
    newest_first = sorted(range(120), key=lambda n: (n % 40, n), reverse=True)
    for limit in (1, 3, 39, 40, 1_000):
        found = await walked(api, "/entities/p000/events", limit=limit)
        assert [one["data"]["amount"] for one in found] == newest_first
    everything = await walked(api, "/batch/jobs")
    assert len(everything) == 5
    for limit in (1, 2, 5):
        assert await walked(api, "/batch/jobs", limit=limit) == everything


async def test_a_walk_keeps_to_its_filters(api: Api) -> None:
    game = {"entityType": "game", "externalId": "p0605", "data": {"name": "g"}}
    data_of(await api.post("/entities", game), 201)
    found = await walked(api, "/entities", limit=10, entityType="player")
    assert len(found) == 120
    window = {"from": "2026-01-01T00:10:00Z", "to": "2026-01-01T00:20:00Z"}
    events = await walked(api, "/entities/p000/events", limit=4, eventType="transaction", **window)
    assert [one["data"]["amount"] % 40 for one in events] == [
        minute for minute in range(19, 9, -1) for _ in range(3)
    ]
    jobs = await walked(api, "/batch/jobs", limit=2, status="completed")
    assert len(jobs) == 5


@pytest.mark.parametrize("path", LISTS)
async def test_rows_added_meanwhile_neither_repeat_nor_hide_others(api: Api, path: str) -> None:
    before = [one["id"] for one in await walked(api, path)]
    seen: list[str] = []
    round_ = 0
    async for page in pages(api, path, limit=2):
        seen += [one["id"] for one in page]
        if round_ < 3:
            # Before what was read, within it, and after it.
            names = [f"{prefix}{round_}" for prefix in ("a", "p0005", "z")]
            all_succeeded(await api.post("/batch/entities", [player(name) for name in names]), 3)
            times = ("2025-01-01T00:00:00Z", "2026-01-01T00:39:00Z", "2027-01-01T00:00:00Z")
            items = [deposit("p000", -1, occurredAt=time) for time in times]
            all_succeeded(await api.post("/batch/events", items), 3)
        round_ += 1
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in set(before)] == before


@pytest.mark.parametrize("path", LISTS)
async def test_a_page_has_a_hundred_items_unless_asked(api: Api, path: str) -> None:
    page = await api.data(path)
    total = 5 if path == "/batch/jobs" else 120
    assert len(page["items"]) == min(total, 100)
    assert (page["nextCursor"] is None) == (total <= 100)


@pytest.mark.parametrize("path", LISTS)
async def test_a_limit_lies_between_1_and_1000(api: Api, path: str) -> None:
    for limit in (1, 1_000):
        assert (await api.get(path, params={"limit": limit})).status_code == 200
    for bad in ("0", "-1", "1001", "9" * 30, "1.5", "ten", "", "٣", "null"):
        answer = await api.get(path, params={"limit": bad})
        assert "limit" in error_of(answer, 400, "INVALID_INPUT")


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


BAD_CURSORS = [
    "",
    "nonsense",
    "p000",
    "====",
    "é",
    "%00",
    encoded("{}"),
    encoded("null"),
    encoded("[]"),
    encoded("[1]"),
    encoded('[1,2,"x"]'),
    encoded('["1","2"]'),
    encoded(f"[{10**30},1]"),
    encoded("[1.5,2]"),
    encoded("5"),
    encoded("[" * 10_000),
]


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_that_was_not_given_out_is_refused(api: Api, path: str) -> None:
    cursors = [(await api.data(other, params={"limit": 1}))["nextCursor"] for other in LISTS]
    for bad in [*BAD_CURSORS, *(one for one, at in zip(cursors, LISTS, strict=True) if at != path)]:
        answer = await api.get(path, params={"cursor": bad})
        assert "cursor" in error_of(answer, 400, "INVALID_INPUT"), bad


@pytest.mark.parametrize("path", LISTS)
async def test_a_parameter_that_is_unknown_or_given_twice_is_refused(api: Api, path: str) -> None:
    for query in ("page=2", "Limit=5", "limit=5&limit=5", "limit=5&cursor=a&cursor=b"):
        error_of(await api.get(f"{path}?{query}"), 400, "INVALID_INPUT")


async def test_the_word_null_is_a_text_like_any_other(api: Api) -> None:
    for path in LISTS:
        for name in ("limit", "cursor"):
            error_of(await api.get(f"{path}?{name}=null"), 400, "INVALID_INPUT")
    for name in ("status", "type"):
        error_of(await api.get(f"/batch/jobs?{name}=null"), 400, "INVALID_INPUT")
    for path in ("/entities?entityType=null", "/entities/p000/events?eventType=null"):
        assert await api.data(path) == {"items": [], "nextCursor": None}


async def test_the_list_of_an_empty_operator_is_one_empty_page(other_api: Api) -> None:
    for path in ("/entities", "/batch/jobs"):
        assert await other_api.data(path) == {"items": [], "nextCursor": None}
