"""The job that every entity batch leaves behind."""

from __future__ import annotations

import json

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import JOB_ID, TIME, all_succeeded, batch_of, data_of, error_of
from tests.wire.database import row_counts

pytestmark = pytest.mark.clause("W29")

MEMBERS = ["id", "type", "status", "progress", "output", "error", "created_at", "completed_at"]


async def test_a_batch_leaves_a_job_with_its_result(api: Api) -> None:
    data = batch_of(await api.post("/batch/entities", [player("p"), {"externalId": "q"}]), 2)

    job = await api.data(f"/batch/jobs/{data['jobId']}")

    assert list(job) == MEMBERS
    assert JOB_ID.fullmatch(job["id"])
    assert job["id"] == data.pop("jobId")
    assert (job["type"], job["status"]) == ("batch_ingest_entities", "completed")
    assert (job["progress"], job["error"]) == (100, None)
    assert job["output"] == data
    assert list(job["output"]) == ["succeeded", "failed", "errors"]
    assert TIME.fullmatch(job["created_at"])
    assert TIME.fullmatch(job["completed_at"])
    assert job["created_at"] <= job["completed_at"]
    [(output,)] = api.rows("SELECT output FROM jobs WHERE job_id = ?", job["id"])
    assert json.loads(output) == data


@pytest.mark.clause("W21")
async def test_a_batch_of_which_every_item_failed_is_completed(api: Api) -> None:
    data = batch_of(await api.post("/batch/entities", [5, {}, None]), 3)
    job = await api.data(f"/batch/jobs/{data['jobId']}")
    assert (job["status"], job["progress"], job["error"]) == ("completed", 100, None)
    assert (job["output"]["succeeded"], job["output"]["failed"]) == (0, 3)
    assert api.rows("SELECT count(*) FROM entities") == [(0,)]
    assert api.rows("SELECT status FROM jobs") == [("completed",)]


async def test_a_batch_that_is_refused_as_a_whole_leaves_none(api: Api) -> None:
    for body in (b"[]", b"nonsense", b"{}"):
        error_of(await api.post("/batch/entities", body), 400, "INVALID_INPUT")
    assert api.rows("SELECT count(*) FROM jobs") == [(0,)]


async def test_only_entity_batches_leave_jobs(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    events = all_succeeded(await api.post("/batch/events", [deposit("p")]), 1)
    states = all_succeeded(await api.post("/batch/states", [state("p", 1)]), 1)
    assert "jobId" not in events | states
    assert row_counts(api)["jobs"] == 0


@pytest.mark.clause("W3")
async def test_an_unknown_job_and_another_operators_are_not_found(api: Api, other_api: Api) -> None:
    theirs = (await other_api.post("/batch/entities", [player("p")])).json()["data"]["jobId"]
    for job_id in (theirs, "job_0000000000000000", "job_", "nonsense", "%00", "a%2Fb"):
        assert error_of(await api.get(f"/batch/jobs/{job_id}"), 404, "NOT_FOUND") == "Job not found"
    assert (await other_api.data(f"/batch/jobs/{theirs}"))["id"] == theirs


async def test_jobs_are_listed_newest_first_and_by_status_and_type(api: Api) -> None:
    ids = [
        all_succeeded(await api.post("/batch/entities", [player(f"p{n}")]), 1)["jobId"]
        for n in range(3)
    ]
    listed = await api.data("/batch/jobs")
    assert list(listed) == ["items", "nextCursor"]
    assert {job["id"] for job in listed["items"]} == set(ids)
    times = [job["created_at"] for job in listed["items"]]
    assert times == sorted(times, reverse=True)
    assert all(list(job) == MEMBERS for job in listed["items"])
    for params, count in (
        ({"status": "completed"}, 3),
        ({"status": "queued"}, 0),
        ({"type": "batch_ingest_entities"}, 3),
        ({"type": "batch_ingest_events"}, 0),
        ({"status": "completed", "type": "batch_ingest_entities", "limit": "2"}, 2),
    ):
        found = await api.data("/batch/jobs", params=params)
        assert len(found["items"]) == count
    for bad in ({"status": "done"}, {"type": "entities"}):
        error_of(await api.get("/batch/jobs", params=bad), 400, "INVALID_INPUT")
