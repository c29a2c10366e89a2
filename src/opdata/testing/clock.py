"""Time that passes only by being waited for: retries of minutes take none."""

from __future__ import annotations


class VirtualTime:
    """Seconds since the start of a test. `slept_s` has every wait, in order."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.slept_s: list[float] = []
        self.blocking = BlockingClock(self)
        self.asynchronous = AsyncClock(self)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at_s += seconds

    def wait(self, seconds: float) -> None:
        """Let time pass, and remember that it was waited for."""
        self.slept_s.append(seconds)
        self.at_s += seconds


class BlockingClock:
    """The `clock` of a `Client`."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def now_s(self) -> float:
        """Seconds since the start."""
        return self._time.at_s

    def sleep(self, seconds: float) -> None:
        """Return at once; the time has passed."""
        self._time.wait(seconds)


class AsyncClock:
    """The `clock` of an `AsyncClient`."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def now_s(self) -> float:
        """Seconds since the start."""
        return self._time.at_s

    async def sleep(self, seconds: float) -> None:
        """Return at once; the time has passed."""
        self._time.wait(seconds)
