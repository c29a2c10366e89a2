"""What the benchmark makes of what it measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType

import pytest

from benchmarks.client import connected, message
from benchmarks.slices import Series, Slice, percentile, ratio
from benchmarks.stages import STAGES, Stopwatch


def series(*seconds: float) -> Series:
    """A request of ten items a slice."""
    made = Series()
    for each in seconds:
        made.add(Slice(10, each, [each], MappingProxyType({"server": each / 2})))
    return made


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.99, 1), (100, 0.5, 50), (100, 0.99, 99), (101, 0.99, 100)],
)
def test_a_percentile_is_one_of_the_values(count: int, share: float, expected: int) -> None:
    assert percentile(range(1, count + 1), share) == expected


def test_a_ratio_is_taken_within_each_round() -> None:
    found = ratio(series(1, 2, 4), series(2, 2, 2))

    assert (found.median, found.low, found.high) == (1.0, 0.5, 2.0)


def test_a_summary_has_the_processor_time_of_each_second_and_each_request() -> None:
    summary = series(1, 3).summary()

    assert summary.requests == 2
    assert summary.cores == {"server": 0.5}
    assert summary.processor_ms == {"server": 1_000}
    assert summary.p99_ms == 3_000


def test_every_stage_stands_at_a_function_of_the_path() -> None:
    with Stopwatch().at(STAGES):
        pass  # raises for a name that is gone


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port on which every request gets these bytes, and the bodies that came."""
    seen: list[bytes] = []
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append(await reader.readexactly(int(head.rpartition(b": ")[2])))
                for answer in answers:
                    writer.write(answer)
                    await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], seen
    server.close()
    await asyncio.gather(*(task for task in tasks if task is not None))


async def test_requests_are_shared_out_over_the_connections_and_all_are_answered() -> None:
    head, body = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n", b'{"success":true}'
    messages = [message("POST", "/batch/states", "key", b"%d" % n) for n in range(20)]
    async with answering(head, body) as (port, seen), connected(port, 3) as connections:
        load = await connections.run(messages)

    assert sorted(map(int, seen)) == list(range(20))
    assert len(load.latencies_s) == 20
    assert max(load.latencies_s) <= load.seconds


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 16\r\n\r\n" + b'{"success":true}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + b'{"failed":1}',
    ],
)
async def test_an_answer_that_is_not_the_expected_success_ends_the_run(answer: bytes) -> None:
    async with answering(answer) as (port, _), connected(port, 1) as connections:
        with pytest.raises(RuntimeError, match="Content-Length"):
            await connections.run([message("GET", "/settings", "key")], b'"failed":0')
