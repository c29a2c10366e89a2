"""Events: appended in order, with the time they happened, to entities that exist."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.api import Api, deposit, player
from tests.wire.answers import EVENT_ID, TIME, all_succeeded, batch_of, data_of, error_of
from tests.wire.database import live_entities, row_counts, stored_events

EVERY_TYPE = [
    ("transaction", {"type": "deposit", "amount": 1, "currency": "GBP"}),
    ("game_activity", {"game_id": "g", "bet_amount": 0}),
    *((name, {}) for name in ("session", "bonus", "block", "support", "affiliate")),
]


@pytest.fixture(autouse=True)
async def player_p(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)


def event(**members: Any) -> dict[str, Any]:
    """A single event's body."""
    return {"eventType": "session", "data": {}, **members}


async def listed(api: Api, **params: Any) -> list[Any]:
    items = (await api.data("/entities/p/events", params=params))["items"]
    assert isinstance(items, list)
    return items


@pytest.mark.clause("W27")
async def test_a_single_event_is_appended(api: Api) -> None:
    answer = data_of(await api.post("/entities/p/events", event(data={"n": 1})), 201)

    assert list(answer) == ["id"]
    assert EVENT_ID.fullmatch(answer["id"])
    [found] = await listed(api)
    assert list(found) == ["id", "eventType", "data", "occurred_at", "recorded_at"]
    assert (found["id"], found["eventType"], found["data"]) == (answer["id"], "session", {"n": 1})
    assert found["occurred_at"] == found["recorded_at"]
    assert TIME.fullmatch(found["recorded_at"])
    assert stored_events(api) == [("p", "session", '{"n": 1}')]


@pytest.mark.clause("W27")
async def test_the_path_names_the_entity_and_not_the_body(api: Api) -> None:
    data_of(await api.post("/entities", player("q")), 201)
    data_of(await api.post("/entities/p/events", event(externalId="q")), 201)
    assert stored_events(api) == [("p", "session", "{}")]


@pytest.mark.clause("W27", "W48")
async def test_every_event_type_of_the_template_is_taken(api: Api) -> None:
    items = [{"externalId": "p", "eventType": name, "data": data} for name, data in EVERY_TYPE]
    all_succeeded(await api.post("/batch/events", items), len(items))
    for name, data in EVERY_TYPE:
        data_of(await api.post("/entities/p/events", event(eventType=name, data=data)), 201)
    assert [name for _, name, _ in stored_events(api)] == [name for name, _ in EVERY_TYPE] * 2


@pytest.mark.clause("W24", "W27")
async def test_the_same_event_twice_is_two_events(api: Api) -> None:
    all_succeeded(await api.post("/batch/events", [deposit("p"), deposit("p")]), 2)
    all_succeeded(await api.post("/batch/events", [deposit("p")]), 1)
    assert len({one["id"] for one in await listed(api)}) == 3
    assert len(stored_events(api)) == 3


@pytest.mark.clause("W27")
async def test_only_top_level_names_are_event_types(api: Api) -> None:
    data = {"type": "deposit", "amount": 1, "currency": "GBP"}
    for bad in ("transaction.deposit", "Transaction", "", "transaction ", "*"):
        batch = await api.post("/batch/events", [deposit("p") | {"eventType": bad}])
        single = await api.post("/entities/p/events", event(eventType=bad, data=data))
        [error] = batch_of(batch, 1)["errors"]
        assert error["code"] == "VALIDATION_FAILED"
        assert error_of(single, 400, "VALIDATION_FAILED") == error["message"]
    assert stored_events(api) == []


@pytest.mark.clause("W23", "W27")
async def test_events_without_an_entity_are_not_found(api: Api) -> None:
    data_of(await api.post("/entities", player("gone")), 201)
    data_of(await api.delete("/entities/gone"))
    items = [deposit("nobody"), deposit("p"), deposit("gone"), deposit("P")]

    data = batch_of(await api.post("/batch/events", items), 4)

    assert [(error["index"], error["externalId"], error["code"]) for error in data["errors"]] == [
        (0, "nobody", "NOT_FOUND"),
        (2, "gone", "NOT_FOUND"),
        (3, "P", "NOT_FOUND"),
    ]
    for name in ("nobody", "gone"):
        answer = await api.post(f"/entities/{name}/events", event())
        assert error_of(answer, 404, "NOT_FOUND") == "Entity not found"
    assert [external_id for external_id, *_ in stored_events(api)] == ["p"]
    assert live_entities(api) == ["p"]


@pytest.mark.clause("W27")
async def test_history_is_loaded_with_the_time_it_happened(api: Api) -> None:
    times = [f"20{year:02}-06-01T00:00:00.000Z" for year in (24, 19, 30, 22)]
    items = [deposit("p", n, occurredAt=time) for n, time in enumerate(times)]
    all_succeeded(await api.post("/batch/events", items), 4)
    data_of(await api.post("/entities/p/events", event(occurredAt=times[3])), 201)

    found = await listed(api)

    assert [one["occurred_at"] for one in found] == sorted([*times, times[3]], reverse=True)
    # Of one time, the one recorded later is the newer.
    of_one_time = [one["eventType"] for one in found if one["occurred_at"] == times[3]]
    assert of_one_time == ["session", "transaction"]
    assert api.rows("SELECT count(*) FROM events WHERE recorded_at_ms <> occurred_at_ms") == [(5,)]


@pytest.mark.clause("W27")
async def test_an_absent_time_and_a_null_one_are_the_time_of_the_request(api: Api) -> None:
    items = [deposit("p"), deposit("p", occurredAt=None), deposit("p", idempotencyKey=None)]
    all_succeeded(await api.post("/batch/events", items), 3)
    found = await listed(api)
    assert len({one["occurred_at"] for one in found}) == 1
    assert all(one["occurred_at"] == one["recorded_at"] for one in found)
    assert api.rows("SELECT count(*) FROM event_keys") == [(0,)]


BAD_TIMES = [
    "",
    "now",
    "2026-04-06",
    "2026-04-06T12:00:00",
    "2026-04-06 12:00:00Z",
    "2026-04-06T12:00Z",
    "2026-04-06T12:00:00+0200",
    "2026-04-06T12:00:00.Z",
    "2026-04-06T12:00:00.1234567890Z",
    "2026-02-30T12:00:00Z",
    "2025-02-29T12:00:00Z",
    "2026-13-01T12:00:00Z",
    "2026-04-06T24:00:01Z",
    "2026-04-06T12:60:00Z",
    "2026-04-06T12:00:00+25:00",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    # In UTC, where times are answered, these are in the years 0 and 10000.
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "٢٠٢٦-04-06T12:00:00Z",
    " 2026-04-06T12:00:00Z",
    "2026-04-06T12:00:00Z\n",
    "20260406T120000Z",
    "2026-W15-1T12:00:00Z",
    "1775476800",
]


@pytest.mark.clause("W6", "W22", "W27", "W28")
async def test_what_is_no_time_is_refused(api: Api) -> None:
    before = row_counts(api)
    items = [deposit("p", occurredAt=bad) for bad in BAD_TIMES]
    data = batch_of(await api.post("/batch/events", items), len(items))
    assert data["failed"] == len(items), data
    assert all('"occurredAt"' in error["message"] for error in data["errors"])

    states = [
        {"externalId": "p", "stateKey": "balance", "value": 1, "observedAt": bad}
        for bad in BAD_TIMES
    ]
    data = batch_of(await api.post("/batch/states", states), len(states))
    assert data["failed"] == len(states), data
    assert all('"observedAt"' in error["message"] for error in data["errors"])

    for bad in BAD_TIMES:
        for name in ("from", "to"):
            answer = await api.get("/entities/p/events", params={name: bad})
            assert f"'{name}'" in error_of(answer, 400, "INVALID_INPUT")
    assert row_counts(api) == before


@pytest.mark.clause("W24", "W27")
async def test_events_of_one_request_are_in_array_order(api: Api) -> None:
    items = [deposit("p", n) for n in range(1_500)]
    all_succeeded(await api.post("/batch/events", items), 1_500)
    found = await listed(api, limit=1_000)
    assert [one["data"]["amount"] for one in found] == list(range(1_499, 499, -1))
    assert [json.loads(data)["amount"] for *_, data in stored_events(api)] == list(range(1_500))


async def test_events_are_listed_by_type_and_time(api: Api) -> None:
    times = [f"2026-01-0{day}T00:00:00.000Z" for day in range(1, 6)]
    items = [deposit("p", n, occurredAt=time) for n, time in enumerate(times)]
    items += [{**deposit("p"), "eventType": "bonus", "occurredAt": times[2]}]
    all_succeeded(await api.post("/batch/events", items), 6)

    async def amounts(**params: str) -> list[int]:
        found = await listed(api, **params)
        return [one["data"]["amount"] for one in found if one["eventType"] == "transaction"]

    assert await amounts() == [4, 3, 2, 1, 0]
    assert [one["eventType"] for one in await listed(api, eventType="bonus")] == ["bonus"]
    assert await listed(api, eventType="nonsense") == []
    assert await amounts(**{"from": times[2]}) == [4, 3, 2]
    assert await amounts(to=times[2]) == [1, 0]
    assert await amounts(**{"from": times[1], "to": times[3]}) == [2, 1]
    assert await amounts(**{"from": "2026-01-02T02:00:00+02:00", "to": times[2]}) == [1]
    assert await amounts(**{"from": "2026-01-02T00:00:00.001Z", "to": times[2]}) == []
    assert await amounts(**{"from": times[3], "to": times[1]}) == []
    assert await amounts(**{"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"}) == [
        *(4, 3, 2, 1, 0)
    ]
