"""Senders that dribble are dropped in time, and others do not notice them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import httpx2
import pytest

from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.support.api import player
from tests.support.running import RunningServer
from tests.system.conftest import Serve

DROPPED_WITHIN_S = 15
SHORT_TIMEOUT_S = 1.0


async def dribble(server: RunningServer, key: str, *, body: bool) -> tuple[float, bytes]:
    """A byte of a head or of a body now and then, until the server hangs up; seconds, and its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    began = time.monotonic()
    head = f"POST /operator-data-api/batch/entities HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    if body:
        head += "Content-Length: 100000\r\n\r\n"
    writer.write(head.encode())
    answer = asyncio.create_task(reader.read())
    with suppress(ConnectionError):
        while not answer.done():
            writer.write(b" " if body else b"x")
            await writer.drain()
            await asyncio.wait([answer], timeout=0.2)
    received = b""
    with suppress(ConnectionError):
        received = await answer
    writer.close()
    return time.monotonic() - began, received


async def meanwhile(server: RunningServer, key: str, until: asyncio.Event) -> list[float]:
    """Batches of a healthy client, one after the other; the seconds that each took."""
    took: list[float] = []
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=server.base, headers=headers, timeout=60) as client:
        while not until.is_set():
            began = time.monotonic()
            batch = [player(f"p{len(took)}_{number}") for number in range(100)]
            answer = await client.post("/batch/entities", json=batch)
            took.append(time.monotonic() - began)
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(0.05)
    return took


@pytest.mark.fault("slow senders of heads and of bodies")
async def test_slow_senders_are_dropped_and_a_healthy_client_is_served(
    serve: Serve, counts: Counts, tally: Tally
) -> None:
    """`make torture` leaves the deadlines as they are by default."""
    timeout_s = 10.0 if counts.is_long else SHORT_TIMEOUT_S
    server = serve("--receive-timeout-s", str(timeout_s))
    key, healthy = server.new_key(), server.new_key()
    server.client(key).close()
    done = asyncio.Event()
    client = asyncio.create_task(meanwhile(server, healthy, done))
    dropped = await asyncio.gather(
        *(dribble(server, key, body=number % 2 == 1) for number in range(counts.slow_senders))
    )
    done.set()
    took = sorted(await client)

    answers = {answer.partition(b"\r\n")[0] for _, answer in dropped}
    # Whoever is sending in that very moment may lose the answer with the connection.
    assert b"HTTP/1.1 408 Request Timeout" in answers
    assert answers <= {b"HTTP/1.1 408 Request Timeout", b""}
    assert max(seconds for seconds, _ in dropped) < DROPPED_WITHIN_S
    [(stored,)] = server.stored.rows("SELECT count(*) FROM entities")
    assert stored == len(took) * 100
    tally.add("senders", len(dropped))
    tally.add("batches of a healthy client", len(took))
    tally.measure("seconds until the last was dropped", max(seconds for seconds, _ in dropped))
    tally.measure("p99 of a healthy client's batch, ms", took[int(len(took) * 0.99)] * 1000)
