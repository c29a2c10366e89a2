"""Nothing of another operator is visible, not even that it exists."""

from __future__ import annotations

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import batch_of, data_of, error_of
from tests.wire.database import row_counts

pytestmark = pytest.mark.clause("W3")


@pytest.fixture
async def their_job(other_api: Api) -> str:
    """Another operator has a player `theirs` with an event and a state; the job that made it."""
    answer = await other_api.post("/batch/entities", [player("theirs")])
    await other_api.post("/batch/events", [deposit("theirs", 1, idempotencyKey="k")])
    await other_api.post("/batch/states", [state("theirs", 1)])
    return str(answer.json()["data"]["jobId"])


async def test_what_is_theirs_is_answered_like_what_does_not_exist(
    api: Api, their_job: str
) -> None:
    before = row_counts(api)
    paths = [
        ("GET", "/entities/{}"),
        ("DELETE", "/entities/{}"),
        ("GET", "/entities/{}/events"),
        ("POST", "/entities/{}/events"),
        ("GET", "/entities/{}/state"),
        ("GET", "/entities/{}/state/balance"),
        ("PUT", "/entities/{}/state/balance"),
    ]
    event = {name: value for name, value in deposit("").items() if name != "externalId"}
    for method, path in paths:
        body = event if method == "POST" else 1
        headers = {"X-Request-Id": "same"}
        theirs = await api.request(method, path.format("theirs"), json=body, headers=headers)
        nobodys = await api.request(method, path.format("nobodys"), json=body, headers=headers)
        error_of(theirs, 404, "NOT_FOUND")
        assert theirs.content == nobodys.content
        assert theirs.headers.keys() == nobodys.headers.keys()
    job = await api.get(f"/batch/jobs/{their_job}")
    assert job.content == (await api.get("/batch/jobs/job_0000000000000000")).content
    error_of(job, 404, "NOT_FOUND")
    assert row_counts(api) == before


async def test_items_for_their_entities_are_not_found(api: Api, their_job: str) -> None:
    before = row_counts(api)
    for path, item in (("events", deposit("theirs")), ("states", state("theirs", 2))):
        data = batch_of(await api.post(f"/batch/{path}", [item]), 1)
        assert data["errors"][0]["code"] == "NOT_FOUND"
    assert row_counts(api) == before


async def test_lists_hold_ones_own_alone(api: Api, their_job: str) -> None:
    assert await api.data("/entities") == {"items": [], "nextCursor": None}
    assert await api.data("/batch/jobs") == {"items": [], "nextCursor": None}


async def test_two_operators_may_use_the_same_ids(api: Api, other_api: Api, their_job: str) -> None:
    made = data_of(await api.post("/entities", player("theirs", country="MT")), 201)
    assert made["action"] == "created"
    mine = deposit("theirs", 2, idempotencyKey="k")
    assert "duplicates" not in batch_of(await api.post("/batch/events", [mine]), 1)

    assert (await api.data("/entities/theirs"))["data"]["country"] == "MT"
    assert (await other_api.data("/entities/theirs"))["data"]["country"] == "GB"
    [event] = (await other_api.data("/entities/theirs/events"))["items"]
    assert event["data"]["amount"] == 1
    data_of(await api.delete("/entities/theirs"))
    assert (await other_api.get("/entities/theirs")).status_code == 200
    assert (await other_api.data("/entities/theirs/state/balance"))["value"] == 1


async def test_settings_are_ones_own(api: Api, other_api: Api) -> None:
    data_of(await api.put("/settings", {"dataRetentionDays": 7}))
    assert (await api.data("/settings"))["dataRetentionDays"] == 7
    assert (await other_api.data("/settings"))["dataRetentionDays"] is None
