"""How many batches are under way at a time: as many as pay, fewer when the server asks for it.

The limit climbs as long as more goes through with it, and falls to half when the server answers 429
or 503 or cannot be reached. Where a higher and a lower limit do equally well it takes the lower one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from opdata.client.retry import WaitReason

_FIRST_LIMIT = 4
_BETTER = 1.08
"""By how much throughput has to rise for a higher limit to stay."""
_NO_WORSE = 0.98
_REST_WINDOWS = 6
"""Windows without an experiment after one that did not pay."""
_LEAST_ANSWERS = 6
_STEP_SHARE = 4
_SLOW_DOWN: frozenset[WaitReason] = frozenset({"rate limited", "unavailable", "unreachable"})


class Pace:
    """The limit on batches under way, between 1 and `ceiling`.

    Throughput is compared between windows of some answers each. A window counts only when nothing
    had to wait in it and the limit was what held sending back: when reading is slower, a higher limit
    shows nothing.
    """

    def __init__(self, ceiling: int, now: Callable[[], float] = time.monotonic) -> None:
        self.ceiling = ceiling
        self.limit = min(ceiling, _FIRST_LIMIT)
        self._now = now
        self._not_before_s = 0.0
        self._rate = 0.0
        self._step = 0
        """The experiment under way: by how much the limit was changed."""
        self._direction = 1
        self._rest = 0
        self._in_trouble = False
        """Whether nothing was answered since the server was too busy."""
        self._begun_at_s = now()
        self._items = 0
        self._answers = 0
        self._bound = False
        """Whether the limit has held sending back in this window."""
        self._skip = 0
        """Answers that do not count yet."""

    def pause_s(self) -> float:
        """For how long nothing new may leave, as the server asked by `Retry-After`."""
        return max(0.0, self._not_before_s - self._now())

    def is_full(self, under_way: int) -> bool:
        """Whether no more may leave now."""
        full = under_way >= self.limit
        self._bound = self._bound or full
        return full

    def answered(self, items: int) -> None:
        """A batch of so many items was answered."""
        self._in_trouble = False
        if self._skip:
            self._skip -= 1
            if not self._skip:
                self._begun_at_s = self._now()
            return
        self._items += items
        self._answers += 1
        if self._answers < max(_LEAST_ANSWERS, 2 * self.limit):
            return
        rate = self._items / max(self._now() - self._begun_at_s, 1e-9)
        if self._bound:
            self._judge(rate)
        self._open_window()

    def held_up(self, reason: WaitReason, seconds: float) -> None:
        """A request has to wait that long before it may try again."""
        if reason not in _SLOW_DOWN:
            return
        # All that are under way are told the same, and again as long as it lasts: that is one event.
        if not self._in_trouble:
            self._in_trouble = True
            self.limit = max(1, self.limit // 2)
            self._step = 0
            self._rest = 0
            self._direction = 1
        self._open_window()
        self._not_before_s = max(self._not_before_s, self._now() + seconds)

    def _judge(self, rate: float) -> None:
        if self._step:
            wanted = _BETTER if self._step > 0 else _NO_WORSE
            if rate >= self._rate * wanted:
                # Steps down are all measured against one rate, or they would add up.
                self._rate = max(rate, self._rate)
                self._try(self._direction)
                return
            self.limit -= self._step
            self._step = 0
            self._direction = -self._direction
            self._rest = _REST_WINDOWS
            return
        self._rate = rate
        if self._rest:
            self._rest -= 1
            return
        self._try(self._direction)

    def _try(self, direction: int) -> None:
        # In proportion: one more of 20 would have to bring more than it can to count as better.
        size = max(1, self.limit // _STEP_SHARE)
        limit = min(self.ceiling, max(1, self.limit + direction * size))
        self._step = limit - self.limit
        if not self._step:
            self._direction = -direction
            self._rest = _REST_WINDOWS
        self.limit = limit

    def _open_window(self) -> None:
        self._begun_at_s = self._now()
        self._items = 0
        self._answers = 0
        self._bound = False
        # What was under way when the limit changed tells nothing of the new one.
        self._skip = self.limit
