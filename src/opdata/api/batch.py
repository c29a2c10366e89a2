"""The batch endpoints and their jobs (W20–W31)."""

from __future__ import annotations

from opdata.api.context import Call, CursorInt, make_cursor, ok, read_cursor
from opdata.errors import NotFound
from opdata.ids import new_job_id
from opdata.ingest import Checked, check_entities, check_events, check_states
from opdata.model import MAX_BATCH_ENTITIES, MAX_BATCH_EVENTS, MAX_BATCH_STATES, BatchResult
from opdata.storage.reads import JobQuery
from opdata.storage.work import JobDraft, Outcome, Reply
from opdata.wire import decode, encode
from opdata.wire.schema import BatchParams, JobsParams


async def batch_entities(call: Call) -> Reply:
    """Upsert up to 1,000 entities.

    Bad items are reported and never stop their neighbours. All accepted items, the job and the
    answer become durable together.
    """
    batch = decode.ENTITIES.batch(call.body, MAX_BATCH_ENTITIES, ndjson=call.is_ndjson)
    checked = check_entities(batch, await call.template(), await call.sealer())
    job = JobDraft(new_job_id(), "batch_ingest_entities")
    return await _ingest(call, "entities", checked, job)


async def batch_events(call: Call) -> Reply:
    """Append up to 5,000 events, each to an existing entity, in array order."""
    batch = decode.EVENTS.batch(call.body, MAX_BATCH_EVENTS, ndjson=call.is_ndjson)
    checked = check_events(batch, await call.template(), await call.sealer(), call.now_ms)
    return await _ingest(call, "events", checked)


async def batch_states(call: Call) -> Reply:
    """Set up to 1,000 states of existing entities; of several under one key the last one wins."""
    batch = decode.STATES.batch(call.body, MAX_BATCH_STATES, ndjson=call.is_ndjson)
    checked = check_states(batch, await call.template(), call.now_ms)
    return await _ingest(call, "states", checked)


async def get_job(call: Call) -> Reply:
    """A batch's record, by the `jobId` of its answer."""
    found = await call.store.job(call.operator.operator_id, call.segments["jobId"])
    if found is None:
        message = "Job not found"
        raise NotFound(message)
    return ok(encode.job(found))


async def list_jobs(call: Call) -> Reply:
    """Jobs, newest first."""
    params = call.params(JobsParams)
    found = await call.store.jobs(
        JobQuery(
            limit=params.limit,
            operator_id=call.operator.operator_id,
            status=params.status,
            type=params.type,
            before=read_cursor(params.cursor, tuple[CursorInt, str]),
        )
    )
    last = found.rows[-1] if found.more else None
    cursor = make_cursor((last.created_at_ms, last.job_id)) if last else None
    return ok({"items": [encode.job(one) for one in found.rows], "nextCursor": cursor})


async def _ingest(call: Call, kind: str, checked: Checked, job: JobDraft | None = None) -> Reply:
    dry_run = call.params(BatchParams).dryRun
    results: list[BatchResult] = []

    def finish(outcome: Outcome) -> Reply:
        result = checked.result(outcome)
        results.append(result)
        output = encode.batch_output(result)
        data = encode.batch_data(output, job_id=job.job_id if job else None, dry_run=dry_run)
        return Reply(200, encode.success(data), job_output=output.decode() if job else None)

    reply = await call.write(checked.work, finish, job=job, dry_run=dry_run)
    if results and not dry_run:
        call.services.metrics.items(kind, results[-1])
    return reply
