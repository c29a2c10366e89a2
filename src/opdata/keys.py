"""Bearer keys: 32 random bytes that a client shows and the store knows only by hash (W3)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence

from msgspec import Struct

from opdata.errors import Conflict
from opdata.model import ALL_SCOPES, ApiKey, Scope

_PREFIX = "oh_live_"
_KEY = re.compile(rf"{_PREFIX}[0-9a-f]{{64}}")


class NewKey(Struct, frozen=True):
    """A key just made. `key` is shown once; `key_hash` and `masked_key` are what is stored."""

    key_id: str
    key: str
    key_hash: bytes
    masked_key: str

    def record(
        self,
        operator_id: int,
        label: str,
        now_ms: int,
        *,
        scopes: frozenset[Scope] = ALL_SCOPES,
        expires_at_ms: int | None = None,
    ) -> ApiKey:
        """The key as a store keeps it, beside its hash."""
        return ApiKey(
            key_id=self.key_id,
            operator_id=operator_id,
            label=label,
            masked_key=self.masked_key,
            created_at_ms=now_ms,
            last_used_at_ms=None,
            revoked_at_ms=None,
            scopes=scopes,
            expires_at_ms=expires_at_ms,
        )


def new_key() -> NewKey:
    """Make a key from the operating system's randomness."""
    key = _PREFIX + os.urandom(32).hex()
    return NewKey(
        key_id=f"key_{os.urandom(8).hex()}",
        key=key,
        key_hash=hash_key(key),
        masked_key=f"{key[:12]}…{key[-4:]}",
    )


def is_key(text: str) -> bool:
    """Whether the text has a key's form."""
    return _KEY.fullmatch(text) is not None


def holds_key(text: str) -> bool:
    """Whether a key stands anywhere in the text."""
    return _KEY.search(text) is not None


def hash_key(key: str) -> bytes:
    """SHA-256 of the key; a key has 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(key.encode()).digest()


def refuse_to_lock_out(keys: Sequence[ApiKey], key: ApiKey, now_ms: int) -> None:
    """Raise `Conflict` when revoking one of an operator's keys would leave nobody a way in (W3).

    The last active key stays, and so does the last one that can make others. An expired one is not
    active: it keeps nobody in, and can always be revoked.
    """
    if not key.is_active(now_ms):
        return
    others = [one for one in keys if one.key_id != key.key_id and one.is_active(now_ms)]
    if not others:
        message = "This is the operator's last active key; create another one first"
        raise Conflict(message)
    if "admin" in key.scopes and not any("admin" in one.scopes for one in others):
        message = (
            "This is the operator's last active key with the scope admin; create another one first"
        )
        raise Conflict(message)
