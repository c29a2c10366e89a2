"""Turns at executing and bytes of bodies: bounded, and fair between operators."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from opdata.api.admission import HEAVY, Admission, Buffers
from opdata.errors import Busy

A, B, C = 1, 2, 3


class Worker:
    """An admission with a clock of its own; `order` has the requests in the order they began."""

    def __init__(
        self, executing: int = 2, queued: int = 1_000, queue_timeout_s: float = 60.0
    ) -> None:
        self.now_s = 0.0
        self.refused: list[str] = []
        self.order: list[str] = []
        self.admission = Admission(
            executing, queued, queue_timeout_s, self.refused.append, lambda: self.now_s
        )
        self._running: dict[str, tuple[int, int]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def request(self, name: str, operator_id: int, weight: int = HEAVY) -> asyncio.Task[None]:
        """A request that begins when it may, and ends when `end` says so."""
        self._tasks[name] = task = asyncio.create_task(self._request(name, operator_id, weight))
        await settle()
        return task

    async def end(self, name: str) -> None:
        self.admission.leave(*self._running.pop(name))
        await settle()

    @property
    def running(self) -> set[str]:
        return set(self._running)

    async def _request(self, name: str, operator_id: int, weight: int) -> None:
        await self.admission.enter(operator_id, weight)
        self._running[name] = operator_id, weight
        self.order.append(name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def flooded() -> AsyncIterator[Worker]:
    """One operator has all turns and ten more requests that wait."""
    worker = Worker(executing=2)
    for number in range(12):
        await worker.request(f"a{number}", A)
    yield worker


async def test_a_request_that_finds_room_is_not_put_off() -> None:
    admission = Worker().admission
    entering = admission.enter(A, HEAVY)
    with pytest.raises(StopIteration):  # it ran to its end without giving its turn away
        entering.send(None)
    assert (admission.executing, admission.queued) == (1, 0)


async def test_an_operator_that_is_alone_uses_all_there_is() -> None:
    worker = Worker(executing=3)
    for number in range(5):
        await worker.request(f"a{number}", A)
    assert worker.running == {"a0", "a1", "a2"}
    assert (worker.admission.executing, worker.admission.queued) == (3, 2)
    await worker.end("a1")
    assert worker.running == {"a0", "a2", "a3"}


async def test_eight_small_requests_count_as_one_large_one() -> None:
    worker = Worker(executing=1)
    for number in range(HEAVY):
        await worker.request(f"small{number}", A, 1)
    await worker.request("large", A)
    assert len(worker.running) == HEAVY
    for number in range(HEAVY):
        assert "large" not in worker.running
        await worker.end(f"small{number}")
    assert worker.running == {"large"}


async def test_a_flood_fills_its_own_queue_only() -> None:
    async with flooded() as worker:
        await worker.request("b0", B)
        assert worker.running == {"a0", "a1"}
        await worker.end("a0")
        assert worker.running == {"a1", "b0"}, "before the ten that came earlier"


async def test_an_operator_that_shares_the_worker_has_one_large_request_under_way() -> None:
    async with flooded() as worker:
        await worker.request("b0", B)
        await worker.end("a0")
        await worker.end("b0")
        assert worker.running == {"a1"}, "the place is kept for whoever comes"
        await worker.request("b1", B)
        assert worker.running == {"a1", "b1"}, "at once"
        await worker.end("a1")
        assert worker.running == {"a2", "b1"}


async def test_an_operator_that_has_been_alone_for_a_while_uses_all_again() -> None:
    async with flooded() as worker:
        await worker.request("b0", B)
        await worker.end("a0")
        await worker.end("b0")
        worker.now_s += 6
        await worker.end("a1")
        assert worker.running == {"a2", "a3"}


async def test_those_who_wait_are_taken_in_turns() -> None:
    worker = Worker(executing=1)
    await worker.request("a0", A)
    for name, operator_id in (("a1", A), ("a2", A), ("b1", B), ("b2", B), ("c1", C), ("c2", C)):
        await worker.request(name, operator_id)
    while worker.running:
        await worker.end(worker.order[-1])
    assert worker.order == ["a0", "a1", "b1", "c1", "a2", "b2", "c2"]


async def test_small_requests_do_not_run_past_a_large_one_for_ever() -> None:
    worker = Worker(executing=1)
    await worker.request("a0", A, 1)
    await worker.request("large", B)
    await worker.request("a1", A, 1)
    assert worker.running == {"a0"}
    await worker.end("a0")
    assert worker.running == {"large"}


async def test_more_than_may_wait_are_refused_and_the_others_still_find_places() -> None:
    worker = Worker(executing=1, queued=10)
    await worker.request("a", A)
    waiting = [await worker.request(f"a{number}", A) for number in range(5)]
    refused = await worker.request("a5", A)
    with pytest.raises(Busy, match="Nothing was written"):
        await refused
    assert not any(task.done() for task in waiting)
    others = [await worker.request(f"b{number}", B) for number in range(2)]
    assert not any(task.done() for task in others)
    assert worker.admission.queued == 7
    assert worker.refused == ["queue_full"]


async def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    worker = Worker(executing=1, queue_timeout_s=0.01)
    await worker.request("a0", A)
    task = await worker.request("a1", A)
    with pytest.raises(Busy, match=r"in 0\.01 s"):
        await task
    assert worker.refused == ["queue_timeout"]
    assert (worker.admission.executing, worker.admission.queued) == (1, 0)
    await worker.end("a0")
    await worker.request("a2", A)
    assert worker.running == {"a2"}


async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    worker = Worker(executing=1)
    await worker.request("a0", A)
    cancelled = await worker.request("b0", B)
    behind = await worker.request("c0", C)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await worker.end("a0")
    await behind
    assert worker.running == {"c0"}
    assert worker.admission.queued == 0


async def test_a_turn_that_comes_in_the_moment_of_the_cancelling_is_handed_on() -> None:
    worker = Worker(executing=1)
    await worker.request("a0", A)
    cancelled = await worker.request("b0", B)
    behind = await worker.request("c0", C)
    worker.admission.leave(A, HEAVY)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await behind
    assert worker.admission.executing == 1


def test_one_operator_holds_half_of_the_bytes_and_a_newcomer_finds_room() -> None:
    refused: list[str] = []
    buffers = Buffers(1_000, refused.append)
    leases = [buffers.lease(A) for _ in range(5)]
    for lease in leases:
        lease.grow(100)
    with pytest.raises(Busy):
        buffers.lease(A).grow(100)
    other = buffers.lease(B)
    other.grow(300)
    assert buffers.used == 800
    assert refused == ["buffered_bytes"]
    for lease in (*leases, other):
        lease.release()
    assert (buffers.used, buffers.held(A), buffers.held(B)) == (0, 0, 0)


def test_an_operators_only_body_may_take_all_that_is_free() -> None:
    buffers = Buffers(1_000, lambda _reason: None)
    lease = buffers.lease(A)
    lease.grow(400)
    lease.grow(600)
    with pytest.raises(Busy):
        lease.grow(1)
    lease.shrink(600)
    assert (lease.size, buffers.used) == (400, 400)
    lease.release()
    lease.release()
    assert buffers.used == 0


async def test_a_turn_that_comes_when_the_time_is_up_is_lost_to_nobody() -> None:
    """One request leaves and another's time is up before the loop comes to either."""
    worker = Worker(executing=1, queue_timeout_s=0.02)
    await worker.request("first", A)
    late = await worker.request("late", A)
    next_one = await worker.request("next", A)
    asyncio.get_running_loop().call_later(0, lambda: worker.admission.leave(A, HEAVY))
    time.sleep(0.05)  # noqa: ASYNC251 - a loop that is busy for longer than anybody may wait
    for waited in (late, next_one):
        with pytest.raises(Busy):
            await waited

    assert (worker.admission.executing, worker.admission.queued) == (0, 0)
    assert (await worker.request("after", A)).done()


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_becomes_of_requests_all_is_free_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    admission = Admission(2, 30, 0.004, lambda _reason: None)
    most = 0

    async def request() -> None:
        nonlocal most
        operator_id, weight = chance.choice((A, B, C)), chance.choice((1, HEAVY))
        await admission.enter(operator_id, weight)
        most = max(most, admission.executing)
        try:
            await asyncio.sleep(chance.choice((0, 0.001, 0.004)))
        finally:
            admission.leave(operator_id, weight)

    tasks = []
    for _ in range(120):
        tasks.append(asyncio.create_task(request()))
        await asyncio.sleep(chance.choice((0, 0, 0.0005)))
        if chance.random() < 0.2:
            chance.choice(tasks).cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(end) for end in ends} <= {type(None), Busy, asyncio.CancelledError}
    assert 1 <= most <= 2 * HEAVY
    assert (admission.executing, admission.queued) == (0, 0)
    await asyncio.wait_for(admission.enter(A, 2 * HEAVY), 10)


async def test_what_an_operator_leaves_is_taken_by_those_who_waited_for_their_own_share() -> None:
    worker = Worker(executing=4)
    await worker.request("b", B)
    await worker.end("b")
    for name in ("a1", "a2", "a3"):
        await worker.request(name, A)
    assert worker.running == {"a1"}  # one at a time, as long as B may come again

    worker.now_s += 6
    await worker.request("a4", A)

    assert worker.running == {"a1", "a2", "a3", "a4"}
