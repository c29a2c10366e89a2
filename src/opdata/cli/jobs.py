"""`opdata jobs`: list batch jobs, show what became of one, wait for it or cancel it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from opdata.cli.exits import INTERRUPTED, Exit, UnknownName
from opdata.cli.output import fail, note, print_fields, print_json, print_table, say, short_time
from opdata.cli.progress import counting
from opdata.cli.stores import DEFAULT_DATABASE, FLAGS, AsJson, Database, opened, operator_named
from opdata.clock import format_ms, now_ms
from opdata.errors import ConfigError
from opdata.model import MAX_PAGE_ITEMS, Job, JobStatus, JobType, Operator
from opdata.storage.base import Store
from opdata.storage.reads import JobQuery

_ERRORS_SHOWN: Final = 20
_LOOK_EVERY_S: Final = 0.5

app = App(
    name="jobs",
    help="List batch jobs, show what became of one, wait for it or cancel it.",
    default_parameter=FLAGS,
)

JobId = Annotated[str, Parameter(help="The job's id, job_….")]

OfOperator = Annotated[
    str | None, Parameter(name="--operator", help="Only this operator's, by its name.")
]


@app.command(name="list")
async def list_(
    *,
    operator: OfOperator = None,
    status: Annotated[JobStatus | None, Parameter(help="Only jobs in this status.")] = None,
    type_: Annotated[
        JobType | None, Parameter(name="--type", help="Only jobs of this type.")
    ] = None,
    limit: Annotated[int, Parameter(help="How many at most, 1 to 1,000.", show_default=True)] = 20,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    if not 1 <= limit <= MAX_PAGE_ITEMS:
        message = f"--limit must be 1 to {MAX_PAGE_ITEMS}, not {limit}"
        raise ConfigError(message)
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator) if operator is not None else None
        names = {each.operator_id: each.name for each in await store.operators()}
        owner_id = owner.operator_id if owner else None
        jobs: list[Job] = []
        before, more = None, True
        while more and len(jobs) < limit:
            page = await store.jobs(
                JobQuery(limit - len(jobs), owner_id, status=status, type=type_, before=before)
            )
            jobs += page.rows
            more = page.more
            before = (jobs[-1].created_at_ms, jobs[-1].job_id) if jobs else None
    if as_json:
        print_json([_record(job, names[job.operator_id]) for job in jobs])
        return
    if not jobs:
        note("No jobs.")
        return
    print_table(
        ["ID", "OPERATOR", "TYPE", "STATUS", "PROGRESS", "SUCCEEDED", "FAILED", "CREATED"],
        [
            [
                job.job_id,
                names[job.operator_id],
                job.type,
                job.status,
                f"{job.progress} %",
                *_counts(job),
                short_time(job.created_at_ms),
            ]
            for job in jobs
        ],
    )


@app.command
async def show(
    job_id: JobId,
    /,
    *,
    operator: OfOperator = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Show one job and the items it refused."""
    async with opened(database.settings()) as store:
        owner, job = await _find(store, operator, job_id)
    _print(owner, job, as_json=as_json)


@app.command
def watch(
    job_id: JobId,
    /,
    *,
    operator: OfOperator = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> int:
    """Wait until a job is done, then show it; Ctrl-C ends the waiting and not the job.

    Exit code 1 when it was cancelled or failed, or refused an item.
    """
    try:
        owner, job = asyncio.run(_done(database, operator, job_id))
    except KeyboardInterrupt:
        fail("interrupted; the job goes on")
        return INTERRUPTED
    _print(owner, job, as_json=as_json)
    went_well = job.status == "completed" and not _output(job).get("failed")
    return Exit.OK if went_well else Exit.PROBLEM


async def _done(database: Database, operator: str | None, job_id: str) -> tuple[Operator, Job]:
    async with opened(database.settings()) as store:
        owner, job = await _find(store, operator, job_id)
        with counting("%") as tell:
            while job.completed_at_ms is None:
                tell(f"Job {job_id} is {job.status}", job.progress, 100)
                await _pause()
                owner, job = await _find(store, owner.name, job_id)
    return owner, job


async def _pause() -> None:
    await asyncio.sleep(_LOOK_EVERY_S)


@app.command
async def cancel(
    job_id: JobId,
    /,
    *,
    operator: OfOperator = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """End a queued or running job: nothing more of it is written, and what it wrote stays.

    Exit code 1 when it is done already.
    """
    async with opened(database.settings()) as store:
        owner, _ = await _find(store, operator, job_id)
        cancelled = await store.queue.cancel(owner.operator_id, job_id, now_ms())
    if cancelled is None:
        raise _unknown(job_id, f"Operator {owner.name} has no")
    if as_json:
        print_json(_record(cancelled, owner.name))
        return
    succeeded, failed = _counts(cancelled)
    say(f"Cancelled {job_id} of operator {owner.name}.")
    if cancelled.output is not None:
        note(f"Before that {succeeded} items succeeded and {failed} failed.")


def _print(owner: Operator, job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(_record(job, owner.name))
        return
    output = _output(job)
    errors = output.get("errors", [])
    succeeded, failed = _counts(job)
    print_fields(
        [
            ("Job", job.job_id),
            ("Operator", owner.name),
            ("Type", job.type),
            ("Status", f"{job.status}, {job.progress} %"),
            ("Created", format_ms(job.created_at_ms)),
            ("Completed", "-" if job.completed_at_ms is None else format_ms(job.completed_at_ms)),
            ("Succeeded", succeeded),
            ("Failed", failed),
            ("Error", f"{job.error.code}: {job.error.message}" if job.error else "-"),
        ]
    )
    if not errors:
        return
    say("")
    print_table(
        ["INDEX", "EXTERNAL ID", "CODE", "MESSAGE"],
        [
            [str(each["index"]), each["externalId"] or "-", each["code"], each["message"]]
            for each in errors[:_ERRORS_SHOWN]
        ],
    )
    if len(errors) > _ERRORS_SHOWN:
        note(f"{len(errors) - _ERRORS_SHOWN} more refused items: --json shows them all.")


async def _find(store: Store, operator: str | None, job_id: str) -> tuple[Operator, Job]:
    """A job, and whose it is. Raises `UnknownName`."""
    if operator is not None:
        owners = [await operator_named(store, operator)]
    else:
        owners = list(await store.operators())
    for owner in owners:
        if (job := await store.job(owner.operator_id, job_id)) is not None:
            return owner, job
    raise _unknown(
        job_id, f"Operator {owners[0].name} has no" if len(owners) == 1 else "There is no"
    )


def _unknown(job_id: str, whose: str) -> UnknownName:
    return UnknownName(f"{whose} job {job_id!r}; opdata jobs list shows the newest ones")


def _output(job: Job) -> dict[str, Any]:
    return {} if job.output is None else msgspec.json.decode(job.output, type=dict[str, Any])


def _counts(job: Job) -> tuple[str, str]:
    output = _output(job)
    return str(output.get("succeeded", "-")), str(output.get("failed", "-"))


def _record(job: Job, operator: str) -> dict[str, object]:
    """The job as the API shows it (W29), and whose it is."""
    return {
        "id": job.job_id,
        "operator": operator,
        "type": job.type,
        "status": job.status,
        "progress": job.progress,
        "output": None if job.output is None else msgspec.Raw(job.output.encode()),
        "error": job.error,
        "created_at": format_ms(job.created_at_ms),
        "completed_at": None if job.completed_at_ms is None else format_ms(job.completed_at_ms),
    }
