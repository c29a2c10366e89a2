"""A dry run answers what the batch would get, and writes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import batch_of, data_of, error_of
from tests.wire.database import all_rows, raw_bytes

pytestmark = pytest.mark.clause("W31")

CANARY = "canary-44aa"
PERSONAL = "canary-b07e"
BATCHES: dict[str, list[Any]] = {
    "entities": [
        player("new", note=CANARY, first_name=PERSONAL),
        player("p", country=CANARY),
        {"externalId": "x"},
        5,
        player("gone"),
    ],
    "events": [
        deposit("p", 1),
        deposit("nobody"),
        deposit("p", 2, idempotencyKey="taken"),
        deposit("p", 3, idempotencyKey="taken"),
        deposit("p", 4, idempotencyKey="free"),
        deposit("p", 4, idempotencyKey="free"),
        {"externalId": "p", "eventType": CANARY, "data": {}},
    ],
    "states": [state("p", CANARY), state("nobody", 1), state("p", None), state("p", 2)],
}


@pytest.fixture(autouse=True)
async def some_rows(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    data_of(await api.post("/entities", player("gone")), 201)
    data_of(await api.delete("/entities/gone"))
    await api.post("/batch/events", [deposit("p", 2, idempotencyKey="taken")])
    await api.post("/batch/states", [state("p", 1)])


@pytest.mark.parametrize("kind", BATCHES)
async def test_a_dry_run_answers_as_the_batch_and_writes_nothing(api: Api, kind: str) -> None:
    items = BATCHES[kind]
    before = all_rows(api)

    dry = batch_of(await api.post(f"/batch/{kind}?dryRun=true", items), len(items))

    assert all_rows(api) == before
    stored = raw_bytes(api)
    assert PERSONAL.encode() not in stored
    # What is rolled back may have been written where no row is.
    assert api.stored.keeps_old_bytes or CANARY.encode() not in stored
    assert dry.pop("dryRun") is True
    assert "jobId" not in dry
    wet = batch_of(await api.post(f"/batch/{kind}", items), len(items))
    wet.pop("jobId", None)
    assert dry == wet
    assert all_rows(api) != before


async def test_the_members_of_a_dry_run_come_in_order(api: Api) -> None:
    data = data_of(await api.post("/batch/entities?dryRun=true", [player("q")]))
    assert list(data) == ["succeeded", "failed", "errors", "dryRun"]
    item = deposit("p", 2, idempotencyKey="taken")
    data = data_of(await api.post("/batch/events?dryRun=true", [item]))
    assert list(data) == ["succeeded", "failed", "errors", "duplicates", "dryRun"]
    assert data["duplicates"] == 1


async def test_a_dry_run_neither_takes_nor_answers_an_idempotency_key(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    before = all_rows(api)
    first = await api.post("/batch/entities?dryRun=true", [player("q")], headers=headers)
    assert "dryRun" in data_of(first)
    assert all_rows(api) == before

    real = await api.post("/batch/entities", [player("q")], headers=headers)
    assert "idempotent-replayed" not in real.headers
    assert "dryRun" not in data_of(real)

    again = await api.post("/batch/entities?dryRun=true", [player("r")], headers=headers)
    assert "dryRun" in data_of(again)
    assert "idempotent-replayed" not in again.headers


@pytest.mark.clause("W40")
async def test_a_dry_run_finds_a_bad_idempotency_key(api: Api) -> None:
    headers = {"Idempotency-Key": "a b"}
    answer = await api.post("/batch/entities?dryRun=true", [player("q")], headers=headers)
    assert "Idempotency-Key" in error_of(answer, 400, "INVALID_INPUT")


@pytest.mark.parametrize("value", ["false", "0"])
async def test_false_is_no_dry_run(api: Api, value: str) -> None:
    data = data_of(await api.post(f"/batch/entities?dryRun={value}", [player("q")]))
    assert "dryRun" not in data
    assert api.rows("SELECT count(*) FROM entities WHERE external_id = 'q'") == [(1,)]


@pytest.mark.parametrize(
    "query", ["dryRun=yes", "dryRun=", "dryrun=true", "dryRun=true&dryRun=true"]
)
async def test_a_dry_run_that_is_misspelt_is_not_carried_out(api: Api, query: str) -> None:
    before = all_rows(api)
    answer = await api.post(f"/batch/entities?{query}", [player("q")])
    error_of(answer, 400, "INVALID_INPUT")
    assert all_rows(api) == before


@pytest.mark.clause("W20")
async def test_a_dry_run_is_refused_like_a_batch(api: Api) -> None:
    error_of(await api.post("/batch/states?dryRun=true", b"[]"), 400, "INVALID_INPUT")
    items = [state("p", 1)] * 1_001
    error_of(await api.post("/batch/states?dryRun=true", items), 400, "INVALID_INPUT")
