"""Waiting for jobs, in a time of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from opdata import Client, Job, JobFailed, JobNotDone
from opdata.client.records import JobProblem
from opdata.testing import FakeServer

AT = datetime(2026, 4, 6, tzinfo=UTC)
RUNNING = Job("job_1", "batch_ingest_events", "processing", 40, None, None, AT, None)


def test_a_job_is_asked_for_ever_less_often_until_it_is_done(
    fake: FakeServer, client: Client
) -> None:
    fake.change_jobs(RUNNING)
    asked = 0

    original = fake._routes.answer

    def answer(call: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 8:
            fake.change_jobs(replace(RUNNING, status="completed", progress=100, completed_at=AT))
        return original(call)

    fake._routes.answer = answer  # type: ignore[method-assign]
    assert client.wait_for_job("job_1").completed_at == AT
    assert fake.time.slept_s == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_waiting_ends_when_its_time_is_over(fake: FakeServer, client: Client) -> None:
    fake.change_jobs(RUNNING)
    with pytest.raises(JobNotDone, match="Job job_1 is still processing after 5 s") as raised:
        client.wait_for_job("job_1", timeout_s=5)
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.job == RUNNING
    assert fake.time.at_s == pytest.approx(5)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_failed_is_an_error_with_its_reason(
    fake: FakeServer, client: Client, status: Any
) -> None:
    fake.change_jobs(replace(RUNNING, status=status, error=JobProblem("INTERNAL_ERROR", "broken")))
    with pytest.raises(JobFailed, match=f"is {status}: INTERNAL_ERROR: broken") as raised:
        client.wait_for_job("job_1")
    assert raised.value.job.status == status


def test_a_server_is_not_ready_when_it_says_so_or_nothing(fake: FakeServer, client: Client) -> None:
    assert client.is_ready()
    fake.refuse_connections()
    assert not client.is_ready()
    unready = httpx2.MockTransport(lambda _request: httpx2.Response(503))
    with Client("http://x", "k", http=unready) as other:
        assert not other.is_ready()
