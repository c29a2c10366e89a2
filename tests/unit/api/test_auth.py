"""What the authenticator asks a store, remembers, and takes."""

from __future__ import annotations

import hashlib

import pytest

from opdata.api.auth import Authenticator
from opdata.errors import Unauthorized
from opdata.keys import NewKey, new_key
from opdata.model import ApiKey, Operator, OperatorSettings

NOW_MS = 1_775_476_800_000
OPERATOR = Operator(1, "acme", bytes(32), OperatorSettings(), {}, NOW_MS)


class Keys:
    """A store of keys that notes what it is asked for."""

    def __init__(self, *kept: tuple[NewKey, ApiKey]) -> None:
        self._kept = {made.key_hash: key for made, key in kept}
        self.asked: list[bytes] = []

    async def authenticate(self, key_hash: bytes, now_ms: int) -> tuple[ApiKey, Operator] | None:
        self.asked.append(key_hash)
        key = self._kept.get(key_hash)
        return (key, OPERATOR) if key and key.is_active(now_ms) else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time that the authenticator reads, to be changed."""
    now = [NOW_MS]
    monkeypatch.setattr("opdata.api.auth.now_ms", lambda: now[0])
    return now


async def taken(authenticator: Authenticator, key: str) -> bool:
    try:
        await authenticator.authenticate(f"Bearer {key}")
    except Unauthorized:
        return False
    return True


async def test_a_remembered_key_ends_at_its_millisecond(clock: list[int]) -> None:
    """W12."""
    made = new_key()
    keys = Keys((made, made.record(1, "", NOW_MS, expires_at_ms=NOW_MS + 10)))
    authenticator = Authenticator(keys, cache_s=5)  # type: ignore[arg-type] # the one method it needs
    answers = []
    for after in (0, 9, 10, 11):
        clock[0] = NOW_MS + after
        answers.append(await taken(authenticator, made.key))
    assert answers == [True, True, False, False]
    assert len(keys.asked) == 1


async def test_what_is_compared_with_what_is_stored_is_never_the_key(clock: list[int]) -> None:
    """W3: a comparison that stops at the first difference tells of a hash, and nothing of the key."""
    made, other = new_key(), new_key()
    keys = Keys((made, made.record(1, "", NOW_MS)))
    authenticator = Authenticator(keys, cache_s=0)  # type: ignore[arg-type]
    shown = [made.key, other.key, made.key[:-1], made.key.upper(), f"{made.key}0", "oh_live_", ""]
    assert [await taken(authenticator, key) for key in shown] == [True, *[False] * 6]
    # What has not a key's form is not looked up at all.
    hashes = [hashlib.sha256(one.key.encode()).digest() for one in (made, other)]
    assert keys.asked == hashes
