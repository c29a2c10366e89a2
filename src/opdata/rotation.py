"""Rotating the master key: a new data key for every operator, and everything sealed anew with it.

Meant to run beside servers, which meanwhile take up the new keys by themselves, and to be run again
after it was interrupted: what is left to do is found in the rows. A record is replaced only where it
still is what was read, so that an upsert or an erasure that comes between always stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Final

from msgspec import Struct

from opdata.audit import INSTALLATION, Entry
from opdata.clock import now_ms
from opdata.errors import MasterKeyMismatch, SealBroken
from opdata.key_ring import FRESH_S
from opdata.master_keys import check_value
from opdata.model import KEY_ID_BYTES, DataKey, key_id_of
from opdata.pii import Sealer, next_data_key, sealer_of
from opdata.storage.base import Store
from opdata.storage.data_keys import Resealed, SealedRecord

_LOCKS_OF_A_WRITE: Final = 5


def settle_s(busy_timeout_s: float) -> float:
    """Longer than servers seal with a key once there is a newer one, in seconds.

    A sealer is as old as it may be when a request begins, and its write then waits for every lock for as
    long as it may.
    """
    return FRESH_S + _LOCKS_OF_A_WRITE * busy_timeout_s


_WALK: Final = 5_000
_BATCH: Final = 500
_STUBBORN_PASSES: Final = 20

_operator_id: Final = attrgetter("operator_id")


class MasterKeyUse(Struct, frozen=True):
    """What a master key is needed for. `operators` seal under it, and `records` are sealed under it."""

    key_id: int
    operators: int
    data_keys: int
    """Those that are not retired."""
    records: int

    @property
    def is_needed(self) -> bool:
        """Whether anything would be lost with it."""
        return bool(self.operators or self.data_keys or self.records)


class DataKeyUse(Struct, frozen=True):
    """A data key, and how many live entities and queued batches are sealed with it."""

    key: DataKey
    records: int


class KeyUse(Struct, frozen=True):
    """What all keys are needed for. `unknown` counts records that name no data key there is."""

    masters: Sequence[MasterKeyUse]
    data_keys: Sequence[DataKeyUse]
    unknown: int

    @property
    def newest_in_use(self) -> int | None:
        """The newest master key that anything is sealed under; None before there are operators."""
        return max((use.key.master_key_id for use in self.data_keys), default=None)

    def left_before(self, master_key_id: int) -> int:
        """How many records are sealed under other master keys than that one."""
        return sum(use.records for use in self.masters if use.key_id != master_key_id)

    def is_done(self, master_key_id: int) -> bool:
        """Whether nothing needs another master key than that one."""
        return not any(use.is_needed for use in self.masters if use.key_id != master_key_id)


class Progress(Struct, frozen=True):
    """`done` of about `total` records are sealed anew; `waiting` for servers to take up the new keys."""

    done: int
    total: int
    waiting: bool = False


class Broken(Struct, frozen=True):
    """A sealed record that does not open: it was edited, truncated or moved."""

    operator_id: int
    entity_id: str


class Rotated(Struct, frozen=True):
    """What a rotation did. `broken` records were left as they are, and the keys they name are kept.

    `stubborn`: some server went on sealing with an older key, and the rotation is not finished.
    """

    master_key_id: int
    resealed: int
    broken: Sequence[Broken]
    stubborn: bool = False


Show = Callable[[Progress], None]


async def key_use(store: Store, at_hand: Collection[int] = ()) -> KeyUse:
    """Count what is sealed with which key, reading the sealed part of every live entity and queued batch.

    `masters` has those of `at_hand`, too, that are needed for nothing yet.
    """
    keys = await store.data_keys.all()
    data_keys: list[DataKeyUse] = []
    unknown = 0
    for operator_id, own in _by_operator(keys).items():
        counts = await _census(store, operator_id)
        data_keys += [DataKeyUse(key, counts.pop(key.key_id, 0)) for key in own]
        unknown += sum(counts.values())
    newest = [own[-1] for own in _by_operator(keys).values()]
    masters = [
        MasterKeyUse(
            master,
            operators=sum(key.master_key_id == master for key in newest),
            data_keys=sum(k.master_key_id == master and k.retired_at_ms is None for k in keys),
            records=sum(use.records for use in data_keys if use.key.master_key_id == master),
        )
        for master in sorted(
            {*at_hand, *await store.key_checks(), *(key.master_key_id for key in keys)}
        )
    ]
    return KeyUse(masters, data_keys, unknown)


async def rotate(
    store: Store,
    masters: Mapping[int, bytes],
    total: int,
    show: Show,
    *,
    actor: str,
    settle_s: float,
) -> Rotated:
    """Have everything sealed under the newest of the master keys, and under no other.

    `masters` has all that anything is sealed under; about `total` records are to be sealed anew. Raises
    `MasterKeyMismatch` with nothing touched, and `Unavailable`; it can be called again then.
    """
    rotation = _Rotation(store, masters, total, show, actor)
    if added := await rotation.add_keys():
        detail = {"masterKey": rotation.target, "operators": added}
        await store.audit.record(INSTALLATION, [Entry("crypto.key_added", actor, detail=detail)])
    finished = await rotation.reseal_all(settle_s)
    rotated = rotation.result(stubborn=not finished)
    if finished:
        # The records of before are kept in no earlier version of a row, either.
        await store.sweep_erased()
        detail = {"masterKey": rotated.master_key_id, "resealed": rotated.resealed}
        await store.audit.record(INSTALLATION, [Entry("crypto.rotated", actor, detail=detail)])
        # Last of all: a rotation that stops before this is one to go on with, and none to begin anew.
        await rotation.retire()
    return rotated


class _Rotation:
    """A rotation under way, to the master key `target`."""

    def __init__(
        self, store: Store, masters: Mapping[int, bytes], total: int, show: Show, actor: str
    ) -> None:
        self._store = store
        self._masters = masters
        self._total = total
        self._show = show
        self._actor = actor
        self.target = max(masters)
        self._resealed = 0
        self._broken: dict[Broken, int] = {}

    async def add_keys(self) -> int:
        """Give every operator a data key under the target that has none; return how many got one."""
        check = check_value(self._masters[self.target])
        await self._store.add_key_check(self.target, check)
        if (await self._store.key_checks())[self.target] != check:
            message = (
                f"Master key {self.target} is not the one of that number that this database knows; "
                "nothing was touched"
            )
            raise MasterKeyMismatch(message)
        added = 0
        for own in (await self._keys()).values():
            newest = own[-1]
            if newest.master_key_id != self.target:
                key = next_data_key(self._masters, newest, self.target, now_ms())
                detail = {"dataKey": key.key_id, "masterKey": self.target}
                entry = Entry("crypto.data_key_added", self._actor, str(key.key_id), detail)
                added += await self._store.data_keys.add(key, audit=entry)
        return added

    async def reseal_all(self, settle_s: float) -> bool:
        """Go over all records until none is left; False when a server keeps sealing with older keys."""
        settled_s = time.monotonic() + settle_s
        stubborn = 0
        while stubborn < _STUBBORN_PASSES:
            begun_s = time.monotonic()
            # An operator may have been created meanwhile, by a process that did not know the target.
            added = await self.add_keys()
            found = sum([await self._reseal(own) for own in (await self._keys()).values()])
            if added or found:
                stubborn += begun_s >= settled_s
            elif begun_s >= settled_s:
                return True
            self._say(waiting=begun_s < settled_s)
            await asyncio.sleep(settle_s / 10)
        return False

    async def retire(self) -> None:
        """Retire the keys that nothing is sealed with any more; those of broken records stay."""
        for operator_id, own in (await self._keys()).items():
            named = {id_ for one, id_ in self._broken.items() if one.operator_id == operator_id}
            kept = named & {key.key_id for key in own}
            before = min([_first_under(self.target, own), *kept])
            await self._store.data_keys.retire(operator_id, before, now_ms())

    def result(self, *, stubborn: bool) -> Rotated:
        """What was done."""
        return Rotated(self.target, self._resealed, list(self._broken), stubborn)

    async def _keys(self) -> dict[int, list[DataKey]]:
        return _by_operator(await self._store.data_keys.all())

    async def _reseal(self, own: Sequence[DataKey]) -> int:
        """Seal an operator's records anew that are under other master keys; return how many there were.

        Broken ones do not count; one that is upserted at the same moment does, as it may be under
        an older key again.
        """
        first = _first_under(self.target, own)
        if first <= own[0].key_id:
            return 0
        operator_id = own[0].operator_id
        sealer = sealer_of(self._masters, own)
        under = next(key for key in own if key.key_id == sealer.key_id)
        found, after = 0, ""
        while True:
            records, walked_to = await self._store.data_keys.sealed_before(
                operator_id, first, after=after, walk=_WALK
            )
            for start in range(0, len(records), _BATCH):
                batch = records[start : start + _BATCH]
                found += await self._reseal_batch(sealer, under, batch)
                self._say()
            if walked_to is None:
                return found + await self._reseal_queued(sealer, under, first)
            after = walked_to

    async def _reseal_queued(self, sealer: Sealer, under: DataKey, first: int) -> int:
        """The same for bodies of queued batches. The job of a broken one fails when its turn comes."""
        operator_id, found = under.operator_id, 0
        for one in await self._store.queue.payloads(operator_id):
            before = None
            if one.key_id < first:
                before = await self._store.queue.payload(operator_id, one.job_id)
            if before is None:
                continue
            with suppress(SealBroken):
                after = sealer.seal_batch(one.job_id, sealer.open_batch(one.job_id, before))
                found += 1
                replaced = await self._store.queue.reseal(one.job_id, before, after, under=under)
                self._resealed += replaced
        count = sealer.seals.take()
        await self._store.data_keys.count_seals(operator_id, sealer.key_id, count)
        return found

    async def _reseal_batch(
        self, sealer: Sealer, under: DataKey, records: Sequence[SealedRecord]
    ) -> int:
        operator_id = under.operator_id
        opened = []
        for record in records:
            try:
                opened.append((record, sealer.open(record.external_id, record.sealed)))
            except SealBroken:
                named = key_id_of(record.sealed[1 : 1 + KEY_ID_BYTES])
                self._broken[Broken(operator_id, record.entity_id)] = named
        sealed = sealer.seal(
            [record.external_id for record, _ in opened], [secret for _, secret in opened]
        )
        replaced = [
            Resealed(record.external_id, record.sealed, after)
            for (record, _), after in zip(opened, sealed, strict=True)
        ]
        begun_s = time.monotonic()
        self._resealed += await self._store.data_keys.reseal(replaced, under=under)
        await self._store.data_keys.count_seals(operator_id, sealer.key_id, sealer.seals.take())
        # Half of the time belongs to the servers' writes.
        await asyncio.sleep(time.monotonic() - begun_s)
        return len(opened)

    def _say(self, *, waiting: bool = False) -> None:
        self._show(Progress(self._resealed, max(self._total, self._resealed), waiting))


def _by_operator(keys: Sequence[DataKey]) -> dict[int, list[DataKey]]:
    return {operator_id: list(own) for operator_id, own in groupby(keys, _operator_id)}


def _first_under(master_key_id: int, own: Sequence[DataKey]) -> int:
    """The id of an operator's first data key under the newest master key: those before are under others.

    0 when it has none.
    """
    return min((key.key_id for key in own if key.master_key_id == master_key_id), default=0)


async def _census(store: Store, operator_id: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    for queued in await store.queue.payloads(operator_id):
        counts[queued.key_id] = counts.get(queued.key_id, 0) + 1
    after: str | None = ""
    while after is not None:
        found, after = await store.data_keys.census(operator_id, after=after, walk=_WALK)
        for key_id, count in found.items():
            counts[key_id] = counts.get(key_id, 0) + count
    return counts
