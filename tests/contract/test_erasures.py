"""The ledger of erasures, erasing again, and legal holds."""

from __future__ import annotations

import asyncio

from opdata.model import Erasure, LegalHold
from opdata.storage.work import AdoptErasures, DeleteEntity
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Seal, Tenant, Written, entity_row, event_row, state_row

LATER_MS = NOW_MS + 1_000


async def entity_id(tenant: Tenant, external_id: str) -> str:
    entity = await tenant.entity(external_id)
    assert entity is not None
    return entity.entity_id


async def erase_as(tenant: Tenant, external_id: str, reason: str | None) -> Written:
    return await tenant.write(DeleteEntity(external_id, reason=reason), now_ms=LATER_MS)


async def test_an_erasure_is_in_the_ledger_by_the_id_that_tells_nothing(
    ours: Tenant, theirs: Tenant
) -> None:
    await ours.create("p1", "p2")
    await theirs.create("p1")
    erased = await entity_id(ours, "p1")
    await erase_as(ours, "p1", "DSR-114")
    assert await ours.erasures() == [Erasure(erased, LATER_MS, "DSR-114")]
    assert await theirs.erasures() == []


async def test_an_erasure_without_a_reason_has_none(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.delete("p1")
    assert [erasure.reason for erasure in await ours.erasures()] == [None]


async def test_what_was_not_erased_is_not_in_the_ledger(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.place_hold("p1")
    await ours.delete("p1")
    await ours.delete("never was")
    await ours.delete("p1", dry_run=True)
    assert await ours.erasures() == []


async def test_each_life_of_a_name_has_its_own_entry(ours: Tenant) -> None:
    ids = []
    for _ in range(3):
        await ours.create("p1")
        ids.append(await entity_id(ours, "p1"))
        await ours.delete("p1")
    assert [erasure.entity_id for erasure in await ours.erasures()] == sorted(ids)


async def test_the_ledger_is_read_in_pages(ours: Tenant) -> None:
    names = [f"p{at}" for at in range(7)]
    await ours.create(*names)
    for name in names:
        await ours.delete(name)
    read: list[Erasure] = []
    while page := await ours.store.erasures(
        ours.id, after=read[-1].entity_id if read else None, limit=3
    ):
        read += page
    assert read == await ours.erasures()
    assert len(read) == 7


async def test_adopted_erasures_join_those_that_are_there_and_change_none(ours: Tenant) -> None:
    await ours.create("p1")
    erased = await entity_id(ours, "p1")
    await ours.delete("p1")
    elsewhere = Erasure("ent_ffffffffffffffff", 5, "DSR-1")
    twice = [elsewhere, Erasure(erased, 7, "other")]
    for _ in range(2):
        await ours.write(AdoptErasures(twice), now_ms=LATER_MS)
    await ours.write(AdoptErasures([]))
    assert await ours.erasures() == [Erasure(erased, NOW_MS), elsewhere]


async def test_who_is_alive_again_is_found_by_the_ledger_and_nobody_else(
    ours: Tenant, theirs: Tenant
) -> None:
    await ours.create("a", "b", "c", "d")
    await theirs.create("a")
    assert await ours.returned() == []
    ids = {name: await entity_id(ours, name) for name in ("a", "b", "c", "d")}
    await ours.delete("c")
    await ours.create("c")  # came back by themselves
    # As after a restore from a backup in which they are alive.
    ledger = [Erasure(ids[name], NOW_MS) for name in ("b", "c", "d")]
    await ours.write(AdoptErasures(ledger))
    assert await ours.returned() == ["b", "d"]
    page = await ours.store.returned(ours.id, after="b", limit=1)
    assert list(page) == [("d", ids["d"])]
    assert await theirs.returned() == []


async def test_an_erasure_by_id_leaves_whoever_has_the_name_now(ours: Tenant) -> None:
    await ours.create("p1")
    first = await entity_id(ours, "p1")
    await ours.delete("p1")
    await ours.create("p1")
    second = await entity_id(ours, "p1")
    refused = await ours.write(DeleteEntity("p1", first))
    assert refused.refused == {0: "NOT_FOUND"}
    assert await entity_id(ours, "p1") == second
    assert (await ours.write(DeleteEntity("p1", second))).refused == {}
    assert await ours.entity("p1") is None


async def test_sweeping_what_was_erased_leaves_everything_else(ours: Tenant) -> None:
    await ours.upsert(entity_row("p1"), entity_row("p2"), seal=Seal())
    await ours.delete("p1")
    await ours.store.sweep_erased()
    entity = await ours.entity("p2")
    assert entity is not None
    assert entity.sealed == b"sealed 1"


async def test_an_entity_under_a_legal_hold_is_not_erased(ours: Tenant) -> None:
    """W53."""
    await ours.upsert(entity_row("p1"), seal=Seal())
    before = await ours.entity("p1")
    assert (await ours.place_hold("p1")).refused == {}
    refused = await ours.delete("p1")
    assert refused.outcome is not None
    assert (refused.outcome.held, refused.refused) == (True, {})
    assert await ours.entity("p1") == before


async def test_writes_to_an_entity_under_a_legal_hold_go_on(ours: Tenant) -> None:
    """W53."""
    await ours.create("p1")
    await ours.place_hold("p1")
    await ours.upsert(entity_row("p1", '{"a":2}'))
    assert (await ours.append(event_row("p1", "1"))).refused == {}
    assert (await ours.set_states(state_row("p1", "1"))).refused == {}
    entity = await ours.entity("p1")
    assert entity is not None
    assert entity.data == '{"a":2}'
    assert await ours.held() == ["p1"]


async def test_a_hold_that_is_lifted_holds_no_more(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.place_hold("p1")
    assert (await ours.lift_hold("p1")).refused == {}
    assert (await ours.lift_hold("p1")).refused == {0: "NOT_FOUND"}
    assert await ours.held() == []
    assert (await ours.delete("p1")).refused == {}
    assert await ours.entity("p1") is None


async def test_nobody_is_held_who_is_not_there(ours: Tenant) -> None:
    assert (await ours.place_hold("never was")).refused == {0: "NOT_FOUND"}
    await ours.create("p1")
    await ours.delete("p1")
    assert (await ours.place_hold("p1")).refused == {0: "NOT_FOUND"}
    assert await ours.held() == []


async def test_a_hold_is_one_operators(ours: Tenant, theirs: Tenant) -> None:
    await ours.create("p1")
    await theirs.create("p1")
    await ours.place_hold("p1")
    assert (await theirs.lift_hold("p1")).refused == {0: "NOT_FOUND"}
    assert (await theirs.delete("p1")).refused == {}
    assert await theirs.entity("p1") is None
    assert await ours.held() == ["p1"]


async def test_placing_again_changes_the_reason_and_not_the_time(ours: Tenant) -> None:
    await ours.create("b", "a")
    await ours.place_hold("b", "case 1")
    await ours.place_hold("a", "case 2")
    await ours.place_hold("b", "case 3", now_ms=LATER_MS)
    assert list(await ours.store.holds(ours.id)) == [
        LegalHold("a", "case 2", NOW_MS),
        LegalHold("b", "case 3", NOW_MS),
    ]


async def test_of_a_hold_and_an_erasure_at_the_same_moment_one_comes_first(
    ours: Tenant, reopen: Opener
) -> None:
    """W53: never both, and never neither."""
    elsewhere = ours.through(await reopen())
    names = [f"p{at:02}" for at in range(40)]
    await ours.create(*names)
    pairs = [
        (elsewhere.place_hold(name), ours.delete(name))
        if at % 2
        else (ours.place_hold(name), elsewhere.delete(name))
        for at, name in enumerate(names)
    ]
    done = await asyncio.gather(*(asyncio.gather(*pair) for pair in pairs))
    held = {}
    for name, (placed, deleted) in zip(names, done, strict=True):
        assert deleted.outcome is not None
        held[name] = placed.refused == {}
        assert (deleted.outcome.held, deleted.refused) == (held[name], {})
    assert await ours.listed() == await ours.held() == [name for name in names if held[name]]
    assert len(await ours.erasures()) == len(names) - len(await ours.held())
