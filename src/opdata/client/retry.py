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
    408: "unavailable",
    429: "rate limited",
    500: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
_CONFLICT = 409
MAX_INTERNAL_ERRORS = 3
"""How often one request may meet a 500 and try again: waiting does not mend a bug."""


class Backoff(Struct, frozen=True):
    """How patient a client is. `Retry-After` is honoured; without it delays double, with full jitter.

    Patience is counted over all requests together, from the first trouble after the last success:
    while anything gets through, nobody gives up.
    """

    base_delay_s: float = 0.25
    max_delay_s: float = 15.0
    first_contact_s: float = 10.0
    """How long to knock on a server that never answered anything: the URL may be wrong."""
    give_up_after_s: float = 300.0
    """How long to go on without a success once the server has been heard of."""

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait before the attempt after `attempt`, which counts from 1."""
        step_s = min(self.max_delay_s, self.base_delay_s * 2.0 ** min(attempt - 1, 16))
        jitter_s = random.uniform(0.0, step_s)  # noqa: S311 - spreads load, guards nothing
        # The jitter goes on top of a Retry-After: all that wait for it would come back at once.
        return jitter_s if retry_after_s is None else retry_after_s + min(jitter_s, 0.25)


class Patience:
    """What all requests of one client share: whether anything gets through, and since when not."""

    def __init__(self, backoff: Backoff, now: Callable[[], float] = time.monotonic) -> None:
        self.backoff = backoff
        self.now = now
        self._trouble_since_s: float | None = None
        self.has_heard = False

    def heard(self) -> None:
        """The server answered, whatever it said."""
        self.has_heard = True

    def progressed(self) -> None:
        """The server granted a request."""
        self._trouble_since_s = None

    def left_s(self) -> float | None:
        """Seconds that a running attempt may still take; None when only waiting is bounded."""
        return None

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float | None:
        """Seconds to wait before the next attempt, None to give up. `attempt` counts from 1."""
        now_s = self.now()
        if self._trouble_since_s is None:
            self._trouble_since_s = now_s
        longest_s = self.backoff.give_up_after_s if self.has_heard else self.backoff.first_contact_s
        delay_s = self.backoff.delay_s(attempt, retry_after_s)
        return delay_s if delay_s < self._trouble_since_s + longest_s - now_s else None


class Deadline(Patience):
    """The patience of a single call, attempts and waits together: `within_s` seconds from now.

    A server that the client has never heard of gets no more than `first_contact_s` of them.
    """

    def __init__(self, shared: Patience, within_s: float) -> None:
        super().__init__(shared.backoff, shared.now)
        self._shared = shared
        self._within_s = within_s
        self._begun_at_s = shared.now()

    def heard(self) -> None:
        """See `Patience`."""
        self._shared.heard()

    def progressed(self) -> None:
        """See `Patience`."""
        self._shared.progressed()

    def left_s(self) -> float:
        """See `Patience`. Never below zero."""
        return max(0.0, self._begun_at_s + self._within_s - self.now())

    def delay_s(self, attempt: int, retry_after_s: float | None) -> float | None:
        """See `Patience`."""
        left_s = self.left_s()
        if not self._shared.has_heard:
            left_s -= max(0.0, self._within_s - self.backoff.first_contact_s)
        delay_s = self.backoff.delay_s(attempt, retry_after_s)
        return delay_s if delay_s < left_s else None


def wait_reason(status: int, retry_after_s: float | None) -> WaitReason | None:
    """Why a request answered like this may succeed later, None when it will not.

    Of the conflicts, only that with a request still in flight has a `Retry-After` (W41).
    """
    if status == _CONFLICT:
        return None if retry_after_s is None else "in flight"
    return _REASONS.get(status)


def parse_retry_after_s(header: str | None) -> float | None:
    """Seconds of a `Retry-After`, which is a number or an HTTP date; None when it is neither."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
