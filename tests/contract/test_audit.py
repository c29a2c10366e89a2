"""The audit log: a chain an operator, stored with what it records."""

from __future__ import annotations

import asyncio

import pytest

from opdata.audit import INSTALLATION, Action, Entry, Head, Record, chained, head_at
from opdata.auditing import Verdict, verify_chain
from opdata.errors import Conflict, IdempotencyKeyReused
from opdata.keys import new_key
from opdata.model import Quota
from opdata.storage.base import Store
from opdata.storage.reads import MAX_PAGE_BYTES, AuditQuery
from opdata.storage.work import (
    AdoptErasures,
    ChangeSettings,
    DeleteEntity,
    LiftHold,
    Outcome,
    PlaceHold,
    Reply,
    Write,
)
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Tenant, claim

ADMIN = "key:key_0000000000000001"


def entry(at_ms: int = NOW_MS, action: Action = "hold.placed", subject: str | None = None) -> Entry:
    return Entry(action, ADMIN, subject, {"b": [1], "a": "ü"}, at_ms)


async def chain(tenant: Tenant) -> list[Record]:
    return list(await tenant.store.audit.chain(tenant.id, after=0, limit=1_000))


async def actions(tenant: Tenant) -> list[str]:
    assert (await verify_chain(tenant.store.audit, tenant.id)).problem is None
    return [record.action for record in await chain(tenant)]


async def test_entries_are_chained_in_the_order_of_recording(ours: Tenant) -> None:
    first, second, third = entry(), entry(NOW_MS - 5, subject="ent_1"), entry(NOW_MS + 1)
    await ours.store.audit.record(ours.id, [first])
    await ours.store.audit.record(ours.id, [second, third])
    stored = await chain(ours)
    assert stored == chained(Head(ours.id), [first, second, third])
    assert [record.seq for record in stored] == [1, 2, 3]
    assert stored[0].detail == '{"a":"ü","b":[1]}'
    assert [record.subject for record in stored] == [None, "ent_1", None]
    assert len({record.hash for record in stored}) == 3


async def test_an_operator_has_a_chain_of_its_own_and_so_has_the_installation(
    ours: Tenant, theirs: Tenant
) -> None:
    log = ours.store.audit
    assert list(await log.heads()) == []
    for operator_id in (theirs.id, INSTALLATION, ours.id, INSTALLATION):
        await log.record(operator_id, [entry()])
    heads = {head.operator_id: head.seq for head in await log.heads()}
    assert heads == {INSTALLATION: 2, ours.id: 1, theirs.id: 1}
    assert [head.operator_id for head in await log.heads()] == [INSTALLATION, ours.id, theirs.id]
    assert (await log.heads())[1] == head_at((await chain(ours))[-1])
    assert (await chain(ours))[0].hash != (await chain(theirs))[0].hash


async def test_a_chain_is_read_in_parts(ours: Tenant) -> None:
    await ours.store.audit.record(ours.id, [entry(NOW_MS + at) for at in range(7)])
    read: list[Record] = []
    while page := await ours.store.audit.chain(ours.id, after=len(read), limit=3):
        assert len(page) <= 3
        read += page
    assert read == await chain(ours)


async def test_entries_are_listed_newest_first_by_time_and_action(
    ours: Tenant, theirs: Tenant
) -> None:
    kinds: list[Action] = ["key.created", "hold.placed", "key.created", "hold.placed"]
    log = ours.store.audit
    await log.record(ours.id, [entry(NOW_MS + at // 2, one) for at, one in enumerate(kinds)])
    await log.record(theirs.id, [entry(NOW_MS)])

    async def seqs(query: AuditQuery) -> list[int]:
        return [record.seq for record in (await log.entries(ours.id, query)).rows]

    assert await seqs(AuditQuery(10)) == [4, 3, 2, 1]
    assert await seqs(AuditQuery(2)) == [4, 3]
    assert await seqs(AuditQuery(10, before=(NOW_MS + 1, 3))) == [2, 1]
    assert await seqs(AuditQuery(10, action="key.created")) == [3, 1]
    assert await seqs(AuditQuery(10, from_ms=NOW_MS + 1)) == [4, 3]
    assert await seqs(AuditQuery(10, to_ms=NOW_MS + 1)) == [2, 1]
    assert await seqs(AuditQuery(10, from_ms=NOW_MS + 2)) == []


async def test_a_page_of_large_entries_is_short_and_loses_none(ours: Tenant) -> None:
    log = ours.store.audit
    large = {"noted": "é" * (MAX_PAGE_BYTES // 4)}  # half a page
    for at in range(5):
        await log.record(ours.id, [Entry("settings.changed", "key:k", None, large, NOW_MS + at)])

    listed, before = [], None
    while True:
        page = await log.entries(ours.id, AuditQuery(100, before=before))
        listed.append([record.seq for record in page.rows])
        if not page.more:
            break
        before = (page.rows[-1].at_ms, page.rows[-1].seq)

    assert [seq for page in listed for seq in page] == [5, 4, 3, 2, 1]
    assert max(map(len, listed)) == 2


async def test_eight_writers_leave_one_chain_without_a_gap(ours: Tenant, reopen: Opener) -> None:
    stores = [ours.store, await reopen()]

    async def write(number: int) -> None:
        tenant = ours.through(stores[number % 2])
        for at in range(6):
            one = entry(subject=f"{number}-{at}")
            if at % 2:
                await tenant.store.audit.record(ours.id, [one])
            else:
                await tenant.write(ChangeSettings(data_retention_days=at + 1), audit=one)

    await asyncio.gather(*map(write, range(8)))
    records = await chain(ours)
    assert [record.seq for record in records] == list(range(1, 49))
    assert {record.subject for record in records} == {
        f"{n}-{at}" for n in range(8) for at in range(6)
    }
    assert await verify_chain(ours.store.audit, ours.id) == Verdict(head_at(records[-1]), None)


async def test_an_entry_about_an_entity_has_its_id_and_never_its_name(ours: Tenant) -> None:
    await ours.create("a person's name")
    entity = await ours.entity("a person's name")
    assert entity is not None
    for work in (
        PlaceHold("a person's name", "case 1"),
        LiftHold("a person's name"),
        DeleteEntity("a person's name", reason="DSR-1"),
    ):
        await ours.write(work, audit=entry())
    assert [record.subject for record in await chain(ours)] == [entity.entity_id] * 3
    assert "person" not in repr(await chain(ours))


async def test_what_was_refused_is_not_recorded(ours: Tenant) -> None:
    await ours.create("p1")
    for work in (DeleteEntity("nobody"), PlaceHold("nobody", "r"), LiftHold("p1")):
        assert (await ours.write(work, audit=entry())).refused == {0: "NOT_FOUND"}
    await ours.place_hold("p1")
    held = await ours.write(DeleteEntity("p1"), audit=entry())
    assert held.outcome is not None
    assert held.outcome.held
    assert await chain(ours) == []


async def test_a_dry_run_is_not_recorded(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.write(DeleteEntity("p1"), dry_run=True, audit=entry())
    assert await chain(ours) == []
    assert await ours.entity("p1") is not None


async def test_a_write_that_is_answered_from_its_claim_is_recorded_once(ours: Tenant) -> None:
    work = ChangeSettings(data_retention_days=30)
    for _ in range(2):
        await ours.write(work, claim=claim(), audit=entry())
    with pytest.raises(IdempotencyKeyReused):
        await ours.write(work, claim=claim(body=b"other"), audit=entry())
    assert await actions(ours) == ["hold.placed"]


async def test_a_write_that_fails_leaves_no_entry_and_an_entry_that_fails_no_write(
    ours: Tenant,
) -> None:
    def fail(_outcome: Outcome) -> Reply:
        raise ZeroDivisionError

    work = ChangeSettings(data_retention_days=30)
    with pytest.raises(ZeroDivisionError):
        await ours.store.write(Write(ours.id, NOW_MS, work, fail, audit=entry()))
    impossible = Entry("hold.placed", ADMIN, None, {"": object()}, NOW_MS)
    with pytest.raises(TypeError):
        await ours.write(work, audit=impossible)
    assert await chain(ours) == []
    operator = await ours.store.operator(ours.id)
    assert operator is not None
    assert operator.settings.data_retention_days is None


async def test_adopted_erasures_are_recorded(ours: Tenant) -> None:
    await ours.write(AdoptErasures([]), audit=entry(action="erasures.adopted"))
    assert await actions(ours) == ["erasures.adopted"]


async def test_what_is_done_to_operators_and_keys_is_recorded_with_it(store: Store) -> None:
    made = await store.create_operator(
        "new", bytes(32), NOW_MS, audit=entry(action="operator.created")
    )
    tenant, key = Tenant(store, made), new_key()
    row = key.record(made.operator_id, "label", NOW_MS)
    await store.create_key(row, key.key_hash, audit=entry(action="key.created"))
    await store.relabel_key(made.operator_id, key.key_id, "x", audit=entry(action="key.relabelled"))
    await store.set_limits(
        made.operator_id, {"read": Quota(1, 1)}, audit=entry(action="operator.limited")
    )
    for _ in range(2):
        await store.revoke_key(
            *(made.operator_id, key.key_id, NOW_MS),
            keep_last=False,
            audit=entry(action="key.revoked"),
        )
    await store.suspend_operator(
        made.operator_id, None, NOW_MS, audit=entry(action="operator.suspended")
    )
    for _ in range(2):
        await store.resume_operator(made.operator_id, audit=entry(action="operator.resumed"))
    assert await actions(tenant) == [
        *("operator.created", "key.created", "key.relabelled", "operator.limited"),
        *("key.revoked", "operator.suspended", "operator.resumed"),
    ], "once each: what changes nothing is not recorded"


async def test_what_was_not_done_to_operators_and_keys_is_not_recorded(ours: Tenant) -> None:
    store = ours.store
    with pytest.raises(Conflict):
        await store.create_operator("ours", bytes(32), NOW_MS, audit=entry())
    assert await store.relabel_key(ours.id, "key_unknown", "x", audit=entry()) is None
    assert await store.revoke_key(ours.id, "key_unknown", NOW_MS, audit=entry()) is None
    only = await ours.add_key()
    with pytest.raises(Conflict):
        await store.revoke_key(ours.id, only.key_id, NOW_MS, audit=entry())
    assert await store.audit.heads() == []
