"""Opaque ids (W5), made in bulk because a batch needs thousands."""

from __future__ import annotations

import os
from collections.abc import Sequence

MAX_EVENTS_A_CALL = 8_192
"""More than a batch has (W20)."""

_SEQUENCE = tuple(number.to_bytes(2, "big") for number in range(MAX_EVENTS_A_CALL))


def new_job_id() -> str:
    """`job_` and 16 random hex digits."""
    return f"job_{os.urandom(8).hex()}"


def new_entity_ids(count: int) -> Sequence[str]:
    """`ent_` and 16 random hex digits each; one call for all of a batch's randomness."""
    digits = os.urandom(8 * count).hex()
    return [f"ent_{digits[at : at + 16]}" for at in range(0, 16 * count, 16)]


def new_event_ids(count: int, now_ms: int) -> Sequence[bytes]:
    """16 bytes each: 48 bits of time, 64 random bits a call, 16 bits of sequence.

    Ordered by time between calls and by sequence within one; two calls in the same millisecond
    collide with probability 2⁻⁶⁴. Raises `ValueError` for more than 8,192 at once.
    """
    if count > MAX_EVENTS_A_CALL:
        message = f"at most {MAX_EVENTS_A_CALL} event ids a call, not {count}"
        raise ValueError(message)
    head = now_ms.to_bytes(6, "big") + os.urandom(8)
    return list(map(head.__add__, _SEQUENCE[:count]))


def format_event_id(event_id: bytes) -> str:
    """`eev_` and 32 hex digits."""
    return f"eev_{event_id.hex()}"
