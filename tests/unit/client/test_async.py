"""What only the asynchronous client can do, and both ways of working in parallel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from opdata import NotFound, OutcomeUnknown
from opdata.client import io
from opdata.client.sync import io as sync_io
from opdata.testing import FakeServer
from tests.support.client_items import balance, bet, bets, entity


async def test_rows_may_come_from_an_asynchronous_generator(fake: FakeServer) -> None:
    async def rows() -> AsyncIterator[Any]:
        for number in range(25):
            await asyncio.sleep(0)
            yield bet("p1" if number else "nobody", number)

    fake.lose_answers()
    async with fake.async_client(chunk_items=10) as client:
        await client.send_entities([entity("p1")])
        result = await client.send_events(rows(), concurrency=3)
        states = [c.succeeded async for c in client.stream_states([balance("p1", n) for n in "ab"])]
        with pytest.raises(NotFound):
            await client.get_entity("nobody")
        found = [one.external_id async for one in client.iter_entities()]
    assert (result.succeeded, [error.index for error in result.errors]) == (24, [0])
    assert sorted(event.data["bet_amount"] for event in fake.events) == list(range(1, 25))
    assert (states, found) == ([2], ["p1"])
    assert len(fake.time.slept_s) == 1


async def test_its_errors_are_those_of_the_blocking_client(fake: FakeServer) -> None:
    async with fake.async_client() as client:
        await client.send_entities([entity("p1")])
        fake.lose_answers(1_000)
        with pytest.raises(OutcomeUnknown) as raised:
            await client.send_events(bets(3))
        fake._faults.clear()
        again = await client.send_events(bets(3), idempotency_key=raised.value.idempotency_key)
    assert again.replayed == 1
    assert len(fake.events) == 3


async def test_a_cancelled_call_leaves_nothing_running(fake: FakeServer) -> None:
    async with fake.async_client(chunk_items=1) as client:
        await client.send_entities([entity("p1")])
        stream = client.stream_events(bets(100), concurrency=4)
        await anext(stream)
        await stream.aclose()
    assert len(fake.events) < 100
    assert len(asyncio.all_tasks()) == 1


Window = Callable[[Iterator[int], Callable[[int], int], int], Any]


def blocking(pieces: Iterator[int], work: Callable[[int], int], size: int) -> Iterator[int]:
    return sync_io.in_window(pieces, work, size)


def asynchronous(pieces: Iterator[int], work: Callable[[int], int], size: int) -> Iterator[int]:
    async def later(piece: int) -> int:
        await asyncio.sleep(0)
        return work(piece)

    window = io.in_window(io.each(pieces), later, size)
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(anext_of(window))
            except StopAsyncIteration:
                return


async def anext_of(window: AsyncIterator[int]) -> int:
    return await anext(window)


@pytest.mark.parametrize("window", [blocking, asynchronous])
def test_a_window_keeps_the_order_and_draws_no_more_than_it_holds(window: Window) -> None:
    drawn = 0

    def pieces() -> Iterator[int]:
        nonlocal drawn
        for piece in range(1, 11):
            drawn = piece
            yield piece

    results = []
    for result in window(pieces(), lambda piece: piece * 10, 3):
        results.append(result)
        assert drawn <= len(results) + 2
    assert results == [n * 10 for n in range(1, 11)]


@pytest.mark.parametrize("window", [blocking, asynchronous])
def test_after_an_error_a_window_begins_nothing_and_tells_what_was_under_way(
    window: Window,
) -> None:
    begun: list[int] = []

    def work(piece: int) -> int:
        begun.append(piece)
        if piece == 2:
            raise ValueError(piece)
        return piece

    results: list[int] = []
    with pytest.raises(ValueError, match="2"):
        results.extend(window(iter(range(20)), work, 4))
    assert results == [0, 1, *range(3, max(begun) + 1)]
    assert max(begun) <= 6


def test_an_interrupt_ends_the_threads_that_wait_to_try_again() -> None:
    ended: list[type[BaseException]] = []

    def work(_piece: int) -> int:
        try:
            sync_io.SystemClock().sleep(10)
        except BaseException as error:
            ended.append(type(error))
            raise
        return 0

    def pieces() -> Iterator[int]:
        yield from range(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(sync_io.in_window(pieces(), work, 3))
    for thread in threading.enumerate():
        if thread.name.startswith("opdata-client"):
            thread.join()
    assert ended == [CancelledError] * 2


async def test_less_than_one_request_at_a_time_is_refused(fake: FakeServer) -> None:
    with (
        fake.client() as client,
        pytest.raises(ValueError, match="concurrency must be at least 1"),
    ):
        client.send_events(bets(1), concurrency=0)
    async with fake.async_client() as client_:
        with pytest.raises(ValueError, match="concurrency must be at least 1"):
            await client_.send_events(bets(1), concurrency=0)
    assert fake.requests == []
