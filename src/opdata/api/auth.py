"""Bearer keys to what they open, with a short memory so that a batch does not wait for a look-up (W3)."""

from __future__ import annotations

import time
from typing import Final

from opdata.clock import now_ms
from opdata.errors import Unauthorized
from opdata.keys import hash_key, is_key
from opdata.model import ApiKey, Operator
from opdata.storage.base import Store

_MAX_REMEMBERED: Final = 10_000


class Authenticator:
    """Looks keys up and remembers good ones for `cache_s` seconds; bad ones are never remembered."""

    def __init__(self, store: Store, cache_s: float) -> None:
        self._store = store
        self._cache_s = cache_s
        self._known: dict[bytes, tuple[float, ApiKey, Operator]] = {}
        self._used_at_ms: dict[str, int] = {}

    async def authenticate(self, authorization: str | None) -> tuple[ApiKey, Operator]:
        """The key that this `Authorization` header shows, and whose it is.

        Raises `Unauthorized`, always alike. What is compared with what is stored is a hash: how long
        that takes tells nothing of a key.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not is_key(key):
            raise Unauthorized
        key_hash, at_ms = hash_key(key), now_ms()
        known = self._known.get(key_hash)
        if known is None or known[0] < time.monotonic():
            known = await self._look_up(key_hash, at_ms)
        _, api_key, operator = known
        # What is remembered expires to the millisecond all the same (W12).
        if not api_key.is_active(at_ms):
            raise Unauthorized
        self._used_at_ms[api_key.key_id] = at_ms
        return api_key, operator

    def forget(self, operator_id: int) -> None:
        """Look this operator's keys up anew next time: its keys or settings have changed."""
        self._known = {
            key_hash: known
            for key_hash, known in self._known.items()
            if known[1].operator_id != operator_id
        }

    async def flush(self) -> None:
        """Write down when keys were last used."""
        used_at_ms, self._used_at_ms = self._used_at_ms, {}
        if used_at_ms:
            await self._store.touch_keys(used_at_ms)

    async def _look_up(self, key_hash: bytes, at_ms: int) -> tuple[float, ApiKey, Operator]:
        # The clock is read first: an answer counts from when it was asked for.
        expires_at = time.monotonic() + self._cache_s
        found = await self._store.authenticate(key_hash, at_ms)
        if found is None:
            self._known.pop(key_hash, None)
            raise Unauthorized
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        known = (expires_at, *found)
        self._known[key_hash] = known
        return known
