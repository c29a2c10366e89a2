"""The worker of a process: what it waits for, what it gives up, and what a restore leaves it (W30)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from opdata import jobs
from opdata.audit import Entry
from opdata.clock import now_ms
from opdata.erasure import replay
from opdata.errors import Busy, Unavailable
from opdata.ingest import check_entities, chunks
from opdata.jobs import Turns, Worker
from opdata.key_ring import KeyRing
from opdata.master_keys import check_value
from opdata.model import BatchResult, Erasure, Job, JobType
from opdata.pii import Sealer, next_data_key, sealer_of
from opdata.storage.leases import Lease
from tests.contract.tenant import Tenant, queued_batch
from tests.support.api import player

pytestmark = [
    pytest.mark.clause("W30"),
    pytest.mark.parametrize("reopen", ["sqlite", "postgres18"], indirect=True),
]

MASTER = bytes(32)


class Working:
    """A worker on the store of a tenant, and what it tells."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.key_ring = KeyRing(tenant.store, lambda: {1: MASTER})
        self.noted: list[tuple[JobType, int, int]] = []
        self.busy = False
        self.turns_taken = 0
        self.broken_seals = 0
        self.worker = self.another(self.turn)

    def another(self, turns: Turns) -> Worker:
        """A worker of another process, which tells here as well."""
        return Worker(self.tenant.store, self.key_ring, turns, self.note, self.seal_broken)

    def seal_broken(self) -> None:
        self.broken_seals += 1

    def note(self, kind: JobType, result: BatchResult) -> None:
        self.noted.append((kind, result.succeeded, len(result.errors)))

    @asynccontextmanager
    async def turn(self, _operator_id: int) -> AsyncIterator[None]:
        if self.busy:
            raise Busy
        self.turns_taken += 1
        yield

    async def queue(self, job_id: str, items: Any, *, template_id: str = "tpl_igaming") -> None:
        sealer = await self.key_ring.sealer(self.tenant.id)
        sealed = sealer.seal_batch(job_id, json.dumps(items).encode())
        work = queued_batch(job_id, sealed, items=len(items), template_id=template_id)
        await self.tenant.write(work, now_ms=now_ms())

    async def job(self, job_id: str) -> Job:
        job = await self.tenant.store.job(self.tenant.id, job_id)
        assert job is not None
        return job


@pytest.fixture
async def working(ours: Tenant, monkeypatch: pytest.MonkeyPatch) -> Working:
    await ours.store.add_key_check(1, check_value(MASTER))
    monkeypatch.setattr(jobs, "_FIRST_REST_S", 0.0)
    monkeypatch.setattr(jobs, "_LONGEST_REST_S", 0.0)
    monkeypatch.setattr(chunks, "CHUNK_ITEMS", 2)
    return Working(ours)


async def test_a_batch_takes_a_turn_for_each_chunk_and_tells_what_became_of_it(
    working: Working,
) -> None:
    await working.queue("job_1", [player("a"), 5, player("b"), player("c"), player("d")])

    assert await working.worker.round()

    assert working.turns_taken == 3
    assert working.noted == [
        ("batch_ingest_entities", 1, 1),
        ("batch_ingest_entities", 2, 0),
        ("batch_ingest_entities", 1, 0),
    ]
    assert await working.tenant.listed() == ["a", "b", "c", "d"]
    job = await working.job("job_1")
    assert json.loads(job.output or "")["succeeded"] == 4
    assert not await working.worker.round()


async def test_a_worker_that_is_woken_does_not_wait_for_its_next_look(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_LOOK_EVERY_S", 1_000)
    running = asyncio.create_task(working.worker.run())
    await asyncio.sleep(0.05)
    await working.queue("job_1", [player("a")])
    working.worker.wake()
    async with asyncio.timeout(20):
        while not working.noted:  # noqa: ASYNC110 - it tells nobody else
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await working.tenant.listed() == ["a"]


async def test_what_passes_is_waited_for_and_fails_no_job(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    await working.queue("job_1", [player("a"), player("b"), player("c")])
    working.busy = True
    for _ in range(5):
        assert await working.worker.round()
    job = await working.job("job_1")
    assert (job.status, job.progress) == ("processing", 0)

    working.busy = False
    queue = working.tenant.store.queue
    write, tries = queue.work_off, 0

    async def break_down(*arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if tries in {1, 3, 4, 5, 6, 7}:
            raise Unavailable
        await write(*arguments)

    monkeypatch.setattr(queue, "work_off", break_down)
    for _ in range(7):
        await working.worker.round()
    assert (await working.job("job_1")).status == "completed"
    assert await working.tenant.listed() == ["a", "b", "c"]
    other = Lease(working.tenant.id, "other", now_ms() + 1)
    assert await queue.take(other, now_ms()) is None, "nothing is left to take"


async def test_a_batch_that_meets_a_fault_again_and_again_fails_and_those_behind_it_go_on(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    await working.queue("job_1", [player("a"), player("b"), player("bad")])
    await working.queue("job_2", [player("c")])

    def broken(batch: Any, *rest: Any) -> Any:
        if any(item.externalId == "bad" for item in batch.items):
            raise RuntimeError
        return check_entities(batch, *rest)

    monkeypatch.setattr(chunks, "check_entities", broken)
    for _ in range(5):
        await working.worker.round()

    job = await working.job("job_1")
    assert (job.status, job.progress) == ("failed", 66)
    assert job.error is not None
    assert job.error.code == "INTERNAL_ERROR"
    assert json.loads(job.output or "")["succeeded"] == 2
    assert (await working.job("job_2")).status == "completed"
    assert await working.tenant.listed() == ["a", "b", "c"]


async def test_a_template_that_is_not_known_any_more_fails_the_job(working: Working) -> None:
    await working.queue("job_1", [player("a")], template_id="tpl_of_yesterday")
    await working.worker.round()
    job = await working.job("job_1")
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "TEMPLATE_NOT_CONFIGURED"
    assert "tpl_of_yesterday" in job.error.message
    assert await working.tenant.store.queue.count() == 0


async def test_a_body_sealed_by_a_key_that_is_not_known_yet_is_waited_for(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W49."""
    tenant = working.tenant
    stale = await working.key_ring.sealer(tenant.id)
    [newest] = await tenant.store.data_keys.of(tenant.id)
    key = next_data_key({1: MASTER}, newest, 1, now_ms())
    entry = Entry("crypto.data_key_added", "cli:test", str(key.key_id))
    assert await tenant.store.data_keys.add(key, audit=entry)
    fresh = sealer_of({1: MASTER}, await tenant.store.data_keys.of(tenant.id))
    body = json.dumps([player("a")]).encode()
    await tenant.write(queued_batch("job_1", fresh.seal_batch("job_1", body), items=1))
    await tenant.write(queued_batch("job_2", fresh.seal_batch("job_1", body), items=1))

    async def sealer(_operator_id: int) -> Sealer:
        return stale

    monkeypatch.setattr(working.key_ring, "sealer", sealer)
    await working.worker.round()
    assert (await working.job("job_1")).status == "processing"
    stale = fresh
    for _ in range(6):
        await working.worker.round()

    assert (await working.job("job_1")).status == "completed"
    moved = await working.job("job_2")
    assert moved.status == "failed"
    assert moved.error is not None
    assert "does not open" in moved.error.message
    assert working.broken_seals == 1
    assert await tenant.listed() == ["a"]


async def test_the_lease_is_renewed_while_a_chunk_waits_for_its_turn(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_MS", 300)
    monkeypatch.setattr(jobs, "_RENEWED_EVERY_S", 0.05)
    go_on = asyncio.Event()

    @asynccontextmanager
    async def slow(_operator_id: int) -> AsyncIterator[None]:
        await go_on.wait()
        yield

    worker = working.another(slow)
    await working.queue("job_1", [player("a")])
    round_ = asyncio.create_task(worker.round())
    await asyncio.sleep(0.9)
    other = Lease(working.tenant.id, "other", now_ms() + 10_000)
    assert await working.tenant.store.queue.take(other, now_ms()) is None
    go_on.set()
    assert await round_
    assert await working.tenant.listed() == ["a"]


@pytest.mark.clause("W51")
async def test_a_replay_of_erasures_that_are_news_ends_what_is_queued(working: Working) -> None:
    tenant = working.tenant
    await tenant.create("known")
    await tenant.delete("known")
    [known] = await tenant.erasures()
    await working.queue("job_1", [player("a"), player("b"), player("c")])

    same = await replay(tenant.store, {tenant.id: [known]}, actor="cli:test")
    assert same.ended == 0
    news = Erasure("ent_0123456789abcdef", now_ms())
    ended = await replay(tenant.store, {tenant.id: [known, news]}, actor="cli:test")

    assert ended.ended == 1
    job = await working.job("job_1")
    assert job.status == "failed"
    assert job.error is not None
    assert "send it again" in job.error.message
    assert not await working.worker.round()
    assert await tenant.listed() == []
