"""Many tasks, and several stores on one database, at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter

from opdata.errors import Conflict
from opdata.model import JobType
from opdata.storage.reads import JobQuery
from opdata.storage.work import JobDraft, Reply
from tests.contract.conftest import Opener
from tests.contract.tenant import (
    NOW_MS,
    Seal,
    Tenant,
    Written,
    claim,
    entity_row,
    event_row,
    state_row,
)

KIND: JobType = "batch_ingest_entities"


async def test_writes_of_many_tasks_through_two_stores_are_all_there(
    ours: Tenant, reopen: Opener
) -> None:
    both = (ours, ours.through(await reopen()))
    await ours.create("all")

    async def write(number: int) -> None:
        tenant = both[number % 2]
        name = f"p{number:03}"
        await tenant.upsert(entity_row(name), seal=Seal(), job=JobDraft(f"job_{number:03}", KIND))
        await tenant.append(event_row(name, "1"), event_row("all", str(number)))
        await tenant.set_states(state_row(name, str(number)))

    await asyncio.gather(*map(write, range(60)))
    assert await ours.listed(after="all") == [f"p{number:03}" for number in range(60)]
    assert sorted(await ours.event_data("all"), key=int) == [str(n) for n in range(60)]
    assert len((await ours.store.jobs(JobQuery(100, ours.id))).rows) == 60
    for number in range(60):
        assert await both[1].values(f"p{number:03}") == {"balance": str(number)}


async def test_writers_of_the_same_keys_in_opposite_orders_do_not_fail_each_other(
    ours: Tenant, reopen: Opener
) -> None:
    """The last write wins whole: no row is a mixture, and none is lost."""
    both = (ours, ours.through(await reopen()))
    names = [f"p{number}" for number in range(100)]

    async def write(number: int) -> None:
        order = names if number % 2 else names[::-1]
        tenant = both[number % 2]
        await tenant.upsert(*(entity_row(name, f"[{number}]") for name in order), seal=Seal())
        await tenant.set_states(*(state_row(name, f"{number}") for name in order))

    await asyncio.gather(*map(write, range(24)))
    stored = (await ours.store.entities(ours.id, entity_type=None, after=None, limit=1_000)).rows
    assert [one.external_id for one in stored] == sorted(names)
    assert len({one.data for one in stored}) == 1
    values = [await ours.values(name) for name in names]
    assert all(one == values[0] for one in values)


async def test_one_entity_upserted_by_all_at_once_is_created_once(
    ours: Tenant, reopen: Opener
) -> None:
    both = (ours, ours.through(await reopen()))
    written = await asyncio.gather(
        *(both[n % 2].upsert(entity_row("p1", f"[{n}]"), seal=Seal()) for n in range(40))
    )
    outcomes = [one.outcome for one in written if one.outcome is not None]
    assert sum(outcome.created[0] for outcome in outcomes) == 1
    entity = await ours.entity("p1")
    assert entity is not None
    assert {outcome.entity_ids[0] for outcome in outcomes} == {entity.entity_id}


async def test_a_claimed_write_sent_by_many_at_once_is_done_once(
    ours: Tenant, reopen: Opener
) -> None:
    """W41: exactly one execution, and the same answer for all."""
    both = (ours, ours.through(await reopen()))
    await ours.create("p1")

    async def send(number: int) -> Written:
        reply = Reply(200, b"answer %d" % number)
        return await both[number % 2].append(
            event_row("p1", str(number)), claim=claim(), reply=reply
        )

    written = await asyncio.gather(*map(send, range(24)))
    assert Counter(one.reply.replayed for one in written) == {False: 1, True: 23}
    assert len({one.reply.body for one in written}) == 1
    assert len(await ours.event_data("p1")) == 1


async def test_one_event_sent_by_many_at_once_is_stored_once(ours: Tenant, reopen: Opener) -> None:
    """W42."""
    both = (ours, ours.through(await reopen()))
    await ours.create("p1")
    rows = [event_row("p1", '"same"', key="k") for _ in range(24)]
    written = await asyncio.gather(*(both[n % 2].append(row) for n, row in enumerate(rows)))
    [event] = await ours.events("p1") or ()
    firsts = [n for n, one in enumerate(written) if not one.duplicates]
    assert [rows[n].event_id for n in firsts] == [event.event_id]
    assert {one.duplicates[0] for one in written if one.duplicates} == {event.event_id}


async def test_observations_by_all_at_once_leave_the_latest(ours: Tenant, reopen: Opener) -> None:
    """W28."""
    both = (ours, ours.through(await reopen()))
    await ours.create("p1")
    await asyncio.gather(
        *(
            both[n % 2].set_states(state_row("p1", str(n), observed_at_ms=NOW_MS + n * 7 % 40))
            for n in range(40)
        )
    )
    latest = next(n for n in range(40) if n * 7 % 40 == 39)
    assert await ours.values("p1") == {"balance": str(latest)}


async def test_failing_writes_take_no_neighbour_with_them(ours: Tenant) -> None:
    def fail(_outcome: object) -> Reply:
        raise LookupError

    results = await asyncio.gather(
        *(
            ours.create(f"p{n:02}", finish=fail) if n % 3 == 0 else ours.create(f"p{n:02}")
            for n in range(30)
        ),
        return_exceptions=True,
    )
    assert [isinstance(one, LookupError) for one in results] == [n % 3 == 0 for n in range(30)]
    assert await ours.listed() == [f"p{n:02}" for n in range(30) if n % 3]


async def test_dry_runs_among_writes_leave_nothing(ours: Tenant) -> None:
    """W31."""
    await asyncio.gather(*(ours.create(f"p{n:02}", dry_run=n % 2 == 0) for n in range(30)))
    assert await ours.listed() == [f"p{n:02}" for n in range(30) if n % 2]


async def test_whoever_stops_waiting_does_not_undo_the_writes_of_others(ours: Tenant) -> None:
    tasks = [asyncio.create_task(ours.create(f"p{n:02}")) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Cancelled or not, a write is there or it is not; those that were waited for are.
    stored = await ours.listed()
    assert {f"p{n:02}" for n in range(1, 20, 2)} <= set(stored)
    assert (await ours.create("after")).outcome is not None


async def test_a_write_acknowledged_to_one_store_is_read_by_the_other_at_once(
    ours: Tenant, reopen: Opener
) -> None:
    other = ours.through(await reopen())
    for n in range(20):
        writer, reader = (ours, other) if n % 2 else (other, ours)
        await writer.create(f"p{n}")
        assert await reader.entity(f"p{n}") is not None
        await writer.append(event_row(f"p{n}", str(n)))
        assert await reader.event_data(f"p{n}") == [str(n)]


async def test_an_entity_erased_through_one_store_is_gone_for_the_other(
    ours: Tenant, reopen: Opener
) -> None:
    """W51: also where it was written to a moment ago."""
    other = ours.through(await reopen())
    await ours.create("p1")
    await ours.append(event_row("p1", "1"))
    await ours.set_states(state_row("p1", "1"))
    await other.delete("p1")
    assert (await ours.append(event_row("p1", "2"))).refused == {0: "NOT_FOUND"}
    assert (await ours.set_states(state_row("p1", "2"))).refused == {0: "NOT_FOUND"}


async def test_an_entity_made_anew_through_one_store_is_the_one_the_other_writes_to(
    ours: Tenant, reopen: Opener
) -> None:
    """W26."""
    other = ours.through(await reopen())
    await ours.create("p1")
    for number in range(3):
        await ours.append(event_row("p1", f'"old {number}"'))
        await other.delete("p1")
        await other.create("p1")
        await ours.append(event_row("p1", str(number)))
        await ours.set_states(state_row("p1", str(number)))
        assert await other.event_data("p1") == [str(number)]
        assert await other.values("p1") == {"balance": str(number)}


async def test_an_entity_whose_creation_was_undone_is_not_found_by_writes_beside_it(
    ours: Tenant,
) -> None:
    def fail(_outcome: object) -> Reply:
        raise LookupError

    for number in range(5):
        name = f"p{number}"
        done = await asyncio.gather(
            ours.create("first", finish=fail),
            ours.create(name, dry_run=True),
            ours.append(event_row(name)),
            ours.create(name, finish=fail),
            ours.set_states(state_row(name, "1")),
            return_exceptions=True,
        )
        for write in (done[2], done[4]):
            assert isinstance(write, Written)
            assert write.refused == {0: "NOT_FOUND"}


async def test_erasing_that_was_undone_leaves_the_entity_to_writes_beside_it(ours: Tenant) -> None:
    def fail(_outcome: object) -> Reply:
        raise LookupError

    await ours.create("p1")
    done = await asyncio.gather(
        ours.append(event_row("p1", "1")),
        ours.delete("p1", dry_run=True),
        ours.append(event_row("p1", "2")),
        ours.delete("p1", finish=fail),
        ours.append(event_row("p1", "3")),
        return_exceptions=True,
    )
    assert [one.refused for one in done if isinstance(one, Written)] == [{}, {}, {}, {}]
    assert sorted(await ours.event_data("p1")) == ["1", "2", "3"]


async def test_an_operator_created_by_two_at_once_is_created_once(
    ours: Tenant, reopen: Opener
) -> None:
    stores = (ours.store, await reopen())
    made = await asyncio.gather(
        *(stores[n % 2].create_operator("same", bytes(32), NOW_MS) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Conflict) for one in made) == 7
    assert [one.name for one in await ours.store.operators()] == ["ours", "same"]


async def test_the_last_two_keys_revoked_at_once_leave_one(ours: Tenant, reopen: Opener) -> None:
    """WIRE.md §4: the last active key is not revocable."""
    stores = (ours.store, await reopen())
    keys = [await ours.add_key(), await ours.add_key()]
    done = await asyncio.gather(
        *(
            store.revoke_key(ours.id, key.key_id, NOW_MS)
            for store, key in zip(stores, keys, strict=True)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Conflict) for one in done) == 1
    assert sum(key.revoked_at_ms is None for key in await ours.store.keys(ours.id)) == 1


async def test_an_entity_that_another_store_deletes_takes_no_more_events_or_states_here(
    ours: Tenant, reopen: Opener
) -> None:
    """What a store remembers of an entity is worth nothing once another one has written (W51)."""
    theirs = ours.through(await reopen())
    await ours.create("p1", "p2")
    await ours.append(event_row("p1", "1"), event_row("p2", "2"))

    await theirs.delete("p1")

    late = await ours.append(event_row("p1", "3"), event_row("p2", "4"))
    assert late.refused == {0: "NOT_FOUND"}
    assert (await ours.set_states(state_row("p1", "5"))).refused == {0: "NOT_FOUND"}
    assert await ours.event_data("p2") == ["4", "2"]


async def test_events_go_to_the_new_life_of_an_entity_that_another_store_made_anew(
    ours: Tenant, reopen: Opener
) -> None:
    """The old life keeps its events to itself (W26)."""
    theirs = ours.through(await reopen())
    await ours.create("p1")
    await ours.append(event_row("p1", '"old"'))

    await theirs.delete("p1")
    await theirs.create("p1")

    assert (await ours.append(event_row("p1", '"new"'))).refused == {}
    assert await theirs.event_data("p1") == ['"new"']
    assert await ours.event_data("p1") == ['"new"']


async def test_an_entity_deleted_and_made_anew_here_takes_its_new_events(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(event_row("p1", '"old"'))
    await ours.delete("p1")

    assert (await ours.append(event_row("p1", '"late"'))).refused == {0: "NOT_FOUND"}
    await ours.create("p1")
    await ours.append(event_row("p1", '"new"'))

    assert await ours.event_data("p1") == ['"new"']
