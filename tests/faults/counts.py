"""How often each fault is injected: seldom in `make test`, often in `make torture`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_PREFIX: Final = "OPDATA_TORTURE"


class Counts(NamedTuple):
    """Repetitions of each fault on each store. What has a count of its own in the environment wins."""

    seed: int
    """What the moments, the bodies and the bytes that are lost are drawn from."""
    minutes: float
    """The longest that the repetitions of one test may take; what was done until then is reported."""
    kills: int
    """`kill -9` of a server."""
    worker_kills: int
    """`kill -9` of a worker among several."""
    load_kills: int
    """`kill -9` of a load, in each of its steps."""
    crashes: int
    """Immediate shutdowns of PostgreSQL."""
    terminations: int
    """Connections that PostgreSQL hangs up on, half of them while they commit."""
    line_faults: int
    """Faults of the line between the server and PostgreSQL."""
    call_stride: int
    """Every n-th system call of a write fails once; 1 for all of them."""
    power_cuts: int
    """Disks as a power cut would have left them, each opened and compared."""
    fills: int
    """Disks filled up and freed again."""
    collisions: int
    """Rounds of 32 writers on the same keys."""
    races: int
    """Idempotency keys that eight senders use at once."""
    bodies: int
    """Mutated bodies."""
    examples: int
    """Requests that schemathesis makes up for an operation."""
    slow_senders: int
    """Connections that dribble, half of them a head and half a body."""

    @property
    def is_long(self) -> bool:
        """Whether this is `make torture`."""
        return _PREFIX in os.environ

    def chance(self, *salt: object) -> random.Random:
        """Chance that is the same whenever the seed is."""
        return random.Random(f"{self.seed} {salt}")

    def times(self, what: str) -> Iterator[int]:
        """Numbers from 0 on, one for each repetition, until the count or the time is up."""
        deadline = time.monotonic() + self.minutes * 60
        for number in range(getattr(self, what)):
            if time.monotonic() > deadline:
                return
            yield number


SHORT: Final = Counts(
    seed=7,
    minutes=5,
    kills=3,
    worker_kills=1,
    load_kills=1,
    crashes=2,
    terminations=80,
    line_faults=10,
    call_stride=13,
    power_cuts=40,
    fills=1,
    collisions=1,
    races=8,
    bodies=120,
    examples=6,
    slow_senders=60,
)

LONG: Final = Counts(
    seed=random.SystemRandom().randrange(1_000_000),
    minutes=10,
    kills=200,
    worker_kills=40,
    load_kills=10,
    crashes=40,
    terminations=1_000,
    line_faults=300,
    call_stride=1,
    power_cuts=3_000,
    fills=5,
    collisions=10,
    races=2_000,
    bodies=10_000,
    examples=60,
    slow_senders=1_000,
)


def _chosen() -> Counts:
    defaults = LONG if _PREFIX in os.environ else SHORT
    given: dict[str, Any] = {
        name: type(default)(float(text))
        for name, default in defaults._asdict().items()
        if (text := os.environ.get(f"{_PREFIX}_{name.upper()}"))
    }
    return defaults._replace(**given)


COUNTS: Final = _chosen()
