"""Figures from short slices that alternate: rates, latencies, processor time, and ratios with their spread.

The machine's speed varies by the minute. Contenders therefore run in turn, a slice at a time, round by
round; a ratio is taken within each round, and the median of the rounds is what is reported.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct


class Slice(NamedTuple):
    """One contender's turn. `processor_s`: seconds of `server`, `client` and `database` meanwhile."""

    items: int
    seconds: float
    latencies_s: Sequence[float]
    processor_s: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds


class Spread(Struct, frozen=True):
    """The median of the rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float


class Summary(Struct, frozen=True):
    """All of a contender's slices. Percentiles are over every request of all of them."""

    items_a_second: Spread
    p50_ms: float
    p99_ms: float
    requests: int
    cores: Mapping[str, float]
    """Processor seconds a second, by whose they are."""
    processor_ms: Mapping[str, float]
    """Processor milliseconds a request."""


class Series:
    """A contender's slices, one a round."""

    def __init__(self) -> None:
        self._slices: list[Slice] = []

    def add(self, one: Slice) -> None:
        """The slice of the next round."""
        self._slices.append(one)

    @property
    def rates(self) -> list[float]:
        """Items a second, by round."""
        return [one.rate for one in self._slices]

    def summary(self) -> Summary:
        """What is reported of it."""
        latencies = sorted(s for one in self._slices for s in one.latencies_s)
        seconds = sum(one.seconds for one in self._slices)
        whose = self._slices[0].processor_s
        spent = {name: sum(one.processor_s[name] for one in self._slices) for name in whose}
        return Summary(
            items_a_second=spread(self.rates),
            p50_ms=percentile(latencies, 0.50) * 1e3,
            p99_ms=percentile(latencies, 0.99) * 1e3,
            requests=len(latencies),
            cores={name: s / seconds for name, s in spent.items()},
            processor_ms={name: s / len(latencies) * 1e3 for name, s in spent.items()},
        )


def ratio(ours: Series, theirs: Series) -> Spread:
    """Our rate as a multiple of theirs, of each round."""
    return spread([a / b for a, b in zip(ours.rates, theirs.rates, strict=True)])


def spread(values: Sequence[float]) -> Spread:
    """The median, the lowest and the highest."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of the ordered values that this share of them does not exceed: nothing in between."""
    return ordered[max(1, math.ceil(len(ordered) * share)) - 1]
