"""Key checks, purging, reports, readiness and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from opdata.audit import Entry
from opdata.errors import Unavailable
from opdata.model import DataKey, JobError, Quota
from opdata.storage.audit import AuditLog
from opdata.storage.base import Store
from opdata.storage.leases import Lease
from opdata.storage.queue import Chunk, Queue
from opdata.storage.reads import AuditQuery, EventQuery, EventScan, JobQuery, StateScan
from opdata.storage.work import IDEMPOTENCY_TTL_MS, Reply, Write
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Tenant, claim, event_row, state_row, upserted


async def test_a_key_check_is_recorded_once_and_never_changed(store: Store, reopen: Opener) -> None:
    assert dict(await store.key_checks()) == {}
    await store.add_key_check(1, b"first")
    await store.add_key_check(1, b"second")
    await store.add_key_check(7, b"\x00\xff")
    for one in (store, await reopen()):
        assert dict(await one.key_checks()) == {1: b"first", 7: b"\x00\xff"}


async def test_a_purge_forgets_expired_claims_and_only_those(ours: Tenant) -> None:
    """W40."""
    await ours.create("p1")
    for at in range(5):
        await ours.append(event_row("p1", str(at)), claim=claim(f"k{at}"), now_ms=NOW_MS + at)
    assert await ours.store.purge(NOW_MS) == 0
    assert await ours.store.purge(NOW_MS + 2 + IDEMPOTENCY_TTL_MS) == 3
    assert await ours.store.purge(NOW_MS + 2 + IDEMPOTENCY_TTL_MS) == 0
    replayed = [
        (
            await ours.append(event_row("p1"), claim=claim(f"k{at}"), now_ms=NOW_MS + 5)
        ).reply.replayed
        for at in range(5)
    ]
    assert replayed == [False, False, False, True, True]


async def test_a_purge_forgets_all_there_is_however_much(ours: Tenant, theirs: Tenant) -> None:
    await asyncio.gather(
        *((ours, theirs)[n % 2].upsert(claim=claim(f"k{n}")) for n in range(2_100))
    )
    assert await ours.store.purge(NOW_MS + IDEMPOTENCY_TTL_MS) == 2_100


async def test_a_purge_leaves_all_data(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(event_row("p1", "1"), claim=claim())
    await ours.set_states(state_row("p1", "1"))
    await ours.store.purge(NOW_MS + 100 * IDEMPOTENCY_TTL_MS)
    assert await ours.entity("p1") is not None
    assert await ours.event_data("p1") == ["1"]
    assert await ours.values("p1") == {"balance": "1"}


async def test_a_report_counts_rows_and_finds_no_problems(ours: Tenant, theirs: Tenant) -> None:
    await ours.create("p1", "p2")
    await ours.append(*(event_row("p1") for _ in range(3)))
    await theirs.create("p1")
    await theirs.set_states(state_row("p1", "1"))
    await theirs.add_key()
    report = await ours.store.report()
    counts = {"operators": 2, "api_keys": 1, "entities": 3, "events": 3, "states": 1, "jobs": 0}
    counts["queued_batches"] = 0
    assert dict(report.rows) == counts
    assert list(report.problems) == []
    assert list(report.pending) == []
    assert report.applied
    assert report.size_bytes > 0
    assert report.store
    assert report.version


async def test_an_open_store_is_ready(store: Store) -> None:
    await store.ping()


def chunk(tenant: Tenant) -> Chunk:
    write = Write(tenant.id, NOW_MS, upserted(), lambda _: Reply(200, b""))
    return Chunk("job_1", 0, 1, 1, frozenset(), write)


def data_key(tenant: Tenant) -> DataKey:
    return DataKey(tenant.id, 1, 1, b"salt", None, NOW_MS)


EVERY_METHOD: dict[str, Callable[[Tenant], Awaitable[object]]] = {
    "ping": lambda t: t.store.ping(),
    "report": lambda t: t.store.report(),
    "write": lambda t: t.create("p1"),
    "entity": lambda t: t.entity("p1"),
    "entities": lambda t: t.listed(),
    "events": lambda t: t.store.events(t.id, "p1", EventQuery(1)),
    "states": lambda t: t.store.states(t.id, "p1"),
    "all_events": lambda t: t.store.all_events(t.id, EventScan(1)),
    "all_states": lambda t: t.store.all_states(t.id, StateScan(1)),
    "job": lambda t: t.store.job(t.id, "job_1"),
    "jobs": lambda t: t.store.jobs(JobQuery(1)),
    "create_operator": lambda t: t.store.create_operator("new", b"", NOW_MS),
    "operators": lambda t: t.store.operators(),
    "operator": lambda t: t.store.operator(t.id),
    "set_limits": lambda t: t.store.set_limits(t.id, {}),
    "suspend_operator": lambda t: t.store.suspend_operator(t.id, None, NOW_MS),
    "resume_operator": lambda t: t.store.resume_operator(t.id),
    "create_key": lambda t: t.add_key(),
    "keys": lambda t: t.store.keys(t.id),
    "authenticate": lambda t: t.store.authenticate(b"hash", NOW_MS),
    "relabel_key": lambda t: t.store.relabel_key(t.id, "key_1", "label"),
    "revoke_key": lambda t: t.store.revoke_key(t.id, "key_1", NOW_MS),
    "touch_keys": lambda t: t.store.touch_keys({"key_1": NOW_MS}),
    "take": lambda t: t.store.take(t.id, "read", Quota(1, 1), NOW_MS),
    "key_checks": lambda t: t.store.key_checks(),
    "add_key_check": lambda t: t.store.add_key_check(1, b"check"),
    "purge": lambda t: t.store.purge(NOW_MS),
    "sweep_erased": lambda t: t.store.sweep_erased(),
    "erasures": lambda t: t.store.erasures(t.id, after=None, limit=1),
    "returned": lambda t: t.store.returned(t.id, after=None, limit=1),
    "holds": lambda t: t.store.holds(t.id),
    "audit.record": lambda t: t.store.audit.record(t.id, [Entry("hold.placed", "server")]),
    "audit.chain": lambda t: t.store.audit.chain(t.id, after=0, limit=1),
    "audit.entries": lambda t: t.store.audit.entries(t.id, AuditQuery(1)),
    "audit.heads": lambda t: t.store.audit.heads(),
    "queue.operators": lambda t: t.store.queue.operators("one", NOW_MS),
    "queue.take": lambda t: t.store.queue.take(Lease(t.id, "one", NOW_MS), NOW_MS),
    "queue.renew": lambda t: t.store.queue.renew(Lease(t.id, "one", NOW_MS)),
    "queue.give_back": lambda t: t.store.queue.give_back(Lease(t.id, "one", NOW_MS)),
    "queue.work_off": lambda t: t.store.queue.work_off(Lease(t.id, "one", NOW_MS), chunk(t)),
    "queue.cancel": lambda t: t.store.queue.cancel(t.id, "job_1", NOW_MS),
    "queue.fail": lambda t: t.store.queue.fail(t.id, "job_1", JobError("X", "x"), NOW_MS),
    "queue.count": lambda t: t.store.queue.count(),
    "queue.payloads": lambda t: t.store.queue.payloads(t.id),
    "queue.payload": lambda t: t.store.queue.payload(t.id, "job_1"),
    "queue.reseal": lambda t: t.store.queue.reseal("job_1", b"", b"", under=data_key(t)),
}


def test_every_method_of_a_store_is_tried_on_a_closed_one() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")}
    methods |= {f"audit.{name}" for name in vars(AuditLog) if not name.startswith("_")}
    methods |= {f"queue.{name}" for name in vars(Queue) if not name.startswith("_")}
    assert methods == {*EVERY_METHOD, "close"}


@pytest.mark.parametrize("call", EVERY_METHOD.values(), ids=EVERY_METHOD)
async def test_a_closed_store_is_unavailable(
    ours: Tenant, call: Callable[[Tenant], Awaitable[object]]
) -> None:
    await ours.store.close()
    with pytest.raises(Unavailable):
        await call(ours)


async def test_closing_twice_is_closing_once(store: Store) -> None:
    await store.close()
    await store.close()


async def test_closing_one_store_leaves_another_on_the_same_database_open(
    ours: Tenant, reopen: Opener
) -> None:
    other = ours.through(await reopen())
    await ours.store.close()
    await other.create("p1")
    assert await other.listed() == ["p1"]


async def test_writes_in_progress_when_a_store_closes_are_done_or_refused_as_unavailable(
    ours: Tenant, reopen: Opener
) -> None:
    async def write(number: int) -> str | None:
        try:
            await ours.create(f"p{number:02}")
        except Unavailable:
            return None
        return f"p{number:02}"

    async def close_soon() -> None:
        await asyncio.sleep(0)
        await ours.store.close()

    *written, _ = await asyncio.gather(*map(write, range(30)), close_soon())
    acknowledged = [name for name in written if name is not None]
    assert acknowledged, "writes handed in before the end are finished"
    assert await ours.through(await reopen()).listed() == acknowledged
