"""The load generator: prepared bytes over keep-alive connections, one request at a time on each.

It parses no more of an answer than its status and its length, so that the server is what is measured; its
own processor time is part of every result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, cast

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_SHOWN_BYTES: Final = 500


class Load(NamedTuple):
    """What some requests took. `latencies_s`: of each, from its first byte to the answer's last."""

    seconds: float
    latencies_s: list[float]
    client_s: float
    """Processor time of this process meanwhile."""


def message(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """A whole HTTP request below the base path."""
    head = (
        f"{method} /operator-data-api{path} HTTP/1.1\r\nHost: bench\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connections:
    """Open connections to a server on loopback, over which requests are shared out."""

    def __init__(self, connections: Sequence[_Connection]) -> None:
        self._connections = connections

    async def run(self, messages: Sequence[bytes], expected: bytes = b'"success":true') -> Load:
        """Send all of them, each as soon as a connection is free; return when all are answered.

        Raises `RuntimeError` for an answer that is no success or lacks `expected`.
        """
        run = _Run(iter(messages), expected)
        started, client_s = time.perf_counter(), time.process_time()
        for connection in self._connections:
            connection.work_on(run)
        try:
            await run.done
        finally:
            client_s = time.process_time() - client_s
        if len(run.latencies_s) != len(messages):
            raise RuntimeError(f"{len(run.latencies_s)} answers to {len(messages)} requests")
        return Load(run.ended - started, run.latencies_s, client_s)

    async def ask(self, request: bytes) -> bytes:
        """One request; the body of its answer."""
        run = _Run(iter([request]), b"")
        self._connections[0].work_on(run)
        await run.done
        return run.last_body

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[Connections]:
    """That many connections to a port on loopback while the block lasts."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(_Connection, "127.0.0.1", port) for _ in range(count)]
    connections = Connections([connection for _, connection in made])
    try:
        yield connections
    finally:
        connections.close()


class _Run:
    """Requests that connections take from, and what became of them."""

    def __init__(self, messages: Iterator[bytes], expected: bytes) -> None:
        self.messages = messages
        self.expected = expected
        self.latencies_s: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way = 0
        self.ended = 0.0
        self.last_body = b""

    def fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))


class _Connection(asyncio.Protocol):
    """A connection that sends the next request when the last one was answered."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._run: _Run | None = None
        self._sent_at = 0.0
        self._received = bytearray()
        self._length = -1  # of the whole answer, once its head is there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._run is not None:
            self._run.fail(f"the server hung up: {exc}")

    def work_on(self, run: _Run) -> None:
        self._run = run
        run.under_way += 1
        self._next()

    def close(self) -> None:
        self._run = None
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if self._length < 0:
            head_end = received.find(_HEAD_END)
            if head_end < 0:
                return
            head = bytes(received[:head_end]).lower()
            length = head.partition(_LENGTH)[2].partition(b"\r\n")[0]
            self._length = head_end + len(_HEAD_END) + int(length)
        if len(received) >= self._length:
            self._answered(time.perf_counter())

    def _answered(self, at: float) -> None:
        run = self._run
        assert run is not None
        answer = bytes(self._received)
        run.latencies_s.append(at - self._sent_at)
        if not answer.startswith(b"HTTP/1.1 2") or run.expected not in answer:
            run.fail(answer[:_SHOWN_BYTES].decode("utf-8", "replace"))
            return
        run.ended = at
        run.last_body = answer.partition(_HEAD_END)[2]
        self._next()

    def _next(self) -> None:
        run = self._run
        assert run is not None
        assert self._transport is not None
        self._received.clear()
        self._length = -1
        request = next(run.messages, None)
        if request is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(request)
            return
        self._run = None
        run.under_way -= 1
        if run.under_way == 0 and not run.done.done():
            run.done.set_result(None)
