"""Queued batches (W30): their order, the lease, chunks written once, cancelling, erasures, bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from opdata.errors import Busy, Conflict, IdempotencyKeyReused, InternalError, Unavailable
from opdata.model import Job, JobError
from opdata.storage.base import Store
from opdata.storage.leases import Lease, LeaseLost
from opdata.storage.queue import Chunk, ErasedMeanwhile, QueuedBatch
from opdata.storage.work import EndJob, Outcome, QueueBatch, Reply, Work, Write
from tests.contract.conftest import Opener
from tests.contract.tenant import (
    NOW_MS,
    SECOND_MS,
    Tenant,
    Written,
    appended,
    claim,
    entity_row,
    event_row,
    queued_batch,
    upserted,
)

pytestmark = [
    pytest.mark.clause("W30"),
    pytest.mark.parametrize("reopen", ["sqlite", "postgres18"], indirect=True),
]

LEASE_MS = 10 * SECOND_MS


async def queue(tenant: Tenant, work: QueueBatch | None = None, **write: Any) -> Written:
    return await tenant.write(work or queued_batch(), **write)


async def queued(tenant: Tenant, *, items: int = 4) -> str:
    """The job of a batch that was queued."""
    work = queued_batch(items=items)
    await queue(tenant, work)
    return work.job_id


def lease(tenant: Tenant, holder: str = "one", at_ms: int = NOW_MS) -> Lease:
    return Lease(tenant.id, holder, at_ms + LEASE_MS)


async def take(tenant: Tenant, holder: str = "one", at_ms: int = NOW_MS) -> QueuedBatch | None:
    return await tenant.store.queue.take(lease(tenant, holder, at_ms), at_ms)


def chunk(
    tenant: Tenant,
    job_id: str,
    work: Work,
    names: Sequence[str],
    *,
    span: tuple[int, int] = (0, 2),
    items: int = 4,
) -> Chunk:
    """A chunk of a job, whose output says where it ends."""

    def finish(_outcome: Outcome) -> Reply:
        return Reply(200, b"", job_output=json.dumps({"succeeded": span[1]}))

    write = Write(tenant.id, NOW_MS, work, finish)
    return Chunk(job_id, *span, items, frozenset(names), write)


def entities(tenant: Tenant, job_id: str, *names: str, **rest: Any) -> Chunk:
    return chunk(tenant, job_id, upserted(*map(entity_row, names)), names, **rest)


async def work_off(tenant: Tenant, one: Chunk, holder: str = "one") -> None:
    await tenant.store.queue.work_off(lease(tenant, holder), one)


async def job_of(tenant: Tenant, job_id: str) -> Job:
    job = await tenant.store.job(tenant.id, job_id)
    assert job is not None
    return job


async def left(tenant: Tenant) -> list[str]:
    """The jobs of the batches that are queued, in order."""
    return [one.job_id for one in await tenant.store.queue.payloads(tenant.id)]


async def test_a_batch_is_queued_with_its_job_and_its_answer_in_one_transaction(
    ours: Tenant,
) -> None:
    def broken(_outcome: Outcome) -> Reply:
        raise InternalError

    with pytest.raises(InternalError):
        await queue(ours, finish=broken)
    assert await left(ours) == []

    work = queued_batch()
    first = await queue(ours, work, claim=claim(), reply=Reply(202, b"queued"))
    again = await queue(ours, claim=claim(), reply=Reply(202, b"other"))
    with pytest.raises(IdempotencyKeyReused):
        await queue(ours, claim=claim(body=b"another"))

    assert (first.reply.replayed, again.reply) == (False, Reply(202, b"queued", replayed=True))
    assert await left(ours) == [work.job_id]
    job = await job_of(ours, work.job_id)
    assert (job.type, job.status, job.progress) == ("batch_ingest_entities", "queued", 0)
    assert (job.output, job.created_at_ms, job.completed_at_ms) == (None, NOW_MS, None)
    assert await ours.store.queue.count() == 1
    assert await ours.store.queue.payload(ours.id, work.job_id) == work.payload


async def test_twins_under_one_key_queue_one_batch(ours: Tenant) -> None:
    """W40."""
    await asyncio.gather(*(queue(ours, claim=claim()) for _ in range(6)))
    assert len(await left(ours)) == 1


async def test_batches_are_taken_in_the_order_they_were_accepted_and_one_begun_first(
    ours: Tenant, theirs: Tenant
) -> None:
    jobs = [await queued(ours) for _ in range(3)]
    await queued(theirs)
    assert await left(ours) == jobs
    for at, job_id in enumerate(jobs):
        found = await take(ours)
        assert found is not None
        assert (found.job_id, found.position, found.output) == (job_id, 0, None)
        assert (await job_of(ours, job_id)).status == "processing"
        await work_off(ours, entities(ours, job_id, f"a{at}"))
        begun = await take(ours)
        assert begun == replace(found, position=2, output='{"succeeded": 2}')
        await work_off(ours, entities(ours, job_id, f"b{at}", span=(2, 4)))
        assert await left(ours) == jobs[at + 1 :]
        job = await job_of(ours, job_id)
        assert (job.status, job.progress, job.output) == ("completed", 100, '{"succeeded": 4}')
    assert await take(ours) is None
    assert len(await left(theirs)) == 1


async def test_a_batch_that_has_begun_goes_before_those_that_look_older(
    ours: Tenant, reopen: Opener
) -> None:
    first = await queued(ours)
    await take(ours)
    await work_off(ours, entities(ours, first, "p"))
    await ours.store.queue.give_back(lease(ours))
    await queued(ours)
    found = await take(ours.through(await reopen()), "two")
    assert found is not None
    assert (found.job_id, found.position) == (first, 2)


async def test_a_lease_is_one_holders_until_it_expires_or_is_given_back(
    ours: Tenant, theirs: Tenant
) -> None:
    operators = ours.store.queue.operators
    assert await operators("two", NOW_MS) == []
    await queued(ours)
    await queued(theirs)
    assert sorted(await operators("two", NOW_MS)) == sorted([ours.id, theirs.id])

    assert await take(ours) is not None
    assert await operators("two", NOW_MS) == [theirs.id]
    assert ours.id in await operators("one", NOW_MS)
    assert await take(ours, "two", NOW_MS + LEASE_MS - 1) is None

    await ours.store.queue.renew(replace(lease(ours), expires_at_ms=NOW_MS + 2 * LEASE_MS))
    assert await take(ours, "two", NOW_MS + LEASE_MS) is None
    assert await operators("two", NOW_MS + LEASE_MS) == [theirs.id]
    assert await take(ours, "two", NOW_MS + 2 * LEASE_MS) is not None
    with pytest.raises(LeaseLost):
        await ours.store.queue.renew(lease(ours))
    await ours.store.queue.give_back(lease(ours))
    assert await take(ours, "three") is None, "who has lost it gives nothing back"
    await ours.store.queue.give_back(lease(ours, "two"))
    assert await take(ours, "three") is not None


async def test_a_lease_of_a_clock_that_was_wrong_holds_nobody_up(ours: Tenant) -> None:
    await queued(ours)
    await take(ours, at_ms=NOW_MS + 3_600_000)
    assert await ours.store.queue.operators("two", NOW_MS) == [ours.id]
    assert await take(ours, "two") is not None


async def test_a_suspended_operators_batches_are_nobodys_turn(ours: Tenant) -> None:
    """W12."""
    await queued(ours)
    await ours.store.suspend_operator(ours.id, None, NOW_MS)
    assert await ours.store.queue.operators("one", NOW_MS) == []
    await ours.store.resume_operator(ours.id)
    assert await ours.store.queue.operators("one", NOW_MS) == [ours.id]


async def test_who_has_lost_the_lease_writes_nothing(ours: Tenant, reopen: Opener) -> None:
    job_id = await queued(ours)
    other = ours.through(await reopen())
    await take(ours)
    found = await take(other, "two", NOW_MS + LEASE_MS)
    assert found is not None

    with pytest.raises(LeaseLost):
        await work_off(ours, entities(ours, job_id, "stale"))
    await work_off(other, entities(other, job_id, "p"), "two")
    with pytest.raises(LeaseLost):
        await work_off(ours, entities(ours, job_id, "stale"))

    assert await ours.listed() == ["p"]
    assert (await job_of(ours, job_id)).progress == 50


async def test_a_chunk_is_written_once_however_many_try(ours: Tenant, reopen: Opener) -> None:
    job_id = await queued(ours)
    other = ours.through(await reopen())
    await ours.create("p")
    await take(ours)
    one = chunk(ours, job_id, appended(event_row("p")), ["p"])

    tries = [work_off(tenant, one) for tenant in (ours, other) * 3]
    results = await asyncio.gather(*tries, return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == [*["LeaseLost"] * 5, "NoneType"]
    assert len(await ours.event_data("p")) == 1


async def test_a_chunk_that_breaks_leaves_everything_as_it_was(ours: Tenant) -> None:
    job_id = await queued(ours)
    found = await take(ours)
    good = entities(ours, job_id, "p")

    def broken(_outcome: Outcome) -> Reply:
        raise InternalError

    with pytest.raises(InternalError):
        await work_off(ours, replace(good, write=replace(good.write, finish=broken)))

    assert await ours.listed() == []
    assert await take(ours) == found


async def test_a_cancelled_job_keeps_its_chunks_and_gets_no_more(ours: Tenant) -> None:
    job_id, behind = await queued(ours), await queued(ours)
    await take(ours)
    await work_off(ours, entities(ours, job_id, "p"))

    written = await ours.write(EndJob(job_id), now_ms=NOW_MS + 5)

    with pytest.raises(LeaseLost):
        await work_off(ours, entities(ours, job_id, "q", span=(2, 4)))
    job = await job_of(ours, job_id)
    assert written.outcome is not None
    assert written.outcome.job == job
    assert (job.status, job.progress, job.output) == ("cancelled", 50, '{"succeeded": 2}')
    assert job.completed_at_ms == NOW_MS + 5
    assert await ours.listed() == ["p"]
    assert await left(ours) == [behind]
    found = await take(ours, "two")
    assert found is not None
    assert (found.job_id, found.position) == (behind, 0)


async def test_of_a_chunk_and_a_cancellation_one_comes_first(ours: Tenant, reopen: Opener) -> None:
    other = ours.through(await reopen())
    seen = set()
    for number in range(16):
        job_id = await queued(ours)
        await take(ours)
        name, last = f"p{number:02}", number % 2 == 1
        one = entities(ours, job_id, name, span=(0, 4) if last else (0, 2))

        async def later(job_id: str = job_id, pause_s: float = number % 8 / 2_000) -> Job | None:
            await asyncio.sleep(pause_s)
            return await other.store.queue.cancel(other.id, job_id, NOW_MS)

        wrote, cancelled = await asyncio.gather(
            work_off(ours, one), later(), return_exceptions=True
        )

        job = await job_of(ours, job_id)
        there = name in await ours.listed()
        seen.add((last, job.status, there))
        assert there is (wrote is None)
        assert (job.output is not None) is there
        if job.status == "completed":
            assert isinstance(cancelled, Conflict)
        else:
            assert cancelled == job
        with pytest.raises(LeaseLost):
            await work_off(ours, replace(one, start=one.stop, stop=4))
        assert await left(ours) == []
    assert {status for _, status, _ in seen} >= {"cancelled"}


async def test_a_job_that_is_done_cannot_be_ended_and_an_unknown_one_is_none(
    ours: Tenant, theirs: Tenant
) -> None:
    job_id = await queued(ours)
    assert await theirs.store.queue.cancel(theirs.id, job_id, NOW_MS) is None
    for unknown in ("job_1", "\0"):
        assert await ours.store.queue.cancel(ours.id, unknown, NOW_MS) is None
        assert (await ours.write(EndJob(unknown))).refused == {0: "NOT_FOUND"}
    error = JobError("INTERNAL_ERROR", "No good")
    failed = await ours.store.queue.fail(ours.id, job_id, error, NOW_MS)
    assert failed == await job_of(ours, job_id)
    assert (failed.status, failed.error) == ("failed", error)
    with pytest.raises(Conflict, match="failed already"):
        await ours.store.queue.cancel(ours.id, job_id, NOW_MS)
    with pytest.raises(Conflict, match="failed already"):
        await ours.write(EndJob(job_id))
    assert await left(ours) == []


@pytest.mark.clause("W51")
async def test_a_chunk_that_names_somebody_erased_since_is_not_written(
    ours: Tenant, theirs: Tenant
) -> None:
    await ours.create("gone", "before", "stays")
    await theirs.create("stays")
    await ours.delete("before")
    job_id = await queued(ours)
    after = None
    await ours.delete("gone")
    await ours.create("gone")  # whoever comes back is somebody else
    await theirs.delete("stays")
    after = await queued(ours)
    found = await take(ours)

    with pytest.raises(ErasedMeanwhile) as caught:
        await work_off(ours, entities(ours, job_id, "before", "gone", "stays"))
    assert caught.value.names == {"gone"}
    with pytest.raises(ErasedMeanwhile):
        await work_off(ours, chunk(ours, job_id, appended(event_row("gone")), ["gone"]))
    assert await take(ours) == found
    assert await ours.event_data("gone") == []
    assert await ours.listed() == ["gone", "stays"]

    await work_off(ours, entities(ours, job_id, "before", "stays", span=(0, 4)))
    assert await ours.listed() == ["before", "gone", "stays"]
    await take(ours)
    await work_off(ours, entities(ours, after, "gone", span=(0, 4)))
    assert await left(ours) == []


@pytest.mark.clause("W51")
@pytest.mark.parametrize("alive", [True, False], ids=["alive before", "made meanwhile"])
async def test_whatever_comes_first_nobody_is_brought_back(
    ours: Tenant, reopen: Opener, *, alive: bool
) -> None:
    other = ours.through(await reopen())
    refused = 0
    for number in range(16):
        name = f"p{number:02}"
        if alive:
            await ours.create(name)
        job_id = await queued(ours)
        await take(ours)
        one = entities(ours, job_id, name, "stays", span=(0, 4))

        async def erase(name: str = name, pause_s: float = number % 8 / 2_000) -> None:
            await asyncio.sleep(pause_s)
            if not alive:
                await other.upsert(entity_row(name, '{"by":"another"}'))
            await other.delete(name)

        wrote, _ = await asyncio.gather(work_off(ours, one), erase(), return_exceptions=True)

        assert wrote is None or isinstance(wrote, ErasedMeanwhile)
        assert await ours.entity(name) is None, "erased, and not brought back"
        if wrote is not None:
            refused += 1
            await work_off(ours, entities(ours, job_id, "stays", span=(0, 4)))
            assert await ours.entity(name) is None
        assert await left(ours) == []
    assert await ours.listed() == ["stays"]


async def test_an_operator_queues_no_more_than_it_may_at_once_either(
    ours: Tenant, theirs: Tenant
) -> None:
    tries = [queue(ours, queued_batch(max_batches=3)) for _ in range(9)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 6
    assert len(await left(ours)) == 3
    await queue(theirs, queued_batch(max_batches=3))

    size = len(queued_batch().payload)
    await queue(theirs, queued_batch(max_bytes=2 * size))
    with pytest.raises(Busy, match="bytes"):
        await queue(theirs, queued_batch(max_bytes=2 * size), claim=claim())
    assert len(await left(theirs)) == 2
    await queue(theirs, claim=claim())


async def test_one_batch_may_be_larger_than_all_together(ours: Tenant) -> None:
    await queue(ours, queued_batch(max_bytes=1))
    assert len(await left(ours)) == 1


async def test_a_body_is_sealed_anew_only_where_it_is_what_it_was(ours: Tenant) -> None:
    """W49."""
    job_id = await queued(ours)
    [key] = await ours.store.data_keys.of(ours.id)
    before = await ours.store.queue.payload(ours.id, job_id)
    assert before is not None
    reseal = ours.store.queue.reseal
    after = b"\1" + (7).to_bytes(4, "big") + b"sealed with key 7"

    assert not await reseal(job_id, b"another", after, under=key)
    assert not await reseal(job_id, before, after, under=replace(key, salt=b"another"))
    assert await ours.store.queue.payload(ours.id, job_id) == before
    assert await reseal(job_id, before, after, under=key)
    assert not await reseal(job_id, before, after, under=key)

    assert await ours.store.queue.payload(ours.id, job_id) == after
    assert [one.key_id for one in await ours.store.queue.payloads(ours.id)] == [7]
    assert await ours.store.queue.payload(ours.id, "job_1") is None


async def test_a_store_that_is_closed_takes_no_batch(store: Store, ours: Tenant) -> None:
    await store.close()
    with pytest.raises(Unavailable):
        await queue(ours)
