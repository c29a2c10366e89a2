"""The records that batches leave, and listing them."""

from __future__ import annotations

from typing import Any

from opdata.model import Job
from opdata.storage.reads import JobQuery
from opdata.storage.work import JobDraft, Reply
from tests.contract.tenant import NOW_MS, Tenant, job_draft


async def _leave_job(tenant: Tenant, job_id: str, now_ms: int = NOW_MS) -> None:
    await tenant.upsert(job=JobDraft(job_id, "batch_ingest_entities"), now_ms=now_ms)


async def _ids(tenant: Tenant, **query: Any) -> list[str]:
    found = await tenant.store.jobs(JobQuery(**{"limit": 100, "operator_id": tenant.id, **query}))
    return [job.job_id for job in found.rows]


async def test_a_write_with_a_job_records_it_as_completed_with_its_output(ours: Tenant) -> None:
    """W29."""
    draft = job_draft()
    output = '{"succeeded":1,"failed":0,"errors":[]}'
    await ours.create("p1", job=draft, reply=Reply(200, b"answer", job_output=output))
    wanted = Job(
        job_id=draft.job_id,
        operator_id=ours.id,
        type="batch_ingest_entities",
        status="completed",
        progress=100,
        output=output,
        error=None,
        created_at_ms=NOW_MS,
        completed_at_ms=NOW_MS,
    )
    assert await ours.store.job(ours.id, draft.job_id) == wanted
    assert (await ours.store.jobs(JobQuery(10, ours.id))).rows == [wanted]


async def test_an_unknown_job_is_none(ours: Tenant) -> None:
    assert await ours.store.job(ours.id, "job_0123456789abcdef") is None
    assert await ours.store.job(ours.id, "") is None


async def test_a_write_without_a_job_leaves_none(ours: Tenant) -> None:
    await ours.create("p1", reply=Reply(200, b"answer", job_output="{}"))
    assert await _ids(ours) == []


async def test_jobs_come_newest_first_and_by_id_where_they_tie(ours: Tenant) -> None:
    for at, job_id in [(0, "job_b"), (5, "job_a"), (0, "job_c"), (0, "job_a2"), (9, "job_0")]:
        await _leave_job(ours, job_id, now_ms=NOW_MS + at)
    assert await _ids(ours) == ["job_0", "job_a", "job_c", "job_b", "job_a2"]


async def test_pages_of_jobs_join_up_across_ties_while_others_are_added(ours: Tenant) -> None:
    wanted: list[str] = []
    for at in range(12):
        await _leave_job(ours, f"job_{at:02}", now_ms=NOW_MS + at // 4)
        wanted.insert(0, f"job_{at:02}")
    walked: list[str] = []
    before = None
    more = True
    while more:
        page = await ours.store.jobs(JobQuery(5, ours.id, before=before))
        walked += [job.job_id for job in page.rows]
        before, more = (page.rows[-1].created_at_ms, page.rows[-1].job_id), page.more
        await _leave_job(ours, f"job_new{len(walked)}", now_ms=NOW_MS + 1_000)
    assert walked == wanted


async def test_jobs_can_be_listed_by_status_and_by_type(ours: Tenant) -> None:
    await _leave_job(ours, "job_1")
    assert await _ids(ours, status="completed") == ["job_1"]
    assert await _ids(ours, status="queued") == []
    assert await _ids(ours, type="batch_ingest_entities") == ["job_1"]
    assert await _ids(ours, type="batch_ingest_events") == []


async def test_without_an_operator_every_operators_jobs_are_listed(
    ours: Tenant, theirs: Tenant
) -> None:
    await _leave_job(ours, "job_ours")
    await _leave_job(theirs, "job_theirs", now_ms=NOW_MS + 1)
    assert await _ids(ours, operator_id=None) == ["job_theirs", "job_ours"]
