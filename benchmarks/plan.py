"""How much is measured: a full run, and a quick one that shows the same with less certainty."""

from __future__ import annotations

import sys
import time
from typing import Final

from msgspec import Struct


class Plan(Struct, frozen=True):
    """Sizes of a run. `slice_s`: how long a contender's turn takes, about."""

    mode: str
    thorough: bool
    """Everything is warmed up, and every variant sent over every number of connections."""
    rounds: int
    rounds_crowded: int
    """With many connections."""
    slice_s: float
    fewest_batches: int
    """A turn's, whatever they take."""
    player_batches: int
    """Thousands of players that events and states are about."""
    turns: int
    """Batches a turn where a batch is looked at by itself."""
    requests: int
    """A turn's, for each connection, where they are single items or reads."""
    table_rows: tuple[int, ...]
    operators: tuple[int, ...]
    loader_rows: int
    memory_batches: int
    profiled_batches: int


FULL: Final = Plan(
    mode="full",
    thorough=True,
    rounds=6,
    rounds_crowded=3,
    slice_s=0.25,
    fewest_batches=4,
    player_batches=100,
    turns=4,
    requests=40,
    table_rows=(10_000, 100_000, 1_000_000, 10_000_000),
    operators=(1, 10, 100, 1_000, 10_000),
    loader_rows=500_000,
    memory_batches=600,
    profiled_batches=60,
)
QUICK: Final = Plan(
    mode="quick",
    thorough=False,
    rounds=2,
    rounds_crowded=1,
    slice_s=0.03,
    fewest_batches=2,
    player_batches=10,
    turns=2,
    requests=8,
    table_rows=(10_000, 100_000),
    operators=(1, 100),
    loader_rows=100_000,
    memory_batches=40,
    profiled_batches=5,
)

_began: Final = time.monotonic()


def note(text: str) -> None:
    """Say what is being measured, on standard error."""
    print(f"[{time.monotonic() - _began:5.0f} s] {text}", file=sys.stderr, flush=True)
