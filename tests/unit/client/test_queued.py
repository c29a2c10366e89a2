"""Batches that are queued: which jobs they become, and what those say of the rows (W30)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from opdata import (
    Client,
    Conflict,
    ForeignAnswer,
    Job,
    JobFailed,
    JobNotDone,
    NotFound,
    OutcomeUnknown,
    QueuedBatches,
    Unavailable,
)
from opdata.client.records import JobItemError, JobOutput
from opdata.testing import FakeServer
from tests.support.client_items import balance, bet, bets, entity

AT = datetime(2026, 4, 6, tzinfo=UTC)


@dataclass
class Row:
    """A user's own object: the client must hand back this one, not a copy."""

    player: str
    stake: Decimal


def statuses(client: Client) -> dict[str, str]:
    return {job.id: job.status for job in client.iter_jobs()}


def test_rows_that_do_not_fit_into_one_request_become_several_jobs_in_their_order(
    fake: FakeServer, client: Client
) -> None:
    fake.hold_jobs()

    queued = client.queue_entities(entity(f"p{n}") for n in range(2_001))

    assert [len(batch.rows) for batch in queued.batches] == [1_000, 1_000, 1]
    assert (queued.total, len(set(queued.job_ids))) == (2_001, 3)
    assert statuses(client) == dict.fromkeys(queued.job_ids, "queued")
    assert fake.entities == {}
    assert [(r.path, r.respond_async) for r in fake.requests[:3]] == [("/batch/entities", True)] * 3

    fake.work_off()
    result = client.wait_for_batches(queued)
    assert (result.succeeded, result.failed, result.chunks) == (2_001, 0, 3)
    assert result.job_ids == queued.job_ids
    assert list(fake.entities) == [f"p{n}" for n in range(2_001)]


def test_batches_of_different_kinds_are_worked_off_in_the_order_they_were_accepted(
    fake: FakeServer, client: Client
) -> None:
    fake.hold_jobs()
    queued: list[QueuedBatches[Any]] = [
        client.queue_entities([entity("p1")]),
        client.queue_events(bets(3)),
        client.queue_states([balance("p1", 1), balance("p1", 2)]),
    ]
    fake.work_off()

    assert [client.wait_for_batches(one).succeeded for one in queued] == [1, 3, 2]
    assert [job.type for job in client.iter_jobs()] == [
        "batch_ingest_states",
        "batch_ingest_events",
        "batch_ingest_entities",
    ]
    assert len(fake.events) == 3
    assert fake.states["p1", "balance"].value == 2


def test_what_jobs_refused_is_told_of_the_rows_that_were_handed_in(fake: FakeServer) -> None:
    rows = [Row("p1" if n % 3 else "nobody", Decimal(n)) for n in range(10)]
    rows[4].stake = Decimal("NaN")
    with fake.client(chunk_items=4) as client:
        client.send_entities([entity("p1")])
        queued = client.queue_events(rows, to_item=lambda row: bet(row.player, row.stake))

        assert [error.index for error in queued.settled.errors] == [4]
        assert [list(batch.positions) for batch in queued.batches] == [
            [0, 1, 2, 3],
            [5, 6, 7],
            [8, 9],
        ]
        result = client.wait_for_batches(queued)

    assert [(error.index, error.code) for error in result.errors] == [
        (0, "NOT_FOUND"),
        (3, "NOT_FOUND"),
        (4, "VALIDATION_FAILED"),
        (6, "NOT_FOUND"),
        (9, "NOT_FOUND"),
    ]
    assert all(error.row is rows[error.index] for error in result.errors)
    assert (result.succeeded, result.total, result.chunks) == (5, 10, 3)
    assert [event.data["bet_amount"] for event in fake.events] == [1, 2, 5, 7, 8]
    assert len(queued.settled.errors) == 1


def test_nothing_is_queued_of_nothing(fake: FakeServer, client: Client) -> None:
    queued: QueuedBatches[Any] = client.queue_states([])
    unencodable = client.queue_states([balance("p1", float("nan"))])

    assert (queued.batches, unencodable.batches, fake.requests) == ([], [], [])
    assert (client.wait_for_batches(queued).total, queued.total) == (0, 0)
    result = client.wait_for_batches(unencodable)
    assert (result.failed, result.total, result.chunks) == (1, 1, 1)


def test_a_batch_that_is_too_large_becomes_a_job_for_each_of_its_parts(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    fake.max_body_bytes = 500

    queued = client.queue_events([*bets(20), bet("p1", "x" * 500)])
    result = client.wait_for_batches(queued)

    assert len(queued.batches) > 4
    assert [(error.index, error.code) for error in queued.settled.errors] == [
        (20, "PAYLOAD_TOO_LARGE")
    ]
    assert (result.succeeded, result.failed) == (20, 1)
    assert [event.data["bet_amount"] for event in fake.events] == list(range(20))


def test_a_lost_answer_queues_nothing_twice(fake: FakeServer, client: Client) -> None:
    client.send_entities([entity("p1")])
    fake.lose_answers(2)

    queued = client.queue_events(bets(5))

    assert [batch.replayed for batch in queued.batches] == [False]
    assert client.wait_for_batches(queued).succeeded == 5
    assert len(fake.events) == 5
    assert len({request.idempotency_key for request in fake.requests[1:4]}) == 1
    assert len(list(client.iter_jobs(job_type="batch_ingest_events"))) == 1


def test_a_call_that_stopped_goes_on_under_its_key_with_the_jobs_it_has(fake: FakeServer) -> None:
    fake.hold_jobs()
    with fake.client(chunk_items=2) as client:
        first = client.queue_entities([entity(f"p{n}") for n in range(4)], idempotency_key="k")
        fake.lose_answers(1_000)
        with pytest.raises(OutcomeUnknown) as raised:
            client.queue_entities([entity(f"p{n}") for n in range(6)], idempotency_key="k")
        fake._faults.clear()
        assert raised.value.queued is not None
        assert raised.value.queued.total == 0
        assert raised.value.partial is None
        again = client.queue_entities(
            [entity(f"p{n}") for n in range(6)], idempotency_key=raised.value.idempotency_key
        )
        fake.work_off()
        assert client.wait_for_batches(again).replayed == 2

    assert again.job_ids[:2] == first.job_ids
    assert [batch.replayed for batch in again.batches] == [True, True, False]
    assert list(fake.entities) == [f"p{n}" for n in range(6)]


def test_a_full_queue_is_waited_for_and_what_was_accepted_is_not_forgotten(
    fake: FakeServer,
) -> None:
    with fake.client(chunk_items=2) as client:
        fake.answer_next(503, times=3)
        assert client.queue_entities([entity("p1")]).total == 1
        assert fake.time.at_s >= 3

        def rows() -> Any:
            yield from (entity(f"p{n}") for n in range(3))
            fake.answer_next(503, times=1_000)
            yield entity("p3")

        with pytest.raises(Unavailable) as raised:
            client.queue_entities(rows())
    assert raised.value.queued is not None
    assert raised.value.queued.total == 2
    assert raised.value.queued.job_ids == list(fake._store.jobs)[1:]
    assert raised.value.retryable


def test_a_server_that_queues_nothing_has_done_it_at_once(fake: FakeServer) -> None:
    def deaf(request: httpx2.Request) -> httpx2.Response:
        del request.headers["Prefer"]
        return fake._handle(request)

    with Client("http://x", fake.api_key, http=httpx2.MockTransport(deaf)) as client:
        queued = client.queue_entities([entity("p1"), entity("a" * 256)])
        result = client.wait_for_batches(queued)

    assert queued.batches == []
    assert (queued.total, result.succeeded, result.failed) == (2, 1, 1)
    assert result.job_ids == list(fake._store.jobs)
    assert set(fake.entities) == {"p1"}


def test_an_answer_that_names_no_job_is_foreign() -> None:
    odd = httpx2.MockTransport(
        lambda _request: httpx2.Response(202, json={"success": True, "data": {}})
    )
    with (
        Client("http://x", "k", http=odd) as client,
        pytest.raises(ForeignAnswer, match="does not name the job") as raised,
    ):
        client.queue_entities([entity("p1")])
    assert raised.value.outcome_unknown
    assert raised.value.idempotency_key


@pytest.mark.parametrize(
    "output",
    [
        None,
        JobOutput(1, 0, []),
        JobOutput(1, 1, []),
        JobOutput(1, 1, [JobItemError(2, "p1", "NOT_FOUND", "x")]),
        JobOutput(0, 2, [JobItemError(0, "p1", "NOT_FOUND", "x")] * 2),
    ],
)
def test_a_job_that_does_not_account_for_every_row_is_foreign(
    fake: FakeServer, client: Client, output: JobOutput | None
) -> None:
    queued = client.queue_events(bets(2))
    (job_id,) = queued.job_ids
    fake.change_jobs(Job(job_id, "batch_ingest_events", "completed", 100, output, None, AT, AT))

    with pytest.raises(ForeignAnswer, match=f"{job_id} does not account for every item"):
        client.wait_for_batches(queued)


def test_waiting_for_several_jobs_has_one_time_for_all_of_them(fake: FakeServer) -> None:
    fake.hold_jobs()
    with fake.client(chunk_items=10) as client:
        queued = client.queue_entities([entity(f"p{n}") for n in range(25)])
        fake.work_off(14)

        with pytest.raises(JobNotDone, match="still processing after 5 s") as raised:
            client.wait_for_batches(queued, timeout_s=5)

        assert fake.time.at_s == pytest.approx(5)
        assert raised.value.job.id == queued.job_ids[1]
        assert (raised.value.job.progress, raised.value.job.output) == (40, JobOutput(4, 0, []))
        assert raised.value.partial is not None
        assert (raised.value.partial.succeeded, raised.value.partial.job_ids) == (
            10,
            queued.job_ids[:1],
        )
        assert list(statuses(client).values()) == ["queued", "processing", "completed"]
        fake.work_off()
        assert client.wait_for_batches(queued).succeeded == 25


def test_a_cancelled_job_writes_nothing_more_and_tells_what_it_had_written(
    fake: FakeServer,
) -> None:
    fake.hold_jobs()
    with fake.client(chunk_items=10) as client:
        queued = client.queue_entities([entity(f"p{n}") for n in range(30)])
        fake.work_off(4)
        begun = client.cancel_job(queued.job_ids[0])
        unbegun = client.cancel_job(queued.job_ids[1])
        fake.work_off()

        assert (begun.status, begun.progress, begun.output) == (
            "cancelled",
            40,
            JobOutput(4, 0, []),
        )
        assert (unbegun.status, unbegun.output) == ("cancelled", None)
        with pytest.raises(JobFailed, match="is cancelled") as raised:
            client.wait_for_batches(queued)
        assert raised.value.job == begun
        assert client.wait_for_job(queued.job_ids[2]).output == JobOutput(10, 0, [])
    assert list(fake.entities) == [f"p{n}" for n in (*range(4), *range(20, 30))]


def test_only_a_job_that_is_not_done_can_be_cancelled(fake: FakeServer, client: Client) -> None:
    (job_id,) = client.queue_entities([entity("p1")]).job_ids
    with pytest.raises(Conflict, match="completed"):
        client.cancel_job(job_id)
    for unknown in ("job_0000000000000000", "../../entities/p1", "a/b"):
        with pytest.raises(NotFound):
            client.cancel_job(unknown)
    assert set(fake.entities) == {"p1"}


def test_a_cancellation_whose_answer_was_lost_is_told_as_it_was(
    fake: FakeServer, client: Client
) -> None:
    fake.hold_jobs()
    (job_id,) = client.queue_entities([entity("p1")]).job_ids
    fake.lose_answers()

    assert client.cancel_job(job_id).status == "cancelled"
    assert len({r.idempotency_key for r in fake.requests if r.method == "DELETE"}) == 1


def test_a_queued_batch_does_not_bring_back_who_was_erased_since(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    fake.hold_jobs()
    queued = client.queue_entities([entity("p1"), entity("p2")])
    client.delete_entity("p1")
    fake.work_off()

    (error,) = client.wait_for_batches(queued).errors
    assert (error.code, error.message) == (
        "NOT_FOUND",
        "The entity was erased after this batch was accepted",
    )
    assert set(fake.entities) == {"p2"}


async def test_the_asynchronous_client_queues_rows_of_an_asynchronous_generator(
    fake: FakeServer,
) -> None:
    async def rows() -> Any:
        for number in range(25):
            yield entity(f"p{number}")

    fake.hold_jobs()
    async with fake.async_client(chunk_items=10) as client:
        queued = await client.queue_entities(rows())
        cancelled = await client.cancel_job(queued.job_ids[2])
        fake.work_off()
        queued.batches.pop()
        result = await client.wait_for_batches(queued)
    assert (result.succeeded, cancelled.status) == (20, "cancelled")
    assert len(fake.entities) == 20


def test_no_value_of_a_row_shows_in_what_is_queued(client: Client) -> None:
    queued = client.queue_entities([entity("secret-id", first_name="secret")])
    assert "secret" not in repr(queued) + repr(queued.batches)
    assert repr(queued.batches[0]) == f"QueuedBatch(job_id={queued.job_ids[0]!r}, rows=<1>)"


@pytest.mark.parametrize(
    ("header", "is_queued"),
    [
        ("respond-async", True),
        ("Respond-Async", True),
        ("wait=10, respond-async;x=1", True),
        ("handling=lenient", False),
        ("respond-asynchronously", False),
    ],
)
def test_the_fake_server_reads_preferences_as_the_rfc_has_them(
    fake: FakeServer, header: str, *, is_queued: bool
) -> None:
    with httpx2.Client(base_url="http://x", transport=fake.http) as http:
        answer = http.post(
            "/operator-data-api/batch/events",
            headers={"Authorization": f"Bearer {fake.api_key}", "Prefer": header},
            json=[{"externalId": "p1", "eventType": "bonus", "data": {}}],
        )
    data = answer.json()["data"]
    assert (answer.status_code, data.get("status")) == (
        (202, "queued") if is_queued else (200, None)
    )
    if is_queued:
        assert answer.headers["Preference-Applied"] == "respond-async"
        assert answer.headers["Location"] == f"/operator-data-api/batch/jobs/{data['jobId']}"
