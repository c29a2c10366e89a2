"""The batch endpoints and their jobs (W20–W31)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from opdata.api.context import Call, CursorInt, make_cursor, ok, read_cursor
from opdata.api.errors import error_reply
from opdata.api.preferences import RESPOND_ASYNC, prefers
from opdata.errors import Busy, NotFound
from opdata.ids import new_job_id
from opdata.ingest import Checked, check_entities, check_events, check_states
from opdata.model import (
    MAX_BATCH_ENTITIES,
    MAX_BATCH_EVENTS,
    MAX_BATCH_STATES,
    BatchResult,
    JobType,
)
from opdata.storage.reads import JobQuery
from opdata.storage.work import EndJob, JobDraft, Outcome, QueueBatch, Reply
from opdata.templates import Template
from opdata.wire import decode, encode
from opdata.wire.schema import BatchParams, JobQueued, JobsParams

_NO_JOB: Final = "Job not found"


async def batch_entities(call: Call) -> Reply:
    """Upsert up to 1,000 entities.

    Bad items are reported and never stop their neighbours. All accepted items, the job and the
    answer become durable together.
    """
    batch = decode.ENTITIES.batch(call.body, MAX_BATCH_ENTITIES, ndjson=call.is_ndjson)
    template = await call.template()
    if _wants_async(call):
        return await _queue(call, "batch_ingest_entities", len(batch.items), template)
    checked = check_entities(batch, template, await call.sealer())
    job = JobDraft(new_job_id(), "batch_ingest_entities")
    return await _ingest(call, "entities", checked, job)


async def batch_events(call: Call) -> Reply:
    """Append up to 5,000 events, each to an existing entity, in array order."""
    batch = decode.EVENTS.batch(call.body, MAX_BATCH_EVENTS, ndjson=call.is_ndjson)
    template = await call.template()
    if _wants_async(call):
        return await _queue(call, "batch_ingest_events", len(batch.items), template)
    checked = check_events(batch, template, await call.sealer(), call.now_ms)
    return await _ingest(call, "events", checked)


async def batch_states(call: Call) -> Reply:
    """Set up to 1,000 states of existing entities; of several under one key the last one wins."""
    batch = decode.STATES.batch(call.body, MAX_BATCH_STATES, ndjson=call.is_ndjson)
    template = await call.template()
    if _wants_async(call):
        return await _queue(call, "batch_ingest_states", len(batch.items), template)
    checked = check_states(batch, template, call.now_ms)
    return await _ingest(call, "states", checked)


async def get_job(call: Call) -> Reply:
    """A batch's record, by the `jobId` of its answer."""
    found = await call.store.job(call.operator.operator_id, call.segments["jobId"])
    if found is None:
        raise NotFound(_NO_JOB)
    return ok(encode.job(found))


async def cancel_job(call: Call) -> Reply:
    """End a job that is queued or under way.

    Nothing of it is written any more once this is answered. What it has written before stays, and is counted in
    its `output`. A job that is done already is a conflict.
    """

    def finish(outcome: Outcome) -> Reply:
        if outcome.job is None:
            return error_reply(NotFound(_NO_JOB))[0]
        return ok(encode.job(outcome.job))

    return await call.write(EndJob(call.segments["jobId"]), finish)


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
    if reply.replayed:
        return _with_location(call, reply)
    if not dry_run:
        call.services.metrics.items(kind, results[-1])
    return reply


def _wants_async(call: Call) -> bool:
    """Whether the batch is to be queued (W30). A dry run is answered at once."""
    return (
        "prefer" in call.headers
        and prefers(call.headers["prefer"], RESPOND_ASYNC)
        and not call.params(BatchParams).dryRun
    )


async def _queue(call: Call, type_: JobType, item_count: int, template: Template) -> Reply:
    """Have the batch worked off later. What is wrong with it as a whole was refused before."""
    job_id = new_job_id()
    settings = call.services.settings
    sealer = await call.sealer()
    work = QueueBatch(
        job_id,
        type_,
        template.description.id,
        call.is_ndjson,
        item_count,
        sealer.seal_batch(job_id, call.body),
        max_batches=settings.max_queued_batches,
        max_bytes=settings.max_queued_batch_bytes,
    )

    def finish(_outcome: Outcome) -> Reply:
        return ok(JobQueued(job_id), HTTPStatus.ACCEPTED)

    try:
        reply = await call.write(work, finish)
    except Busy:
        call.services.metrics.refused("queued_batches")
        raise
    call.services.worker.wake()
    return _with_location(call, reply)


def _with_location(call: Call, reply: Reply) -> Reply:
    """The reply, with where its job is found if it says that the batch was queued.

    A stored one may do so whatever the request that repeats it prefers.
    """
    if reply.status != HTTPStatus.ACCEPTED:
        return reply
    queued = msgspec.json.decode(reply.body, type=_Queued).data
    location = f"{call.base}/batch/jobs/{queued.jobId}"
    headers = [("preference-applied", RESPOND_ASYNC), ("location", location)]
    return replace(reply, headers=headers)


class _Queued(Struct):
    data: JobQueued
