"""Rotating the master key beside writes, erasures and new operators, and after it was interrupted (W49)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from opdata.audit import INSTALLATION, Entry
from opdata.errors import MasterKeyMismatch, SealBroken, Unavailable
from opdata.master_keys import check_value
from opdata.model import DataKey, Operator
from opdata.pii import Sealer, sealer_of
from opdata.rotation import Broken, KeyUse, Progress, Rotated, key_use, rotate
from opdata.storage.base import Store
from opdata.storage.data_keys import Resealed
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Tenant, entity_row, queued_batch

A, B, C = (bytes([at]) * 32 for at in range(3))
NAMES = [f"p{at:03}" for at in range(12)]


async def sealer(tenant: Tenant, masters: dict[int, bytes]) -> Sealer:
    return sealer_of(masters, await tenant.store.data_keys.of(tenant.id))


async def put(tenant: Tenant, own: Sealer, *names: str, data: str = "{}") -> None:
    """Upsert entities whose sealed part is their name and data."""
    in_order = sorted(names)

    def seal(positions: Sequence[int]) -> Sequence[bytes]:
        chosen = [in_order[at] for at in positions]
        return own.seal(chosen, [f"{name} {data}".encode() for name in chosen])

    await tenant.upsert(*(entity_row(name, data) for name in names), seal=seal)


async def fill(tenant: Tenant, masters: dict[int, bytes], *names: str) -> None:
    await put(tenant, await sealer(tenant, masters), *names)


async def opened(tenant: Tenant, masters: dict[int, bytes]) -> dict[str, str]:
    """The sealed part of every live entity."""
    own = await sealer(tenant, masters)
    found = {}
    for name in await tenant.listed():
        entity = await tenant.entity(name)
        assert entity is not None
        assert entity.sealed is not None
        found[name] = own.open(name, entity.sealed).decode()
    return found


def all_of(*names: str) -> dict[str, str]:
    return {name: f"{name} {{}}" for name in names}


async def rotated(store: Store, masters: dict[int, bytes], settle_s: float = 0) -> Rotated:
    return await rotate(store, masters, 0, lambda _: None, actor="cli:test", settle_s=settle_s)


class Meddling:
    """`DataKeys` that does something right before records are replaced."""

    def __init__(self, store: Store, meddle: Callable[[], Awaitable[object]]) -> None:
        self._keys = store.data_keys
        self._meddle = meddle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    async def reseal(self, records: Sequence[Resealed], *, under: DataKey) -> int:
        await self._meddle()
        return await self._keys.reseal(records, under=under)


def meddling(store: Store, meddle: Callable[[], Awaitable[object]]) -> Store:
    """The store, through which a rotation is met by something else in mid-batch."""
    store.data_keys = Meddling(store, meddle)
    return store


async def test_after_a_rotation_nothing_needs_the_older_master_key(
    store: Store, ours: Tenant, theirs: Tenant
) -> None:
    await store.add_key_check(1, check_value(A))
    await fill(ours, {1: A}, *NAMES)
    await fill(theirs, {1: A}, *NAMES[:3])
    before = await ours.entity("p000")
    fingerprint = (await sealer(ours, {1: A})).fingerprint(b"an item")
    seen: list[Progress] = []

    done = await rotate(store, {1: A, 2: B}, 15, seen.append, actor="cli:test", settle_s=0)

    assert (done.master_key_id, done.resealed, list(done.broken)) == (2, 15, [])
    assert seen[-1].done == seen[-1].total == 15
    assert await opened(ours, {2: B}) == all_of(*NAMES)
    assert await opened(theirs, {2: B}) == all_of(*NAMES[:3])
    assert (await sealer(ours, {2: B})).fingerprint(b"an item") == fingerprint
    after = await ours.entity("p000")
    assert before is not None
    assert after is not None
    assert (after.updated_at_ms, after.data) == (before.updated_at_ms, before.data)
    assert after.sealed is not None
    assert after.sealed[:5] == b"\x01\x00\x00\x00\x02"

    use = await key_use(store)
    assert [(one.key_id, one.is_needed, one.records) for one in use.masters] == [
        (1, False, 0),
        (2, True, 15),
    ]
    assert use.is_done(2)
    [_, newest] = await store.data_keys.of(ours.id)
    assert newest.sealed_count == 12
    actions = [one.action for one in await store.audit.chain(INSTALLATION, after=0, limit=10)]
    assert actions == ["crypto.key_added", "crypto.rotated"]
    for tenant in (ours, theirs):
        [entry] = await store.audit.chain(tenant.id, after=0, limit=10)
        assert entry.action == "crypto.data_key_added"
        assert (entry.actor, entry.subject) == ("cli:test", "2")


async def test_queued_batches_are_sealed_anew_and_counted(ours: Tenant) -> None:
    """W30."""
    await ours.store.add_key_check(1, check_value(A))
    before = await sealer(ours, {1: A})
    bodies = {"job_1": b"a body", "job_2": b"another"}
    for job_id, body in bodies.items():
        await ours.write(queued_batch(job_id, before.seal_batch(job_id, body)))
    await ours.write(queued_batch("job_3", before.seal_batch("job_1", b"moved")))
    assert [one.records for one in (await key_use(ours.store)).masters] == [3]

    done = await rotated(ours.store, {1: A, 2: B})

    assert (done.resealed, list(done.broken), done.stubborn) == (2, [], False)
    after = await sealer(ours, {2: B})
    for job_id, body in bodies.items():
        payload = await ours.store.queue.payload(ours.id, job_id)
        assert payload is not None
        assert after.open_batch(job_id, payload) == body
        with pytest.raises(SealBroken):
            after.open_batch("job_9", payload)
        with pytest.raises(SealBroken):
            after.open(job_id, payload)
    assert [one.records for one in (await key_use(ours.store)).masters] == [1, 2]


async def test_fingerprints_survive_rotation_after_rotation(ours: Tenant) -> None:
    fingerprint = (await sealer(ours, {1: A})).fingerprint(b"an item")
    await fill(ours, {1: A}, "p")
    for masters in ({1: A, 2: B}, {2: B, 3: C}):
        await rotated(ours.store, masters)
    assert (await sealer(ours, {3: C})).fingerprint(b"an item") == fingerprint
    assert await opened(ours, {3: C}) == all_of("p")


async def test_what_is_written_or_erased_in_mid_batch_stays(ours: Tenant) -> None:
    await fill(ours, {1: A}, *NAMES)
    old = await sealer(ours, {1: A})
    met: list[bool] = []

    async def meddle() -> None:
        if not met:
            met.append(True)
            # By a server that does not know of the new key yet.
            await put(ours, old, "p001", data="[1]")
            await put(ours, old, "new")
            for name in ("p002", "p003"):
                await ours.delete(name)
            await put(ours, old, "p003", data="[3]")

    await rotated(meddling(ours.store, meddle), {1: A, 2: B})

    wanted = {**all_of(*NAMES, "new"), "p001": "p001 [1]", "p003": "p003 [3]"}
    del wanted["p002"]
    assert await opened(ours, {2: B}) == wanted
    assert len(await ours.erasures()) == 2


async def test_an_operator_that_is_created_meanwhile_is_rotated_too(
    store: Store, ours: Tenant
) -> None:
    await fill(ours, {1: A}, *NAMES)
    made: list[Operator] = []

    async def meddle() -> None:
        if not made:
            made.append(await store.create_operator("late", os.urandom(32), NOW_MS))

    await rotated(meddling(store, meddle), {1: A, 2: B})
    [late] = made
    assert {key.master_key_id for key in await store.data_keys.of(late.operator_id)} == {2}


@pytest.mark.parametrize("failing_at", [1, 2, 3])
async def test_an_interrupted_rotation_is_finished_by_the_next(
    store: Store, ours: Tenant, theirs: Tenant, failing_at: int, reopen: Opener
) -> None:
    for tenant in (ours, theirs, Tenant(store, await store.create_operator("x", b"x", NOW_MS))):
        await fill(tenant, {1: A}, *NAMES)
    calls = []

    async def fail() -> None:
        calls.append(True)
        if len(calls) == failing_at:
            raise Unavailable

    with pytest.raises(Unavailable):
        await rotated(meddling(store, fail), {1: A, 2: B})
    between = await reopen()
    assert not (await key_use(between)).is_done(2)
    assert await opened(ours.through(between), {1: A, 2: B}) == all_of(*NAMES)

    done = await rotated(between, {1: A, 2: B})
    assert done.resealed == (3 - (failing_at - 1)) * len(NAMES)
    use = await key_use(between)
    assert use.is_done(2)
    assert len(use.data_keys) == 6
    for tenant in (ours, theirs):
        assert await opened(tenant.through(between), {2: B}) == all_of(*NAMES)


class TakenBack:
    """`DataKeys` whose first new key is gone when records are to be replaced: it never was committed."""

    def __init__(self, store: Store) -> None:
        self._keys = store.data_keys
        self._lost: list[DataKey] = []
        self._is_back = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    async def add(self, key: DataKey, *, audit: Entry) -> bool:
        if self._lost:
            return await self._keys.add(key, audit=audit)
        self._lost.append(key)
        return True

    async def all(self) -> Sequence[DataKey]:
        return [*await self._keys.all(), *(() if self._is_back else self._lost)]

    async def reseal(self, records: Sequence[Resealed], *, under: DataKey) -> int:
        self._is_back = True
        return await self._keys.reseal(records, under=under)


async def test_a_data_key_that_is_lost_under_a_rotation_seals_nothing(
    store: Store, ours: Tenant, reopen: Opener
) -> None:
    """As when a replica takes over that is behind, or an older copy is put in the database's place."""
    await fill(ours, {1: A}, *NAMES)
    store.data_keys = TakenBack(store)
    done = await rotated(store, {1: A, 2: B})
    assert (done.resealed, list(done.broken), done.stubborn) == (len(NAMES), [], False)
    between = await reopen()
    assert await opened(ours.through(between), {2: B}) == all_of(*NAMES)
    assert [key.master_key_id for key in await between.data_keys.of(ours.id)] == [1, 2]


@pytest.mark.parametrize("failing", ["sweep_erased", "audit.record", "data_keys.retire"])
async def test_a_rotation_that_stops_near_its_end_is_one_to_go_on_with(
    ours: Tenant, theirs: Tenant, reopen: Opener, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run asks `is_done`, and would make a third master key."""
    await fill(ours, {1: A}, *NAMES)
    await fill(theirs, {1: A}, "p")
    first = await reopen()
    where: Any = first
    *path, method = failing.split(".")
    for name in path:
        where = getattr(where, name)
    whole = getattr(where, method)

    async def fail(*values: object) -> object:
        if method == "record":
            entries: Any = values[1]
            if entries[0].action != "crypto.rotated":
                return await whole(*values)
        if method == "retire" and values[0] == ours.id:
            return await whole(*values)
        raise Unavailable

    monkeypatch.setattr(where, method, fail)
    with pytest.raises(Unavailable):
        await rotated(first, {1: A, 2: B})
    assert not (await key_use(ours.store)).is_done(2)

    assert (await rotated(ours.store, {1: A, 2: B})).resealed == 0
    assert (await key_use(ours.store)).is_done(2)
    assert [key.key_id for key in await ours.store.data_keys.of(ours.id)] == [1, 2]


async def test_two_rotations_at_once_are_one(store: Store, ours: Tenant, reopen: Opener) -> None:
    await fill(ours, {1: A}, *NAMES)
    done = await asyncio.gather(rotated(store, {1: A, 2: B}), rotated(await reopen(), {1: A, 2: B}))
    assert sum(one.resealed for one in done) == len(NAMES)
    assert [key.key_id for key in await store.data_keys.of(ours.id)] == [1, 2]
    assert await opened(ours, {2: B}) == all_of(*NAMES)


async def test_a_record_that_was_tampered_with_stays_and_keeps_its_key(
    store: Store, ours: Tenant, theirs: Tenant
) -> None:
    await fill(ours, {1: A}, *NAMES[:4])
    await fill(theirs, {1: A}, "p")
    own = await sealer(ours, {1: A})
    [whole] = own.seal(["p001"], [b"secret"])
    # Edited, cut short, moved, and of a key that there never was.
    bad = [whole[:-1] + bytes([whole[-1] ^ 1]), whole[:20], whole, b"\x01\0\0\0\0" + whole[5:]]
    await ours.upsert(
        *(entity_row(f"bad{at}") for at in range(4)), seal=lambda ats: [bad[at] for at in ats]
    )

    done = await rotated(store, {1: A, 2: B})

    ids = []
    for at in range(4):
        entity = await ours.entity(f"bad{at}")
        assert entity is not None
        assert entity.sealed == bad[at]
        ids.append(entity.entity_id)
    assert set(done.broken) == {Broken(ours.id, one) for one in ids}
    assert done.resealed == 5
    retired = [(k.operator_id, k.key_id) for k in await store.data_keys.all() if k.retired_at_ms]
    assert retired == [(theirs.id, 1)]
    use = await key_use(store)
    assert not use.is_done(2)
    assert use.unknown == 1

    for at in range(4):
        await ours.delete(f"bad{at}")
    assert not (await rotated(store, {1: A, 2: B})).broken
    assert (await key_use(store)).is_done(2)


async def test_a_server_that_never_takes_up_the_new_key_is_told_of(ours: Tenant) -> None:
    await fill(ours, {1: A}, *NAMES)
    old = await sealer(ours, {1: A})
    turns = iter(range(1_000))
    done = await rotated(
        meddling(ours.store, lambda: put(ours, old, "p000", data=f"[{next(turns)}]")),
        {1: A, 2: B},
    )
    assert done.stubborn
    assert not (await key_use(ours.store)).is_done(2)
    assert [key.retired_at_ms for key in await ours.store.data_keys.of(ours.id)] == [None, None]
    assert (await opened(ours, {1: A, 2: B})).keys() == set(NAMES)


async def test_it_goes_on_until_servers_have_had_time(ours: Tenant) -> None:
    """A row that is sealed with the older key after the first pass is sealed anew by a later one."""
    await fill(ours, {1: A}, *NAMES)
    old = await sealer(ours, {1: A})
    waits = asyncio.Event()

    def show(progress: Progress) -> None:
        if progress.waiting:
            waits.set()

    masters = {1: A, 2: B}
    rotating = asyncio.create_task(
        rotate(ours.store, masters, 0, show, actor="cli:test", settle_s=1.2)
    )
    await waits.wait()
    assert not (await key_use(ours.store)).left_before(2)
    await put(ours, old, "late")
    await rotating
    assert await opened(ours, {2: B}) == all_of(*NAMES, "late")


async def test_a_master_key_of_a_number_that_was_another_ones_is_refused_untouched(
    ours: Tenant,
) -> None:
    await ours.store.add_key_check(2, check_value(C))
    before = await ours.store.data_keys.all()
    with pytest.raises(MasterKeyMismatch, match="Master key 2"):
        await rotated(ours.store, {1: A, 2: B})
    assert await ours.store.data_keys.all() == before


async def test_records_of_a_second_key_under_the_same_master_stay_as_they_are(
    ours: Tenant,
) -> None:
    """What a used-up nonce budget leaves behind needs no older master key."""
    await rotated(ours.store, {1: A, 2: B})
    await fill(ours, {2: B}, "a")
    key = DataKey(ours.id, 3, 2, bytes(32), None, NOW_MS)
    entry = Entry("crypto.data_key_added", "cli:test", "3")
    await ours.store.data_keys.add(key, audit=entry)
    await fill(ours, {2: B}, "b")
    done = await rotated(ours.store, {1: A, 2: B})
    use: KeyUse = await key_use(ours.store)
    assert done.resealed == 0
    assert [one.records for one in use.data_keys] == [0, 1, 1]
    assert use.is_done(2)
