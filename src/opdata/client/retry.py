"""When a request is worth repeating, after how long, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

WaitReason = Literal["unreachable", "unavailable", "rate limited", "in flight"]

_REASONS: dict[int, WaitReason] = {
    409: "in flight",
    429: "rate limited",
    500: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
MAX_INTERNAL_ERRORS = 3
"""How often one request may meet a 500 and try again: waiting does not mend a bug."""


class Backoff(Struct, frozen=True):
    """How patient a client is. `Retry-After` is honoured; without it delays double, with jitter.

    Patience is counted over all requests together, from the first trouble after the last success:
    while anything gets through, nobody gives up.
    """

    base_delay_s: float = 0.25
    max_delay_s: float = 15.0
    first_contact_s: float = 10.0
    """How long to knock on a server that never answered anything: the URL may be wrong."""
    give_up_after_s: float = 300.0
    """How long to go on without a success once the server has been heard of."""


class Patience:
    """What all requests of one client share: whether anything gets through, and since when not."""

    def __init__(self, backoff: Backoff, now: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._now = now
        self._trouble_since_s: float | None = None
        self._heard = False

    def heard(self) -> None:
        """The server answered, whatever it said."""
        self._heard = True

    def progressed(self) -> None:
        """The server granted a request."""
        self._trouble_since_s = None

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float | None:
        """Seconds to wait before the next attempt, None to give up. `attempt` counts from 1."""
        policy = self._backoff
        now_s = self._now()
        if self._trouble_since_s is None:
            self._trouble_since_s = now_s
        longest_s = policy.give_up_after_s if self._heard else policy.first_contact_s
        left_s = self._trouble_since_s + longest_s - now_s
        step_s = min(policy.max_delay_s, policy.base_delay_s * 2.0 ** min(attempt - 1, 16))
        jitter_s = random.uniform(0.5, 1.0) * step_s  # noqa: S311 - spreads load, guards nothing
        # The jitter goes on top of a Retry-After: all that wait for it would come back at once.
        delay_s = jitter_s if retry_after_s is None else retry_after_s + min(jitter_s, 0.25)
        return delay_s if delay_s < left_s else None


def wait_reason(status: int) -> WaitReason | None:
    """Why a request answered with `status` may succeed later, None when it will not."""
    return _REASONS.get(status)


def parse_retry_after_s(header: str | None) -> float | None:
    """Seconds of a `Retry-After`, which is a number or an HTTP date; None when it is neither."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
