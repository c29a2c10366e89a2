"""An event's own idempotency key: recorded once, for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.api import Api, deposit, player
from tests.wire.answers import all_succeeded, batch_of, data_of, error_of
from tests.wire.database import change, row_counts, stored_events

pytestmark = pytest.mark.clause("W42")

TIME = "2026-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
async def players(api: Api) -> None:
    all_succeeded(await api.post("/batch/entities", [player("p"), player("q")]), 2)


def keyed(amount: int = 1, external_id: str = "p", **members: Any) -> dict[str, Any]:
    return deposit(external_id, amount, **{"idempotencyKey": "k", **members})


def amounts(api: Api) -> list[int]:
    return [json.loads(data)["amount"] for *_, data in stored_events(api)]


async def test_the_same_event_again_succeeds_and_writes_no_second_row(api: Api) -> None:
    first = all_succeeded(await api.post("/batch/events", [keyed()]), 1)
    assert "duplicates" not in first
    before = row_counts(api)
    again = all_succeeded(await api.post("/batch/events", [keyed(), deposit("p", 2)]), 2)
    assert list(again) == ["succeeded", "failed", "errors", "duplicates"]
    assert again["duplicates"] == 1
    assert row_counts(api) == {**before, "events": before["events"] + 1}
    assert amounts(api) == [1, 2]


@pytest.mark.clause("W22", "W23")
async def test_another_event_under_the_same_key_is_a_conflict(api: Api) -> None:
    all_succeeded(await api.post("/batch/events", [keyed()]), 1)
    items = [
        keyed(2),
        keyed(),
        keyed(external_id="q"),
        keyed(occurredAt=TIME),
        keyed() | {"eventType": "session"},
        keyed(2, idempotencyKey="other"),
    ]
    data = batch_of(await api.post("/batch/events", items), len(items))
    assert [(error["index"], error["externalId"]) for error in data["errors"]] == [
        (0, "p"),
        (2, "q"),
        (3, "p"),
        (4, "p"),
    ]
    assert {error["code"] for error in data["errors"]} == {"DUPLICATE_CONFLICT"}
    assert data["duplicates"] == 1
    assert amounts(api) == [1, 2]


@pytest.mark.clause("W24")
async def test_within_a_batch_the_first_one_counts(api: Api) -> None:
    items = [keyed(1), keyed(2), keyed(1), deposit("p", 3), keyed(1)]
    data = batch_of(await api.post("/batch/events", items), 5)
    assert [(error["index"], error["code"]) for error in data["errors"]] == [
        (1, "DUPLICATE_CONFLICT")
    ]
    assert (data["succeeded"], data["duplicates"]) == (4, 2)
    assert amounts(api) == [1, 3]
    assert api.rows("SELECT idempotency_key FROM event_keys") == [("k",)]


@pytest.mark.clause("W23", "W24")
async def test_an_event_that_was_refused_takes_no_key(api: Api) -> None:
    items = [keyed(external_id="nobody"), keyed() | {"data": {}}, keyed(5)]
    data = batch_of(await api.post("/batch/events", items), 3)
    assert [error["code"] for error in data["errors"]] == ["NOT_FOUND", "VALIDATION_FAILED"]
    assert "duplicates" not in data
    assert amounts(api) == [5]


@pytest.mark.clause("W40")
async def test_a_single_event_may_have_a_key_of_its_own(api: Api) -> None:
    event = keyed()
    first = data_of(await api.post("/entities/p/events", event), 201)
    again = await api.post("/entities/p/events", event)
    assert data_of(again, 200) == {"id": first["id"], "action": "duplicate"}
    # It is the store that knows the event, not a stored answer.
    assert "idempotent-replayed" not in again.headers
    # A batch counts it as the same event, too.
    assert batch_of(await api.post("/batch/events", [event]), 1)["duplicates"] == 1

    conflict = await api.post("/entities/p/events", keyed(2))
    message = error_of(conflict, 409, "CONFLICT")
    assert "idempotencyKey" in message
    assert "retry-after" not in conflict.headers
    assert amounts(api) == [1]


@pytest.mark.clause("W3")
async def test_a_key_is_unique_for_one_operator(api: Api, other_api: Api) -> None:
    all_succeeded(await api.post("/batch/events", [keyed(1)]), 1)
    data_of(await other_api.post("/entities", player("p")), 201)
    assert "duplicates" not in all_succeeded(await other_api.post("/batch/events", [keyed(2)]), 1)
    assert amounts(api) == [1, 2]
    assert api.rows("SELECT count(DISTINCT operator_id) FROM event_keys") == [(2,)]


async def test_a_key_is_taken_for_ever(api: Api) -> None:
    all_succeeded(await api.post("/batch/events", [keyed()]), 1)
    # Ten years on, past every retention of answers and events.
    change(api, "UPDATE events SET recorded_at_ms = 0, occurred_at_ms = 0")
    assert batch_of(await api.post("/batch/events", [keyed()]), 1)["duplicates"] == 1
    change(api, "DELETE FROM events")
    assert batch_of(await api.post("/batch/events", [keyed()]), 1)["duplicates"] == 1
    assert batch_of(await api.post("/batch/events", [keyed(2)]), 1)["failed"] == 1
    assert amounts(api) == []


async def test_white_space_and_time_zones_make_no_other_event_but_a_number_does(api: Api) -> None:
    def item(amount: str = "1.0", gap: str = "", time: str = TIME, members: str = "") -> bytes:
        data = f'{{"type":"deposit",{gap}"amount":{gap}{amount},"note":"a b"}}'
        data = data.replace("}", ',"currency":"GBP"}')
        text = f'"externalId":"p","eventType":"transaction","data":{data},"idempotencyKey":"k"'
        return f'[{{{text},"occurredAt":"{time}"{members}}}]'.encode()

    all_succeeded(await api.post("/batch/events", item()), 1)
    for same in (
        item(),
        item(gap=" \n\t"),
        item(time="2026-01-01T01:00:00.000+01:00"),
        item(members=',"more":1'),
    ):
        assert batch_of(await api.post("/batch/events", same), 1)["duplicates"] == 1
    for different in (
        item("1.00"),
        item("1"),
        item().replace(b"a b", b"a  b"),
        item().replace(b'"type":"deposit","amount":1.0', b'"amount":1.0,"type":"deposit"'),
        item(time="2026-01-01T00:00:00.001Z"),
    ):
        [error] = batch_of(await api.post("/batch/events", different), 1)["errors"]
        assert error["code"] == "DUPLICATE_CONFLICT"
    assert len(stored_events(api)) == 1


async def test_an_absent_time_is_another_content_than_any_time(api: Api) -> None:
    all_succeeded(await api.post("/batch/events", [keyed()]), 1)
    [event] = (await api.data("/entities/p/events"))["items"]
    for same in (keyed(), keyed(occurredAt=None)):
        assert batch_of(await api.post("/batch/events", [same]), 1)["duplicates"] == 1
    again = keyed(occurredAt=event["occurred_at"])
    assert batch_of(await api.post("/batch/events", [again]), 1)["failed"] == 1
    assert amounts(api) == [1]


async def test_a_key_may_be_any_text(api: Api) -> None:
    keys = ["x" * 255, "a b", "schlüssel", "😀", " ", "\u2028", "K", "\u212a"]
    items = [keyed(n, idempotencyKey=key) for n, key in enumerate(keys)]
    assert "duplicates" not in all_succeeded(await api.post("/batch/events", items), len(keys))
    again = all_succeeded(await api.post("/batch/events", items), len(keys))
    assert again["duplicates"] == len(keys)
    stored = api.rows("SELECT idempotency_key FROM event_keys")
    assert sorted(stored) == sorted((key,) for key in keys)


@pytest.mark.clause("W22")
async def test_a_key_that_is_none_costs_its_item(api: Api) -> None:
    bad: list[Any] = ["", "x" * 256, "a\nb", "\x00", 5, [], False]
    items = [*(keyed(idempotencyKey=key) for key in bad), deposit("p")]
    data = batch_of(await api.post("/batch/events", items), len(items))
    assert [error["index"] for error in data["errors"]] == list(range(len(bad)))
    assert {error["code"] for error in data["errors"]} == {"VALIDATION_FAILED"}
    assert amounts(api) == [10]
    assert api.rows("SELECT count(*) FROM event_keys") == [(0,)]
