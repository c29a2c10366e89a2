# Made from opdata/client/job_calls.py by tools/generate_sync.py: edit that, then make sync-client.
"""The calls for jobs, the records of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from opdata.client import records
from opdata.client.errors import ClientError, JobFailed, JobNotDone
from opdata.client.paths import path_segment
from opdata.client.queued import QueuedBatches
from opdata.client.records import Job, JobStatus, JobType, Page
from opdata.client.results import BatchResult
from opdata.client.retry import Deadline
from opdata.client.sync.calls import MAX_PAGE_ITEMS, Calls

T = TypeVar("T")

_FIRST_POLL_S: Final = 0.1
_SLOWEST_POLL_S: Final = 2.0


class JobCalls(Calls):
    """What becomes of batches that have a job (W29, W30)."""

    def get_job(self, job_id: str) -> Job:
        """A batch's record (W29)."""
        return self._read(records.JOB, _job_path(job_id))

    def wait_for_job(self, job_id: str, *, timeout_s: float = 300.0) -> Job:
        """Ask until the job is completed. Raises `JobFailed`, `JobNotDone` after `timeout_s` seconds.

        Each question has the client's own deadline, which may end later.
        """
        return self._completed(job_id, self._transport.deadline(timeout_s), timeout_s)

    def wait_for_batches(
        self, queued: QueuedBatches[T], *, timeout_s: float = 300.0
    ) -> BatchResult[T]:
        """Wait until all jobs of a call are completed; what became of its rows, as `send_…` tells it.

        Raises `JobFailed`, `JobNotDone` after `timeout_s` seconds. Their `partial`, and that of any
        other `ClientError`, has the jobs that were completed before.
        """
        patience = self._transport.deadline(timeout_s)
        result = queued.begun_result()
        try:
            for batch in queued.batches:
                job = self._completed(batch.job_id, patience, timeout_s)
                result.add(batch.chunk(job))
        except ClientError as error:
            error.partial = result
            raise
        finally:
            result.errors.sort(key=lambda error: error.index)
        return result

    def cancel_job(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """End a queued or running job: once this has returned, nothing more of it is written (W30).

        What it had written stays, and `output` counts it. Raises `Conflict` for a job that is done.
        """
        return self._write(
            records.JOB, "DELETE", _job_path(job_id), idempotency_key=idempotency_key
        )

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

    def _completed(self, job_id: str, patience: Deadline, timeout_s: float) -> Job:
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


def _job_path(job_id: str) -> str:
    return f"/batch/jobs/{path_segment(job_id)}"
