"""The key ring of a process: operators' sealers, kept up to date with the store, and their seals counted.

A rotation may add data keys, and a master key, while a server runs. A sealer is made of what the store
had at most `FRESH_S` ago, so whoever adds a key knows when everybody opens and seals with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from opdata.audit import SERVER, Entry
from opdata.clock import now_ms
from opdata.errors import OpdataError
from opdata.logs import log
from opdata.master_keys import SealedWith, require_right_keys
from opdata.pii import SealCount, Sealer, next_data_key, sealer_of
from opdata.storage.base import Store

FRESH_S: Final = 2.0
"""How long a sealer is used without asking the store again, seconds."""


class NonceBudget(Struct, frozen=True):
    """How often a data key may seal: nonces are random, and NIST SP 800-38D allows 2^32 under a key.

    At `warn_at` the log says so, at `rotate_at` the operator gets a new data key. What processes have
    sealed and not said yet is far less than what is left then.
    """

    limit: int = 2**32
    warn_at: int = 2**30
    rotate_at: int = 2**31


NONCE_BUDGET: Final = NonceBudget()


class _Known(Struct, frozen=True):
    """An operator's sealer, the data keys it is made of, and the monotonic time until which it is fresh."""

    sealer: Sealer
    keys: Sequence[tuple[object, ...]]
    fresh_until_s: float


class KeyRing:
    """See the module. `load` returns the master keys by id as they are now; it may raise `StartupError`."""

    def __init__(
        self,
        store: Store,
        load: Callable[[], dict[int, bytes]],
        *,
        budget: NonceBudget = NONCE_BUDGET,
    ) -> None:
        self._store = store
        self._load = load
        self._budget = budget
        self._masters = load()
        self._known: dict[int, _Known] = {}
        self._seals: dict[tuple[int, int], SealCount] = {}
        self._told: set[str] = set()

    async def sealer(self, operator_id: int) -> Sealer:
        """The operator's sealer, to be used at once.

        Raises `Unavailable` when the store cannot be asked, or no data key can be had.
        """
        known = self._known.get(operator_id)
        if known is None or known.fresh_until_s < time.monotonic():
            known = await self._look_up(operator_id)
        return known.sealer

    async def opener(self, operator_id: int, sealed: bytes) -> Sealer:
        """The operator's sealer, told of the key that this names if the store has it.

        A rotation seals anew with a key as soon as it is stored, when a sealer that is fresh may be
        older. Raises as `sealer` does.
        """
        sealer = await self.sealer(operator_id)
        if not sealer.knows(sealed):
            sealer = (await self._look_up(operator_id)).sealer
        return sealer

    async def flush(self) -> None:
        """Write down how often keys have sealed, and give an operator a new one in good time."""
        for (operator_id, key_id), seals in list(self._seals.items()):
            if not (count := seals.take()):
                continue
            try:
                total = await self._store.data_keys.count_seals(operator_id, key_id, count)
            except BaseException:
                seals.add(count)
                raise
            await self._mind_budget(operator_id, key_id, total)

    async def _look_up(self, operator_id: int) -> _Known:
        # The clock is read first: what the store says counts from when it was asked.
        fresh_until_s = time.monotonic() + FRESH_S
        keys = await self._store.data_keys.of(operator_id)
        if not {key.master_key_id for key in keys if key.retired_at_ms is None} <= (
            self._masters.keys()
        ):
            await self._reload()
        before = self._known.get(operator_id)
        if before is not None and before.fresh_until_s >= fresh_until_s:
            return before  # this answer was overtaken by one that was asked for later
        made_of = [(key.key_id, key.salt, key.master_key_id in self._masters) for key in keys]
        if before is None or before.keys != made_of:
            # Fewer keys than before are what there is, too: the database may have been taken back, and
            # what is sealed with a key that it does not have is lost.
            sealer = sealer_of(self._masters, keys)
            of_key = (operator_id, sealer.key_id)
            sealer.seals = self._seals.setdefault(of_key, sealer.seals)
        else:
            sealer = before.sealer
        known = _Known(sealer, made_of, fresh_until_s)
        self._known[operator_id] = known
        return known

    async def _reload(self) -> None:
        """Take up a master key that was added. One that is there is never replaced or given up."""
        try:
            found = self._load()
            checks = await self._store.key_checks()
            require_right_keys(found, SealedWith(checks, frozenset()))
        except OpdataError as error:
            if self._is_news("not reloaded", error.message):
                log.error("master_keys_not_reloaded", reason=error.message)
            return
        self._masters = {**found, **self._masters}
        lacking = sorted(checks.keys() - self._masters.keys())
        if lacking and self._is_news("lacking", lacking):
            log.error("master_key_lacking", master_keys=lacking)

    async def _mind_budget(self, operator_id: int, key_id: int, total: int) -> None:
        if total < self._budget.warn_at:
            return
        of_key = {"operator_id": operator_id, "data_key": key_id, "sealed": total}
        if total < self._budget.rotate_at:
            if self._is_news("budget", operator_id, key_id):
                log.warning("nonce_budget", **of_key, limit=self._budget.limit)
            return
        newest = (await self._store.data_keys.of(operator_id))[-1]
        if newest.key_id != key_id or newest.master_key_id not in self._masters:
            return  # somebody else was first, or has to be
        key = next_data_key(self._masters, newest, newest.master_key_id, now_ms())
        detail = {"dataKey": key.key_id, "masterKey": key.master_key_id, "sealed": total}
        entry = Entry("crypto.data_key_added", SERVER, str(key.key_id), detail)
        if await self._store.data_keys.add(key, audit=entry):
            log.warning("nonce_budget_renewed", **of_key, new_data_key=key.key_id)

    def _is_news(self, *found: object) -> bool:
        """False for what has been said: it is found again until somebody does something about it."""
        news = str(found) not in self._told
        self._told.add(str(found))
        return news
