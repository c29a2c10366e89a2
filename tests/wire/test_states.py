"""States: the latest value under each key, and observations that come late."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.support.api import Api, player, state
from tests.wire.answers import TIME, all_succeeded, batch_of, data_of, error_of
from tests.wire.database import change, row_counts, stored_states

KEYS = ["balance", "kyc_status", "loyalty_tier", "risk_score"]
VALUES = ['"verified"', "250.00", "true", "false", "{}", "[]", '{"amount":250.00}', '""', "0"]


def at(hour: int) -> str:
    return f"2026-01-01T{hour:02}:00:00.000Z"


@pytest.fixture(autouse=True)
async def player_p(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)


async def put(api: Api, body: Any, key: str = "balance") -> httpx2.Response:
    return await api.put(f"/entities/p/state/{key}", body)


async def balance(api: Api) -> Any:
    return (await api.data("/entities/p/state/balance"))["value"]


@pytest.mark.clause("W28")
async def test_any_value_but_null_is_taken(api: Api) -> None:
    for value in VALUES:
        item = f'{{"externalId":"p","stateKey":"balance","value":{value}}}'
        all_succeeded(await api.post("/batch/states", f"[{item}]".encode()), 1)
        assert stored_states(api) == {("p", "balance"): value}
        assert await balance(api) == json.loads(value)


@pytest.mark.clause("W28")
async def test_a_single_state_is_the_value_itself_or_an_object_of_it(api: Api) -> None:
    for value in VALUES:
        for body in (
            value,
            f'{{"value":{value}}}',
            f' {{ "value" : {value}, "observedAt": null }}',
        ):
            change(api, "DELETE FROM states")
            answer = data_of(await put(api, body.encode()))
            assert list(answer) == ["stateKey", "value"]
            assert answer == {"stateKey": "balance", "value": json.loads(value)}
            assert stored_states(api) == {("p", "balance"): value}


@pytest.mark.clause("W28")
async def test_an_object_with_more_than_value_is_the_value_itself(api: Api) -> None:
    for body in ('{"value":1,"currency":"GBP"}', '{"amount":1}', '{"observedAt":"x"}', "{}"):
        data_of(await put(api, body.encode()))
        assert stored_states(api) == {("p", "balance"): body}


@pytest.mark.clause("W22", "W28")
async def test_null_is_no_value(api: Api) -> None:
    for body in (b"null", b'{"value":null}', b' {"value": null} '):
        message = error_of(await put(api, body), 400, "VALIDATION_FAILED")
        assert message == 'Missing required field: "value"'
    assert stored_states(api) == {}


@pytest.mark.clause("W23", "W28")
async def test_a_single_state_needs_a_known_key_and_a_live_entity(api: Api) -> None:
    assert "mood" in error_of(await put(api, 1, key="mood"), 400, "VALIDATION_FAILED")
    answer = await api.put("/entities/nobody/state/balance", 1)
    assert error_of(answer, 404, "NOT_FOUND") == "Entity not found"
    error_of(await api.get("/entities/p/state/mood"), 404, "NOT_FOUND")
    missing = error_of(await api.get("/entities/p/state/balance"), 404, "NOT_FOUND")
    assert missing == "State not found"
    assert stored_states(api) == {}


@pytest.mark.clause("W28", "W48")
async def test_states_are_listed_by_key(api: Api) -> None:
    assert await api.data("/entities/p/state") == []
    for key in ("loyalty_tier", "balance", "risk_score", "kyc_status"):
        data_of(await put(api, {"value": key}, key=key))

    listed = await api.data("/entities/p/state")

    assert [one["stateKey"] for one in listed] == KEYS
    for one in listed:
        assert list(one) == ["stateKey", "value", "updated_at"]
        assert one["value"] == one["stateKey"]
        assert TIME.fullmatch(one["updated_at"])
        assert await api.data(f"/entities/p/state/{one['stateKey']}") == one
    assert len(stored_states(api)) == 4


@pytest.mark.clause("W28")
async def test_a_state_overwrites_and_says_when(api: Api) -> None:
    data_of(await put(api, 1))
    change(api, "UPDATE states SET updated_at_ms = updated_at_ms - 3600000")
    before = await api.data("/entities/p/state/balance")
    all_succeeded(await api.post("/batch/states", [state("p", 2)]), 1)
    after = await api.data("/entities/p/state/balance")
    assert after["value"] == 2
    assert after["updated_at"] > before["updated_at"]
    assert stored_states(api) == {("p", "balance"): "2"}


@pytest.mark.clause("W24")
async def test_of_states_under_one_key_the_last_valid_one_wins(api: Api) -> None:
    data_of(await api.post("/entities", player("q")), 201)
    items = [
        state("p", 1),
        state("q", 10),
        state("p", 2),
        state("p", 5, key="risk_score"),
        state("p", None),
        state("p", 3, observedAt="never"),
    ]
    data = batch_of(await api.post("/batch/states", items), 6)
    assert data["succeeded"] == 4
    assert [error["index"] for error in data["errors"]] == [4, 5]
    assert stored_states(api) == {
        ("p", "balance"): "2",
        ("q", "balance"): "10",
        ("p", "risk_score"): "5",
    }


@pytest.mark.clause("W23", "W24")
async def test_every_state_of_a_missing_entity_is_an_error_of_its_own(api: Api) -> None:
    items = [state("nobody", 1), state("p", 1), state("nobody", 2), state("p", 2)]
    data = batch_of(await api.post("/batch/states", items), 4)
    assert [(error["index"], error["externalId"], error["code"]) for error in data["errors"]] == [
        (0, "nobody", "NOT_FOUND"),
        (2, "nobody", "NOT_FOUND"),
    ]
    assert stored_states(api) == {("p", "balance"): "2"}


@pytest.mark.clause("W28")
async def test_an_older_observation_succeeds_and_changes_nothing(api: Api) -> None:
    all_succeeded(await api.post("/batch/states", [state("p", 1, observedAt=at(12))]), 1)
    change(api, "UPDATE states SET updated_at_ms = 0")

    all_succeeded(await api.post("/batch/states", [state("p", 2, observedAt=at(11))]), 1)
    data_of(await put(api, {"value": 3, "observedAt": at(10)}))
    data_of(await put(api, {"value": 4, "observedAt": "2026-01-01T12:59:59.999+01:00"}))

    assert await balance(api) == 1
    assert api.rows("SELECT value, updated_at_ms FROM states") == [("1", 0)]


@pytest.mark.clause("W28")
async def test_an_observation_of_the_same_time_or_later_overwrites(api: Api) -> None:
    data_of(await put(api, {"value": 1, "observedAt": at(12)}))
    data_of(await put(api, {"value": 2, "observedAt": at(12)}))
    assert await balance(api) == 2
    all_succeeded(await api.post("/batch/states", [state("p", 3, observedAt=at(13))]), 1)
    assert await balance(api) == 3
    # The older time counts from here on, not the time of the request.
    data_of(await put(api, {"value": 4, "observedAt": at(12)}))
    assert stored_states(api) == {("p", "balance"): "3"}


@pytest.mark.clause("W28")
async def test_a_state_without_a_time_overwrites_one_of_the_future(api: Api) -> None:
    data_of(await put(api, {"value": 1, "observedAt": "9999-01-01T00:00:00Z"}))
    data_of(await put(api, 2))
    assert await balance(api) == 2
    # It counts as observed when it was sent: what was observed before is older.
    data_of(await put(api, {"value": 3, "observedAt": at(12)}))
    data_of(await put(api, {"value": 4, "observedAt": "9998-01-01T00:00:00Z"}))
    assert stored_states(api) == {("p", "balance"): "4"}


@pytest.mark.clause("W24", "W28")
@pytest.mark.parametrize(
    ("hours", "winner"),
    [
        ([10, 12, 11], 1),
        ([12, 11, 12], 2),
        ([12, None, 11], 1),
        ([None, 11, 10], 0),
        ([10, 11, None], 2),
        ([8, 7, 6], None),
        ([8, 9, 7], 1),
        ([7, None, 8], 1),
    ],
)
async def test_observations_within_a_batch_take_effect_one_after_the_other(
    api: Api, hours: list[int | None], winner: int | None
) -> None:
    data_of(await api.post("/entities", player("q")), 201)
    for name in "pq":
        data_of(
            await api.put(
                f"/entities/{name}/state/balance", {"value": "stored", "observedAt": at(9)}
            )
        )
    observations = [{} if hour is None else {"observedAt": at(hour)} for hour in hours]

    items = [state("p", index, **observed) for index, observed in enumerate(observations)]
    all_succeeded(await api.post("/batch/states", items), len(items))
    for index, observed in enumerate(observations):
        all_succeeded(await api.post("/batch/states", [state("q", index, **observed)]), 1)

    expected = '"stored"' if winner is None else str(winner)
    assert stored_states(api) == {("p", "balance"): expected, ("q", "balance"): expected}


@pytest.mark.clause("W24", "W28")
async def test_what_follows_a_state_without_a_time_meets_that_one_and_not_the_stored_one(
    api: Api,
) -> None:
    data_of(await put(api, {"value": "stored", "observedAt": "9999-01-01T00:00:00Z"}))
    items = [state("p", 1), state("p", 2, observedAt="9998-01-01T00:00:00Z")]
    all_succeeded(await api.post("/batch/states", items), 2)
    assert stored_states(api) == {("p", "balance"): "2"}


@pytest.mark.clause("W28")
async def test_states_do_not_touch_their_entity(api: Api) -> None:
    before = await api.data("/entities/p")
    counts = row_counts(api)
    all_succeeded(await api.post("/batch/states", [state("p", 1)]), 1)
    assert row_counts(api) == {**counts, "states": 1}
    assert await api.data("/entities/p") == before
