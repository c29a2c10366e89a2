"""How many batches are under way at a time, against a server that is made up here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opdata.loader.pace import Pace


class Simulated:
    """A server and a clock: `rate(limit)` batches a second get through with so many under way."""

    def __init__(self, ceiling: int, rate: Callable[[int], float]) -> None:
        self.now_s = 100.0
        self.rate = rate
        self.pace = Pace(ceiling, lambda: self.now_s)
        self.limits = [self.pace.limit]

    def answer(self, batches: int, *, always_full: bool = True) -> None:
        for _ in range(batches):
            under_way = self.pace.limit if always_full else self.pace.limit - 1
            self.pace.is_full(under_way)
            self.now_s += 1 / self.rate(self.pace.limit)
            self.pace.answered(5_000)
            self.limits.append(self.pace.limit)


def test_the_limit_rises_to_the_ceiling_while_throughput_rises() -> None:
    server = Simulated(16, lambda limit: 10.0 * limit)
    server.answer(600)
    assert max(server.limits) == 16
    assert server.limits[-1] >= 12


def test_the_limit_settles_where_more_brings_nothing() -> None:
    server = Simulated(32, lambda limit: 10.0 * min(limit, 6))
    server.answer(3_000)
    assert set(server.limits[1_000:]) <= {5, 6, 7, 8}


def test_a_server_that_does_one_at_a_time_gets_few() -> None:
    server = Simulated(32, lambda _limit: 10.0)
    server.answer(3_000)
    assert max(server.limits) <= 5
    assert server.limits[-1] <= 2


def test_the_limit_never_leaves_its_bounds() -> None:
    server = Simulated(3, lambda limit: 10.0 * limit)
    server.answer(500)
    assert set(server.limits) <= {1, 2, 3}
    assert Simulated(1, lambda _limit: 1.0).limits == [1]


def test_a_source_that_is_slower_than_the_server_raises_nothing() -> None:
    server = Simulated(16, lambda limit: 10.0 * limit)
    server.answer(500, always_full=False)
    assert set(server.limits) == {4}


@pytest.mark.parametrize("reason", ["rate limited", "unavailable", "unreachable"])
def test_a_server_that_is_too_busy_halves_the_limit_once_until_it_answers(reason: str) -> None:
    server = Simulated(16, lambda limit: 10.0 * limit)
    server.answer(600)
    high = server.pace.limit
    for _ in range(high):
        server.pace.held_up(reason, 2.0)  # type: ignore[arg-type]
    assert server.pace.limit == high // 2
    server.answer(1)
    server.pace.held_up(reason, 2.0)  # type: ignore[arg-type]
    assert server.pace.limit == high // 4


def test_nothing_new_leaves_before_a_retry_after_is_over() -> None:
    server = Simulated(8, lambda _limit: 10.0)
    server.pace.held_up("rate limited", 30.0)
    assert server.pace.pause_s() == 30.0
    server.now_s += 29.0
    assert server.pace.pause_s() == 1.0
    server.now_s += 1.0
    assert server.pace.pause_s() == 0.0


def test_a_request_that_is_still_in_flight_slows_nothing_down() -> None:
    server = Simulated(8, lambda _limit: 10.0)
    server.pace.held_up("in flight", 5.0)
    assert (server.pace.limit, server.pace.pause_s()) == (4, 0.0)


def test_the_limit_recovers_after_a_busy_time() -> None:
    server = Simulated(16, lambda limit: 10.0 * limit)
    server.answer(600)
    server.pace.held_up("unavailable", 1.0)
    server.answer(600)
    assert server.pace.limit >= 12
