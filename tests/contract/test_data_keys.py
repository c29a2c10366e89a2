"""Operators' data keys, and sealed records that are moved from one key to another (W49)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from opdata.audit import Entry
from opdata.errors import Unavailable
from opdata.model import DataKey
from opdata.storage.base import Store
from opdata.storage.data_keys import DataKeys, Resealed, SealedRecord
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Seal, Tenant, entity_row

LATER_MS = NOW_MS + 1_000


def key_of(tenant: Tenant, key_id: int, master_key_id: int = 1) -> DataKey:
    salt, fingerprint_key = bytes([key_id]) * 32, bytes([0, key_id, 0xFF])
    return DataKey(tenant.id, key_id, master_key_id, salt, fingerprint_key, NOW_MS + key_id)


def added(key: DataKey) -> Entry:
    return Entry("crypto.data_key_added", "cli:test", str(key.key_id))


async def add(keys: DataKeys, key: DataKey) -> bool:
    return await keys.add(key, audit=added(key))


def record(key_id: int, rest: bytes = b"") -> bytes:
    """What a record looks like that is sealed with that key."""
    return b"\x01" + key_id.to_bytes(4, "big") + b"nonce and ciphertext" + rest


async def store_sealed(tenant: Tenant, sealed: dict[str, bytes | None]) -> None:
    in_order = [sealed[name] for name in sorted(sealed)]
    await tenant.upsert(
        *map(entity_row, sealed), seal=lambda positions: [in_order[at] for at in positions]
    )


async def sealed_of(tenant: Tenant, external_id: str) -> bytes | None:
    entity = await tenant.entity(external_id)
    assert entity is not None
    return entity.sealed


async def test_an_operator_has_a_data_key_from_the_start(ours: Tenant, theirs: Tenant) -> None:
    keys = ours.store.data_keys
    mine = DataKey(ours.id, 1, 1, ours.operator.key_salt, None, NOW_MS)
    other = DataKey(theirs.id, 1, 1, theirs.operator.key_salt, None, NOW_MS)
    assert await keys.of(ours.id) == [mine]
    assert await keys.all() == [mine, other]


async def test_a_new_operators_key_is_under_the_master_key_that_is_in_use(
    store: Store, ours: Tenant
) -> None:
    # A server knows of key 7, and nothing is sealed under it yet.
    await store.add_key_check(7, b"check")
    before = await store.create_operator("before", b"before", NOW_MS)
    await add(store.data_keys, key_of(ours, 2, master_key_id=5))
    after = await store.create_operator("after", b"after", NOW_MS)
    assert [key.master_key_id for key in await store.data_keys.of(before.operator_id)] == [1]
    assert [key.master_key_id for key in await store.data_keys.of(after.operator_id)] == [5]


async def test_the_first_operators_key_is_under_the_newest_master_key(store: Store) -> None:
    for key_id in (2, 7, 3):
        await store.add_key_check(key_id, b"check")
    first = await store.create_operator("first", b"salt", NOW_MS)
    assert [key.master_key_id for key in await store.data_keys.of(first.operator_id)] == [7]


async def test_of_several_who_add_a_key_of_one_id_one_does(ours: Tenant, reopen: Opener) -> None:
    stores = [ours.store, await reopen()]
    done = await asyncio.gather(
        *(
            add(stores[at % 2].data_keys, replace(key_of(ours, 2), salt=bytes([at]) * 32))
            for at in range(6)
        )
    )
    assert sorted(done) == [False] * 5 + [True]
    assert [key.salt[0] for key in await ours.store.data_keys.of(ours.id)][1:] == [done.index(True)]
    [entry] = await ours.store.audit.chain(ours.id, after=0, limit=9)
    assert (entry.action, entry.actor, entry.subject) == ("crypto.data_key_added", "cli:test", "2")


async def test_seals_add_up_over_processes(ours: Tenant, theirs: Tenant, reopen: Opener) -> None:
    stores = [ours.store, await reopen()]
    totals = await asyncio.gather(
        *(stores[at % 2].data_keys.count_seals(ours.id, 1, 2**29) for at in range(8))
    )
    assert sorted(totals) == [count * 2**29 for count in range(1, 9)]
    assert [key.sealed_count for key in await ours.store.data_keys.all()] == [2**32, 0]
    assert await ours.store.data_keys.count_seals(ours.id, 9, 5) == 0
    assert await ours.store.data_keys.count_seals(theirs.id, 1, 5) == 5


async def test_keys_before_one_are_retired_once(ours: Tenant, theirs: Tenant) -> None:
    keys = ours.store.data_keys
    for tenant in (ours, theirs):
        for key_id in (2, 3):
            await add(keys, key_of(tenant, key_id))
    await keys.retire(ours.id, 2, NOW_MS)
    await keys.retire(ours.id, 3, LATER_MS)
    assert [key.retired_at_ms for key in await keys.of(ours.id)] == [NOW_MS, LATER_MS, None]
    assert [key.retired_at_ms for key in await keys.of(theirs.id)] == [None, None, None]


async def test_a_census_counts_live_records_by_their_key(ours: Tenant, theirs: Tenant) -> None:
    sealed: dict[str, bytes | None] = {
        **{f"a{at}": record(1) for at in range(3)},
        **{f"b{at}": record(2**32 - 1) for at in range(2)},
        "c": None,
        "d": b"\x01\x00",
        "e": b"",
        "gone": record(1),
    }
    await store_sealed(ours, sealed)
    await ours.delete("gone")
    await store_sealed(theirs, {"a0": record(1)})
    census = ours.store.data_keys.census
    assert await census(ours.id, after="", walk=100) == ({1: 3, 2**32 - 1: 2, 0: 2}, None)

    counts: list[dict[int, int]] = []
    after: str | None = ""
    while after is not None:
        found, after = await census(ours.id, after=after, walk=3)
        counts.append(dict(found))
    assert counts == [{1: 3}, {2**32 - 1: 2}, {0: 2}]


async def test_records_of_older_keys_are_found_in_walks(ours: Tenant, theirs: Tenant) -> None:
    sealed: dict[str, bytes | None] = {
        f"p{at:02}": record(at % 4 + 255, b"%d" % at) for at in range(12)
    }
    await store_sealed(ours, {**sealed, "q": None, "gone": record(1)})
    await ours.delete("gone")
    await store_sealed(theirs, {"p": record(1)})
    found: list[SealedRecord] = []
    after: str | None = ""
    while after is not None:
        records, after = await ours.store.data_keys.sealed_before(ours.id, 257, after=after, walk=5)
        assert len(records) <= 5
        found += records
    # 256 is not less than 255, whichever byte is looked at first.
    wanted = [name for at, name in enumerate(sorted(sealed)) if at % 4 + 255 < 257]
    assert [one.external_id for one in found] == wanted
    assert [one.sealed for one in found] == [sealed[name] for name in wanted]
    entity = await ours.entity(wanted[0])
    assert entity is not None
    assert found[0].entity_id == entity.entity_id


async def test_a_record_is_replaced_where_it_still_is_what_it_was(
    ours: Tenant, theirs: Tenant
) -> None:
    await store_sealed(ours, {name: record(1, name.encode()) for name in ("a", "b", "c", "d")})
    await store_sealed(theirs, {"a": record(1, b"a")})
    before = await ours.entity("a")
    # Upserted, erased, and erased and born again since they were read.
    await ours.upsert(entity_row("b", "[1]"), seal=lambda _: [record(2, b"newer")])
    await ours.delete("c")
    await ours.delete("d")
    await store_sealed(ours, {"d": record(2, b"another life")})
    moves = [
        Resealed(name, record(1, name.encode()), record(2, b"anew"))
        for name in ("a", "b", "c", "d", "never was")
    ]
    key = key_of(ours, 2)
    await add(ours.store.data_keys, key)
    assert await ours.store.data_keys.reseal(moves, under=key) == 1
    assert await sealed_of(ours, "b") == record(2, b"newer")
    assert await ours.entity("c") is None
    assert await sealed_of(ours, "d") == record(2, b"another life")
    assert await sealed_of(theirs, "a") == record(1, b"a")
    assert before is not None
    assert await ours.entity("a") == replace(before, sealed=record(2, b"anew"))
    # Done again, it does nothing; and an unchanged item is known as before.
    assert await ours.store.data_keys.reseal(moves, under=key) == 0
    assert await ours.store.data_keys.reseal([], under=key) == 0
    seal = Seal()
    await ours.upsert(entity_row("a"), seal=seal)
    assert not any(seal.calls)


async def test_nothing_is_replaced_under_a_key_that_is_not_stored(
    ours: Tenant, theirs: Tenant
) -> None:
    keys, stored = ours.store.data_keys, key_of(ours, 2)
    await store_sealed(ours, {"a": record(1)})
    moves = [Resealed("a", record(1), record(2))]
    await add(keys, replace(stored, operator_id=theirs.id))
    assert await keys.reseal(moves, under=stored) == 0
    await add(keys, stored)
    assert await keys.reseal(moves, under=replace(stored, salt=bytes(32))) == 0
    assert await keys.reseal(moves, under=replace(stored, key_id=3)) == 0
    assert await sealed_of(ours, "a") == record(1)
    # What a process has read before seals were counted is the same key.
    await keys.count_seals(ours.id, 2, 5)
    assert await keys.reseal(moves, under=stored) == 1
    assert await sealed_of(ours, "a") == record(2)


async def test_upserts_and_moves_in_opposite_orders_do_not_stop_each_other(
    ours: Tenant, reopen: Opener
) -> None:
    names = [f"p{at:03}" for at in range(100)]
    await store_sealed(ours, {name: record(1) for name in names})
    other = ours.through(await reopen())
    key = key_of(ours, 2)
    await add(ours.store.data_keys, key)

    async def upsert(turn: int) -> None:
        rows = [entity_row(name, f"[{turn}]") for name in reversed(names)]
        await other.upsert(*rows, seal=lambda positions: [record(2, b"upsert")] * len(positions))

    async def move(turn: int) -> None:
        moves = [Resealed(name, record(1), record(2, b"%d" % turn)) for name in names]
        await ours.store.data_keys.reseal(moves, under=key)

    await asyncio.gather(*(task(turn) for turn in range(5) for task in (upsert, move)))
    assert {await sealed_of(ours, name) for name in names} == {record(2, b"upsert")}


EVERY_METHOD: dict[str, Callable[[DataKeys, Tenant], Awaitable[object]]] = {
    "of": lambda keys, t: keys.of(t.id),
    "all": lambda keys, _: keys.all(),
    "add": lambda keys, t: add(keys, key_of(t, 2)),
    "count_seals": lambda keys, t: keys.count_seals(t.id, 1, 1),
    "retire": lambda keys, t: keys.retire(t.id, 1, NOW_MS),
    "census": lambda keys, t: keys.census(t.id, after="", walk=1),
    "sealed_before": lambda keys, t: keys.sealed_before(t.id, 1, after="", walk=1),
    "reseal": lambda keys, t: keys.reseal([Resealed("p", b"", b"")], under=key_of(t, 2)),
}


def test_every_method_is_tried_on_a_closed_store() -> None:
    assert {name for name in vars(DataKeys) if not name.startswith("_")} == set(EVERY_METHOD)


@pytest.mark.parametrize("call", EVERY_METHOD.values(), ids=EVERY_METHOD)
async def test_data_keys_of_a_closed_store_are_unavailable(
    ours: Tenant, call: Callable[[DataKeys, Tenant], Awaitable[object]]
) -> None:
    await ours.store.close()
    with pytest.raises(Unavailable):
        await call(ours.store.data_keys, ours)
