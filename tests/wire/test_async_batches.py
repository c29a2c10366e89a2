"""Batches that are accepted at once and worked off as a job (W30)."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from opdata.clock import now_ms
from tests.support.api import Api, deposit, player, serving_api, state
from tests.wire.answers import JOB_ID, data_of, error_of
from tests.wire.database import all_rows, change, live_entities, row_counts, stored_states

pytestmark = pytest.mark.clause("W30")

ASYNC = {"Prefer": "respond-async"}
KINDS: dict[str, Sequence[Any]] = {
    "entities": [player("p"), 5, player("q"), player("p", country="MT"), {"externalId": "r"}],
    "events": [
        deposit("known", 1, idempotencyKey="one"),
        deposit("nobody", 2),
        {"externalId": "known", "eventType": "no such type", "data": {}},
        deposit("known", 1, idempotencyKey="one"),
        deposit("known", 3, idempotencyKey="one"),
    ],
    "states": [
        state("known", 1),
        state("known", 2),
        state("nobody", 3),
        state("known", 4, "no_such_key"),
        state("known", 5, "vip_tier", observedAt="2026-04-06T12:00:00Z"),
    ],
}


async def accepted(answer: httpx2.Response) -> str:
    """The job of a batch that was accepted."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    data = answer.json()["data"]
    assert list(data) == ["jobId", "status"]
    assert data["status"] == "queued"
    assert JOB_ID.fullmatch(data["jobId"])
    return str(data["jobId"])


async def done(api: Api, job_id: str) -> Any:
    """A job, once it is done."""
    for _ in range(1_000):
        if (job := await api.data(f"/batch/jobs/{job_id}"))["completed_at"] is not None:
            return job
        await asyncio.sleep(0.02)
    pytest.fail("the job was not worked off")


async def hold(api: Api, *, until_ms: int | None = None) -> None:
    """Have the operator's batches wait, as they do while another process has the lease."""
    sql = (
        "INSERT INTO queue_heads (operator_id, holder, expires_at_ms)"
        " SELECT operator_id, 'elsewhere', ? FROM operators WHERE name = ?"
        " ON CONFLICT (operator_id) DO UPDATE"
        " SET holder = excluded.holder, expires_at_ms = excluded.expires_at_ms"
    )
    at_ms = now_ms() + 50_000 if until_ms is None else until_ms
    await asyncio.to_thread(change, api, sql, at_ms, api.operator)


async def let_go(api: Api) -> None:
    """The other process has stopped."""
    await hold(api, until_ms=0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_ends_with_what_the_batch_would_have_been_answered(
    apis: tuple[Api, Api], kind: str
) -> None:
    api, other = apis
    for each in apis:
        data_of(await each.post("/entities", player("known")), 201)
    at_once = data_of(await other.post(f"/batch/{kind}", KINDS[kind]))
    at_once.pop("jobId", None)

    answer = await api.post(f"/batch/{kind}", KINDS[kind], headers=ASYNC)
    job_id = await accepted(answer)
    job = await done(api, job_id)

    assert answer.headers["location"] == f"/operator-data-api/batch/jobs/{job_id}"
    assert (job["type"], job["status"], job["progress"], job["error"]) == (
        *(f"batch_ingest_{kind}", "completed", 100),
        None,
    )
    assert job["output"] == at_once
    assert at_once["failed"] > 0
    counts = row_counts(api)
    assert [counts[name] for name in ("queued_batches", "queued_erasures")] == [0, 0]
    by_operator = "SELECT operator_id, count(*) FROM {} GROUP BY 1 ORDER BY 1"
    for table in ("entities", "events", "event_keys", "states"):
        numbers = [count for _, count in api.rows(by_operator.format(table))]
        assert len(set(numbers)) <= 1, (
            "as many rows as of the operator whose batch was answered at once"
        )


async def test_a_batch_of_many_chunks_keeps_indices_and_order(api: Api) -> None:
    """W22, W24."""
    items: list[Any] = [player(f"p{number:04}") for number in range(700)]
    items[3] = items[502] = items[699] = {"externalId": "bad"}
    items[600] = player("p0001", country="MT")

    job = await done(api, await accepted(await api.post("/batch/entities", items, headers=ASYNC)))

    assert [error["index"] for error in job["output"]["errors"]] == [3, 502, 699]
    assert (job["output"]["succeeded"], job["output"]["failed"]) == (697, 3)
    assert len(live_entities(api)) == 696
    assert (await api.data("/entities/p0001"))["data"]["country"] == "MT"


async def test_lines_and_compressed_bodies_are_queued_as_they_are(api: Api) -> None:
    """W10."""
    lines = b"\n".join([json.dumps(player("p")).encode(), b"", b"{broken", b"7"])
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip", **ASYNC}
    answer = await api.post("/batch/entities", gzip.compress(lines), headers=headers)

    job = await done(api, await accepted(answer))

    assert [error["index"] for error in job["output"]["errors"]] == [1, 2]
    assert live_entities(api) == ["p"]


async def test_other_preferences_are_ignored(api: Api) -> None:
    for value in ("return=minimal", 'foo="a, respond-async"'):
        answer = await api.post("/batch/entities", [player("p")], headers={"Prefer": value})
        assert answer.status_code == 200
        assert "preference-applied" not in answer.headers
    both = [("Prefer", "wait=10, return=minimal"), ("Prefer", "Respond-Async")]
    await done(api, await accepted(await api.post("/batch/entities", [player("p")], headers=both)))
    assert live_entities(api) == ["p"]


async def test_the_location_is_below_the_base_path_that_was_used(api: Api) -> None:
    """W1."""
    path = "/functions/v1/operator-data-api/batch/entities"
    answer = await api.post(path, [player("p")], headers=ASYNC)
    job_id = await accepted(answer)
    assert answer.headers["location"] == f"/functions/v1/operator-data-api/batch/jobs/{job_id}"
    assert data_of(await api.get(answer.headers["location"]))["id"] == job_id


async def test_a_dry_run_is_answered_at_once(api: Api) -> None:
    """W31."""
    answer = await api.post("/batch/entities?dryRun=true", [player("p"), 5], headers=ASYNC)
    assert data_of(answer)["dryRun"] is True
    assert "preference-applied" not in answer.headers
    counts = row_counts(api)
    assert [counts[name] for name in ("queued_batches", "jobs", "entities")] == [0, 0, 0]


async def test_what_is_wrong_with_the_request_is_refused_now(api: Api) -> None:
    """W4, W20."""
    too_many = [player(str(number)) for number in range(1_001)]
    for body in (b"[]", b"{}", b"nonsense", too_many):
        error_of(await api.post("/batch/entities", body, headers=ASYNC), 400, "INVALID_INPUT")
    wrong_key = {**ASYNC, "Authorization": "Bearer no"}
    error_of(await api.post("/batch/entities", [1], headers=wrong_key), 401, "UNAUTHORIZED")
    coded = {**ASYNC, "Content-Encoding": "br"}
    answer = await api.post("/batch/entities", [1], headers=coded)
    error_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    counts = row_counts(api)
    assert [counts[name] for name in ("queued_batches", "jobs")] == [0, 0]


async def test_an_operator_without_a_template_is_refused_now(tmp_path: Any) -> None:
    """W48."""
    async with serving_api(tmp_path / "data", template=False) as (api, _):
        answer = await api.post("/batch/events", [deposit("p")], headers=ASYNC)
        error_of(answer, 400, "TEMPLATE_NOT_CONFIGURED")
        assert row_counts(api)["queued_batches"] == 0


async def test_a_repeat_under_the_same_key_gets_the_same_job_and_queues_nothing(api: Api) -> None:
    """W40, W41."""
    await hold(api)
    headers = {**ASYNC, "Idempotency-Key": "k"}
    first = await api.post("/batch/entities", [player("p")], headers=headers)
    job_id = await accepted(first)
    rows = all_rows(api)

    for repeat in (headers, {"Idempotency-Key": "k"}):
        again = await api.post("/batch/entities", [player("p")], headers=repeat)
        assert again.content == first.content
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
    other = await api.post("/batch/entities", [player("q")], headers=headers)
    error_of(other, 422, "IDEMPOTENCY_KEY_REUSED")

    assert all_rows(api) == rows
    await let_go(api)
    await done(api, job_id)
    again = await api.post("/batch/entities", [player("p")], headers=headers)
    assert again.content == first.content
    assert row_counts(api)["jobs"] == 1


async def test_a_key_of_a_batch_that_was_answered_gets_that_answer(api: Api) -> None:
    """W40."""
    key = {"Idempotency-Key": "k"}
    first = await api.post("/batch/states", [state("nobody", 1)], headers=key)
    again = await api.post("/batch/states", [state("nobody", 1)], headers={**key, **ASYNC})
    assert (again.status_code, again.content) == (200, first.content)
    assert "location" not in again.headers
    assert row_counts(api)["jobs"] == 0


async def test_a_queued_batch_is_sealed_and_in_no_other_shape(api: Api) -> None:
    """W49."""
    await hold(api)
    items = [player("p", email="canary@example.com")]
    job_id = await accepted(await api.post("/batch/entities", items, headers=ASYNC))

    [(payload,)] = api.rows("SELECT payload FROM queued_batches")
    assert len(payload) > len(json.dumps(items))
    held = await asyncio.to_thread(api.stored.held_bytes, "queued_batches")
    assert bytes(payload) in held
    for raw in (held, await asyncio.to_thread(api.stored.raw_bytes)):
        assert b"canary" not in raw

    await let_go(api)
    await done(api, job_id)
    assert (await api.data("/entities/p"))["data"]["email"] == "canary@example.com"


async def test_the_sealed_payload_of_a_cancelled_batch_goes_as_soon_as_an_erased_record_does(
    api: Api,
) -> None:
    """W51: somebody may be in it who was erased while it waited."""
    await hold(api)
    data_of(await api.post("/entities", player("p")), 201)
    job_id = await accepted(await api.post("/batch/entities", [player("p")], headers=ASYNC))
    [(payload,)] = api.rows("SELECT payload FROM queued_batches")
    data_of(await api.delete("/entities/p"))

    data_of(await api.delete(f"/batch/jobs/{job_id}"))

    deadline = time.monotonic() + api.stored.erased_within_s
    while bytes(payload) in await asyncio.to_thread(api.stored.held_bytes, "queued_batches"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_the_batches_of_a_suspended_operator_wait(apis: tuple[Api, Api]) -> None:
    """W12."""
    api, other = apis
    await hold(api)
    waiting = await accepted(await api.post("/batch/entities", [player("p")], headers=ASYNC))
    sql = "UPDATE operators SET suspended_at_ms = ? WHERE name = 'ours'"
    await asyncio.to_thread(change, api, sql, 1)
    await let_go(api)
    await done(
        other, await accepted(await other.post("/batch/entities", [player("q")], headers=ASYNC))
    )

    sql = "SELECT status, progress, output FROM jobs WHERE job_id = ?"
    assert api.rows(sql, waiting) == [("queued", 0, None)]
    assert live_entities(api) == ["q"]
    await asyncio.to_thread(change, api, "UPDATE operators SET suspended_at_ms = NULL")
    await done(api, waiting)
    assert live_entities(api) == ["p", "q"]


async def test_batches_of_an_operator_are_worked_off_in_the_order_they_were_accepted(
    api: Api,
) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    await hold(api)
    jobs = [
        await accepted(await api.post("/batch/states", [state("p", number)], headers=ASYNC))
        for number in range(12)
    ]
    await let_go(api)

    ended = [(await done(api, job_id))["completed_at"] for job_id in jobs]

    assert ended == sorted(ended)
    assert stored_states(api) == {("p", "balance"): "11"}


async def test_more_than_an_operator_may_have_queued_is_refused(tmp_path: Any) -> None:
    async with serving_api(tmp_path / "data", max_queued_batches=2) as (api, other):
        await hold(api)
        for _ in range(2):
            await accepted(await api.post("/batch/entities", [player("p")], headers=ASYNC))
        key = {**ASYNC, "Idempotency-Key": "k"}
        answer = await api.post("/batch/entities", [player("p")], headers=key)
        error_of(answer, 503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
        assert "2 batches" in answer.json()["error"]["message"]
        counts = row_counts(api)
        assert [counts[name] for name in ("queued_batches", "jobs", "idempotency_records")] == [
            2,
            2,
            0,
        ]
        await accepted(await other.post("/batch/entities", [player("p")], headers=ASYNC))
        metrics = (await api.get("/metrics")).text
        assert 'opdata_refused_total{reason="queued_batches"} 1.0' in metrics


async def test_a_queued_job_is_cancelled_and_nothing_of_it_is_written(
    apis: tuple[Api, Api],
) -> None:
    api, other = apis
    await hold(api)
    job_id = await accepted(await api.post("/batch/entities", [player("p")], headers=ASYNC))
    error_of(await other.delete(f"/batch/jobs/{job_id}"), 404, "NOT_FOUND")

    key = {"Idempotency-Key": "k"}
    answer = await api.delete(f"/batch/jobs/{job_id}", headers=key)

    job = data_of(answer)
    assert (job["id"], job["status"], job["progress"]) == (job_id, "cancelled", 0)
    assert job["completed_at"] is not None
    again = await api.delete(f"/batch/jobs/{job_id}", headers=key)
    assert again.content == answer.content
    assert again.headers["idempotent-replayed"] == "true"
    words = error_of(await api.delete(f"/batch/jobs/{job_id}"), 409, "CONFLICT")
    assert words == "The job is cancelled already"
    await let_go(api)
    last = await accepted(await api.post("/batch/entities", [player("q")], headers=ASYNC))
    await done(api, last)
    assert live_entities(api) == ["q"]
    assert row_counts(api)["queued_batches"] == 0
    assert data_of(await api.get(f"/batch/jobs/{job_id}")) == job


async def test_a_job_that_is_done_or_unknown_cannot_be_cancelled(api: Api) -> None:
    data = data_of(await api.post("/batch/entities", [player("p")]))
    error_of(await api.delete(f"/batch/jobs/{data['jobId']}"), 409, "CONFLICT")
    error_of(await api.delete("/batch/jobs/job_0000000000000000"), 404, "NOT_FOUND")
    assert live_entities(api) == ["p"]


@pytest.mark.clause("W51")
async def test_a_batch_does_not_bring_back_who_was_erased_after_it_was_accepted(api: Api) -> None:
    for name in ("gone", "back", "stays"):
        data_of(await api.post("/entities", player(name)), 201)
    await hold(api)
    names = ("gone", "back", "stays", "new")
    entities = await accepted(
        await api.post("/batch/entities", [player(n, country="MT") for n in names], headers=ASYNC)
    )
    events = await accepted(
        await api.post("/batch/events", [deposit(n) for n in names[:3]], headers=ASYNC)
    )
    for name in ("gone", "back"):
        data_of(await api.delete(f"/entities/{name}"))
    data_of(await api.post("/entities", player("back")), 201)
    after = await accepted(await api.post("/batch/entities", [player("gone")], headers=ASYNC))
    await let_go(api)

    refused = (await done(api, entities))["output"]
    assert [(one["index"], one["externalId"], one["code"]) for one in refused["errors"]] == [
        (0, "gone", "NOT_FOUND"),
        (1, "back", "NOT_FOUND"),
    ]
    assert {one["message"] for one in refused["errors"]} == {
        "The entity was erased after this batch was accepted"
    }
    assert refused["succeeded"] == 2
    assert [one["index"] for one in (await done(api, events))["output"]["errors"]] == [0, 1]
    assert (await done(api, after))["output"]["succeeded"] == 1, "accepted after the erasure"
    assert live_entities(api) == ["back", "gone", "new", "stays"]
    assert (await api.data("/entities/back"))["data"]["country"] == "GB"
    assert (await api.data("/entities/back/events"))["items"] == []
    assert row_counts(api)["queued_erasures"] == 0


async def test_a_payload_that_was_tampered_with_fails_the_job_and_those_behind_it_go_on(
    api: Api,
) -> None:
    """W49."""
    await hold(api)
    broken = await accepted(await api.post("/batch/entities", [player("p")], headers=ASYNC))
    behind = await accepted(await api.post("/batch/entities", [player("q")], headers=ASYNC))
    [(moved,)] = api.rows("SELECT payload FROM queued_batches WHERE job_id = ?", behind)
    sql = "UPDATE queued_batches SET payload = ? WHERE job_id = ?"
    await asyncio.to_thread(change, api, sql, bytes(moved), broken)
    await let_go(api)

    job = await done(api, broken)

    assert (job["status"], job["output"]) == ("failed", None)
    assert job["error"]["code"] == "INTERNAL_ERROR"
    assert (await done(api, behind))["status"] == "completed"
    assert live_entities(api) == ["q"]
    assert row_counts(api)["queued_batches"] == 0
