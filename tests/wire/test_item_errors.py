"""What is wrong with an item of a batch, in the words that the contract has for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import batch_of, data_of, error_of
from tests.wire.cases import BadItem, bad_items
from tests.wire.database import live_entities, row_counts, stored_events, stored_states

pytestmark = pytest.mark.clause("W22", "W23")

CANARY = "canary-91d4"


def batch(first: Any, bad: list[BadItem], last: Any) -> bytes:
    """The bad items between two good ones."""
    texts = [json.dumps(first), *(one.text(CANARY) for one in bad), json.dumps(last)]
    return f"[{','.join(texts)}]".encode()


def check_errors(data: Any, bad: list[BadItem]) -> None:
    got = [(one["externalId"], one["code"], one["message"]) for one in data["errors"]]
    assert got == [(one.external_id, one.code, one.message) for one in bad]
    assert [one["index"] for one in data["errors"]] == list(range(1, len(bad) + 1))


@pytest.mark.clause("W26")
async def test_each_bad_entity_has_its_error(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    bad = bad_items("entity")
    answer = await api.post("/batch/entities", batch(player("a"), bad, player("z")))

    data = batch_of(answer, len(bad) + 2)
    check_errors(data, bad)
    assert live_entities(api) == ["a", "z"]
    # Not in the answer, not in the job that keeps it, not in the log.
    job = await api.get(f"/batch/jobs/{data['jobId']}")
    assert job.json()["data"]["output"]["errors"] == data["errors"]
    assert CANARY not in answer.text + job.text + "".join(capsys.readouterr())


@pytest.mark.clause("W27")
async def test_each_bad_event_has_its_error(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    bad = bad_items("event")
    data_of(await api.post("/entities", player("p")), 201)

    answer = await api.post("/batch/events", batch(deposit("p", 1), bad, deposit("p", 2)))

    check_errors(batch_of(answer, len(bad) + 2), bad)
    assert [json.loads(data)["amount"] for *_, data in stored_events(api)] == [1, 2]
    assert CANARY not in answer.text + "".join(capsys.readouterr())


@pytest.mark.clause("W28")
async def test_each_bad_state_has_its_error(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    bad = bad_items("state")
    data_of(await api.post("/entities", player("p")), 201)
    first, last = state("p", 1), state("p", 2, key="risk_score")

    answer = await api.post("/batch/states", batch(first, bad, last))

    check_errors(batch_of(answer, len(bad) + 2), bad)
    assert stored_states(api) == {("p", "balance"): "1", ("p", "risk_score"): "2"}
    assert CANARY not in answer.text + "".join(capsys.readouterr())


@pytest.mark.parametrize("kind", ["entity", "event", "state"])
async def test_an_item_is_refused_alone_as_in_company(api: Api, kind: str) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    path = {"entity": "/batch/entities", "event": "/batch/events", "state": "/batch/states"}[kind]
    before = row_counts(api)
    for bad in bad_items(kind):
        answer = await api.post(path, f"[{bad.text(CANARY)}]".encode())
        [error] = batch_of(answer, 1)["errors"]
        assert (error["code"], error["message"]) == (bad.code, bad.message), bad.name
        assert CANARY not in answer.text
    unchanged = {**before, "jobs": row_counts(api)["jobs"]}
    assert row_counts(api) == unchanged


async def test_a_single_item_is_refused_with_the_words_of_a_batch(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    before = row_counts(api)
    for bad in bad_items("entity"):
        answer = await api.post("/entities", bad.text(CANARY).encode())
        if bad.item.startswith("{"):
            assert error_of(answer, 400, "VALIDATION_FAILED") == bad.message
        else:
            error_of(answer, 400, "INVALID_INPUT")
        assert CANARY not in answer.text
    for bad in bad_items("event"):
        # The path names the entity, whatever the body says.
        answer = await api.post(
            f"/entities/{bad.external_id or 'p'}/events", bad.text(CANARY).encode()
        )
        status = 404 if bad.code == "NOT_FOUND" else 400
        message = error_of(answer, status, bad.code)
        assert bad.message.endswith(message)
        assert CANARY not in answer.text
    assert row_counts(api) == before


async def test_members_that_the_contract_does_not_name_are_ignored(api: Api) -> None:
    more = {"id": CANARY, "tenant": {"x": [CANARY]}, "jobId": None}
    batch_of(await api.post("/batch/entities", [player("p") | more]), 1)
    batch_of(await api.post("/batch/events", [deposit("p") | more]), 1)
    batch_of(await api.post("/batch/states", [state("p", 1) | more]), 1)

    assert live_entities(api) == ["p"]
    assert len(stored_events(api)) == len(stored_states(api)) == 1
    for path in ("/entities/p", "/entities/p/events", "/entities/p/state"):
        assert CANARY not in (await api.get(path)).text


@pytest.mark.clause("W29", "W49")
async def test_a_personal_value_is_never_repeated_wherever_it_was_put(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    # Columns that were swapped put personal values into any member.
    mail = f"{CANARY}@example.com"
    items = [
        {"entityType": mail, "externalId": "x", "data": {}},
        {"entityType": "player", "externalId": "x", "data": mail},
        {"entityType": [mail], "externalId": "x", "data": {mail: mail}},
        {"entityType": "player", "externalId": {mail: mail}, "data": {"phone": mail}},
        {mail: mail},
        [mail],
        mail,
    ]
    data = batch_of(await api.post("/batch/entities", items), len(items))
    assert data["failed"] == len(items)
    events = [{"externalId": 1, "eventType": mail, "data": {}, "occurredAt": mail}, [mail]]
    states = [{"externalId": 1, "stateKey": mail, "value": mail, "observedAt": mail}, mail]
    answers = [
        await api.post("/batch/events", events),
        await api.post("/batch/states", states),
        await api.post("/entities/x/events", events[0]),
        await api.put("/entities/x/state/balance", {"value": mail, "observedAt": mail}),
        await api.get(f"/batch/jobs/{data['jobId']}"),
        await api.get("/metrics"),
    ]
    for answer in answers:
        assert CANARY not in answer.text
    assert CANARY not in json.dumps(data) + "".join(capsys.readouterr())
