"""The calls for jobs, the records of batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from opdata.client import records
from opdata.client.calls import MAX_PAGE_ITEMS, AsyncCalls
from opdata.client.errors import JobFailed, JobNotDone
from opdata.client.records import Job, JobStatus, JobType, Page

_FIRST_POLL_S: Final = 0.1
_SLOWEST_POLL_S: Final = 2.0


class AsyncJobCalls(AsyncCalls):
    """What became of batches that left a job (W29)."""

    async def get_job(self, job_id: str) -> Job:
        """A batch's record (W29)."""
        return await self._read(records.JOB, f"/batch/jobs/{job_id}")

    async def wait_for_job(self, job_id: str, *, timeout_s: float = 300.0) -> Job:
        """Ask until the job is completed. Raises `JobFailed`, `JobNotDone` after `timeout_s` seconds.

        Each question has the client's own deadline, which may end later.
        """
        patience = self._transport.deadline(timeout_s)
        wait_s = _FIRST_POLL_S
        while True:
            job = await self.get_job(job_id)
            if job.status == "completed":
                return job
            if job.is_done:
                why = f": {job.error.code}: {job.error.message}" if job.error else ""
                raise JobFailed(f"Job {job_id} is {job.status}{why}", job)
            left_s = patience.left_s()
            if left_s <= 0:
                message = f"Job {job_id} is still {job.status} after {timeout_s:g} s"
                raise JobNotDone(message, job)
            await self._transport.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _SLOWEST_POLL_S)

    async def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        job_type: JobType | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Job]:
        """A page of jobs, newest first."""
        params = {"status": status, "type": job_type, "limit": str(limit), "cursor": cursor}
        return await self._read(records.JOBS, "/batch/jobs", params)

    def iter_jobs(
        self, *, status: JobStatus | None = None, job_type: JobType | None = None
    ) -> AsyncIterator[Job]:
        """All jobs, newest first."""

        async def page_at(cursor: str | None) -> Page[Job]:
            return await self.list_jobs(
                status=status, job_type=job_type, limit=MAX_PAGE_ITEMS, cursor=cursor
            )

        return self._pages(page_at)
