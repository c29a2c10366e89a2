"""What a write does to queued batches: queue one, end its job, note an erasure (W30, W51)."""

from __future__ import annotations

import msgspec

from opdata.errors import Busy, Conflict
from opdata.storage.postgres.connection import SQL, Connection, joined
from opdata.storage.postgres.database import findable
from opdata.storage.records import job_of
from opdata.storage.settling import job_is_done, queue_is_full
from opdata.storage.work import EndJob, Outcome, QueueBatch


async def change_queue(
    connection: Connection, operator_id: int, now_ms: int, work: QueueBatch | EndJob
) -> Outcome:
    """Queue a batch, or end a job."""
    if isinstance(work, EndJob):
        return await end_job(connection, operator_id, now_ms, work)
    await connection.execute(SQL["lock_queueing"], operator_id)
    # By itself: a statement sees what was committed before it began, and not while it waited.
    size = await connection.fetchrow(SQL["queue_size"], operator_id)
    assert size is not None, "an aggregate has a row"
    count, size_bytes, last_no = size
    if (problem := queue_is_full(work, count, size_bytes)) is not None:
        raise Busy(problem)
    await connection.execute(SQL["add_queue_head"], operator_id)
    await connection.execute(
        SQL["queue_batch"],
        *(operator_id, work.job_id, last_no + 1, work.template_id, int(work.ndjson)),
        *(work.item_count, len(work.payload), now_ms, work.payload),
    )
    await connection.execute(SQL["queue_job"], operator_id, work.job_id, work.type, now_ms)
    return Outcome()


async def end_job(connection: Connection, operator_id: int, now_ms: int, work: EndJob) -> Outcome:
    """See `EndJob`."""
    job_id = str(findable(work.job_id))
    # After the chunk that is under way, and before any other.
    await connection.fetchrow(SQL["queue_head"], operator_id)
    row = await connection.fetchrow(SQL["job"], operator_id, job_id)
    if row is None:
        return Outcome(refused={0: "NOT_FOUND"})
    job = job_of(tuple(row))
    if job.completed_at_ms is not None:
        raise Conflict(job_is_done(job))
    status = "cancelled" if work.error is None else "failed"
    error = None if work.error is None else msgspec.json.encode(work.error).decode()
    await connection.execute(SQL["end_job"], operator_id, job_id, status, error, now_ms)
    await leave_queue(connection, operator_id, job_id)
    row = await connection.fetchrow(SQL["job"], operator_id, job_id)
    assert row is not None, "it was there a moment ago"
    return Outcome(job=job_of(tuple(row)))


async def leave_queue(connection: Connection, operator_id: int, job_id: str) -> bool:
    """Forget the payload of a job that is done; whether somebody was erased while it was queued.

    The head is locked already.
    """
    await connection.execute(SQL["leave_queue"], operator_id, job_id)
    await connection.execute(SQL["clear_queue_head"], operator_id, job_id)
    return bool(await connection.fetch(SQL["forget_queued_erasures"], operator_id, job_id))


async def note_erasure(connection: Connection, operator_id: int, external_id: str) -> None:
    """Have no batch that is queued now bring an entity back that is being erased."""
    queued = await connection.fetch(SQL["hold_queued_batches"], operator_id)
    if queued:
        job_ids = joined([job_id for (job_id,) in queued])
        await connection.execute(SQL["note_queued_erasure"], operator_id, job_ids, external_id)
