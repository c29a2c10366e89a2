"""Listing everything an operator has (W52)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support.api import Api, deposit, player
from tests.wire.answers import all_succeeded, data_of, error_of

pytestmark = pytest.mark.clause("W52")


@pytest.fixture(autouse=True)
async def rows(api: Api, other_api: Api) -> None:
    all_succeeded(await api.post("/batch/entities", [player("p2"), player("p1")]), 2)
    items = [
        deposit("p2", 10, occurredAt="2026-01-02T00:00:00Z", idempotencyKey="bet-1"),
        deposit("p1", 20, occurredAt="2026-01-03T00:00:00Z"),
        deposit("p1", 30, occurredAt="2026-01-01T00:00:00Z"),
    ]
    all_succeeded(await api.post("/batch/events", items), 3)
    states = [
        {"externalId": "p1", "stateKey": "balance", "value": {"amount": 1}},
        {
            "externalId": "p2",
            "stateKey": "kyc_status",
            "value": "verified",
            "observedAt": "2026-01-01T00:00:00Z",
        },
    ]
    all_succeeded(await api.post("/batch/states", states), 2)


async def test_all_events_are_listed_by_entity_oldest_first(api: Api, other_api: Api) -> None:
    page = await api.data("/events")
    assert page["nextCursor"] is None
    first = page["items"][0]
    assert first == {
        "id": first["id"],
        "externalId": "p1",
        "eventType": "transaction",
        "data": deposit("p1", 30)["data"],
        "occurred_at": "2026-01-01T00:00:00.000Z",
        "recorded_at": first["recorded_at"],
        "idempotencyKey": None,
    }
    assert [(one["externalId"], one["idempotencyKey"]) for one in page["items"]] == [
        ("p1", None),
        ("p1", None),
        ("p2", "bet-1"),
    ]
    assert (await other_api.data("/events"))["items"] == []


async def test_cursors_lead_through_all_of_it(api: Api) -> None:
    amounts: list[int] = []
    params: dict[str, Any] = {"limit": 1}
    while True:
        page = await api.data("/events", params=params)
        amounts += [one["data"]["amount"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        params["cursor"] = page["nextCursor"]
    assert amounts == [30, 20, 10]


async def test_events_are_listed_by_type_and_time(api: Api) -> None:
    window = {"from": "2026-01-02T00:00:00Z", "to": "2026-01-03T00:00:00Z"}
    found = await api.data("/events", params=window)
    assert [one["data"]["amount"] for one in found["items"]] == [10]
    assert (await api.data("/events", params={"eventType": "bonus"}))["items"] == []


async def test_all_states_are_listed_by_entity_and_key(api: Api, other_api: Api) -> None:
    page = await api.data("/states")
    balance, kyc = page["items"]
    assert page["nextCursor"] is None
    assert kyc == {
        "externalId": "p2",
        "stateKey": "kyc_status",
        "value": "verified",
        "observed_at": "2026-01-01T00:00:00.000Z",
        "updated_at": balance["updated_at"],
    }
    assert (balance["externalId"], balance["value"]) == ("p1", {"amount": 1})
    assert balance["observed_at"] == balance["updated_at"]
    only = await api.data("/states", params={"stateKey": "balance"})
    assert only["items"] == [balance]
    assert (await other_api.data("/states"))["items"] == []


@pytest.mark.parametrize("path", ["/events", "/states"])
async def test_an_erased_entity_is_listed_no_more(api: Api, path: str) -> None:
    data_of(await api.delete("/entities/p1"))
    assert {one["externalId"] for one in (await api.data(path))["items"]} == {"p2"}


@pytest.mark.parametrize("path", ["/entities", "/events", "/states"])
@pytest.mark.parametrize(
    "position",
    [rb'["p\u0000",1,1]', b"[1]", b'["p",4611686018427387905,0]', rb'"\u0000"', rb'["a","\u0000"]'],
)
async def test_a_cursor_of_another_make_is_refused(api: Api, path: str, position: bytes) -> None:
    cursor = base64.urlsafe_b64encode(position).decode().rstrip("=")
    answer = await api.get(path, params={"cursor": cursor})
    assert "'cursor'" in error_of(answer, 400, "INVALID_INPUT")
