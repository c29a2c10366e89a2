# Made from opdata/client/job_calls.py by tools/generate_sync.py: edit that, then make sync-client.
"""The calls for jobs, the records of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from opdata.client import records
from opdata.client.errors import JobFailed, JobNotDone
from opdata.client.records import Job, JobStatus, JobType, Page
from opdata.client.sync.calls import MAX_PAGE_ITEMS, Calls

_FIRST_POLL_S: Final = 0.1
_SLOWEST_POLL_S: Final = 2.0


class JobCalls(Calls):
    """What became of batches that left a job (W29)."""

    def get_job(self, job_id: str) -> Job:
        """A batch's record (W29)."""
        return self._read(records.JOB, f"/batch/jobs/{job_id}")

    def wait_for_job(self, job_id: str, *, timeout_s: float = 300.0) -> Job:
        """Ask until the job is completed. Raises `JobFailed`, `JobNotDone` after `timeout_s` seconds.

        Each question has the client's own deadline, which may end later.
        """
        patience = self._transport.deadline(timeout_s)
        wait_s = _FIRST_POLL_S
        while True:
            job = self.get_job(job_id)
            if job.status == "completed":
                return job
            if job.is_done:
                why = f": {job.error.code}: {job.error.message}" if job.error else ""
                raise JobFailed(f"Job {job_id} is {job.status}{why}", job)
            left_s = patience.left_s()
            if left_s <= 0:
                message = f"Job {job_id} is still {job.status} after {timeout_s:g} s"
                raise JobNotDone(message, job)
            self._transport.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _SLOWEST_POLL_S)

    def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        job_type: JobType | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Job]:
        """A page of jobs, newest first."""
        params = {"status": status, "type": job_type, "limit": str(limit), "cursor": cursor}
        return self._read(records.JOBS, "/batch/jobs", params)

    def iter_jobs(
        self, *, status: JobStatus | None = None, job_type: JobType | None = None
    ) -> Iterator[Job]:
        """All jobs, newest first."""

        def page_at(cursor: str | None) -> Page[Job]:
            return self.list_jobs(
                status=status, job_type=job_type, limit=MAX_PAGE_ITEMS, cursor=cursor
            )

        return self._pages(page_at)
