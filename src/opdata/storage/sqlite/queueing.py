"""What a write does to queued batches: queue one, end its job, note an erasure (W30, W51)."""

from __future__ import annotations

import apsw
import msgspec

from opdata.errors import Busy, Conflict
from opdata.storage.records import job_of
from opdata.storage.settling import job_is_done, queue_is_full
from opdata.storage.sqlite.connection import SQL, one_row, the_row
from opdata.storage.work import EndJob, Outcome, QueueBatch


def change_queue(
    connection: apsw.Connection, operator_id: int, now_ms: int, work: QueueBatch | EndJob
) -> Outcome:
    """Queue a batch, or end a job."""
    if isinstance(work, EndJob):
        return end_job(connection, operator_id, now_ms, work)
    count, size_bytes, last_no = the_row(connection, "queue_size", operator_id)
    if (problem := queue_is_full(work, count, size_bytes)) is not None:
        raise Busy(problem)
    connection.execute(
        SQL["queue_batch"],
        (
            *(operator_id, work.job_id, last_no + 1, work.template_id, int(work.ndjson)),
            *(work.item_count, len(work.payload), now_ms, work.payload),
        ),
    )
    connection.execute(SQL["queue_job"], (operator_id, work.job_id, work.type, now_ms))
    connection.execute(SQL["add_queue_head"], (operator_id,))
    return Outcome()


def end_job(connection: apsw.Connection, operator_id: int, now_ms: int, work: EndJob) -> Outcome:
    """See `EndJob`."""
    row = one_row(connection, "job", operator_id, work.job_id)
    if row is None:
        return Outcome(refused={0: "NOT_FOUND"})
    job = job_of(row)
    if job.completed_at_ms is not None:
        raise Conflict(job_is_done(job))
    status = "cancelled" if work.error is None else "failed"
    error = None if work.error is None else msgspec.json.encode(work.error).decode()
    connection.execute(SQL["end_job"], (operator_id, work.job_id, status, error, now_ms))
    leave_queue(connection, operator_id, work.job_id)
    return Outcome(job=job_of(the_row(connection, "job", operator_id, work.job_id)))


def leave_queue(connection: apsw.Connection, operator_id: int, job_id: str) -> bool:
    """Forget the payload of a job that is done; whether somebody was erased while it was queued."""
    key = (operator_id, job_id)
    connection.execute(SQL["leave_queue"], key)
    connection.execute(SQL["clear_queue_head"], key)
    connection.execute(SQL["forget_queued_erasures"], key)
    return connection.changes() > 0


def note_erasure(connection: apsw.Connection, operator_id: int, external_id: str) -> None:
    """Have no batch that is queued now bring an entity back that is being erased."""
    connection.execute(SQL["note_queued_erasure"], (operator_id, external_id))
