"""Where asynchronous I/O differs from blocking I/O: the HTTP client, sleeping, and work in parallel.

`opdata.client.sync.io` has the same names for blocking I/O. Everything above them is written once:
`tools/generate_sync.py` makes the blocking modules out of the asynchronous ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeAlias, TypeVar

import httpx2

T = TypeVar("T")
R = TypeVar("R")

PIECE_BYTES: Final = 256 * 1024

Rows: TypeAlias = Iterable[T] | AsyncIterable[T]
HttpClient: TypeAlias = httpx2.AsyncClient
HttpTransport: TypeAlias = httpx2.AsyncBaseTransport


class Clock(Protocol):
    """Monotonic seconds, and waiting for them to pass."""

    def now_s(self) -> float:
        """Seconds since some moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The real clock."""

    def now_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)


async def each(rows: Rows[T]) -> AsyncIterator[T]:
    """The rows, one by one, of an iterable of either sort."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body bit by bit: only between them is it seen that the other side has stopped taking it."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


async def in_window(
    pieces: AsyncIterator[T], work: Callable[[T], Awaitable[R]], size: int
) -> AsyncIterator[R]:
    """The results of `work` on each piece, in the order of the pieces, `size` under way at a time.

    Pieces are drawn as there is room. After an error nothing more is begun; what is under way is
    waited for and its results are yielded before the error is raised.
    """
    under_way: deque[asyncio.Task[R]] = deque()
    failure: BaseException | None = None

    async def run(piece: T) -> R:
        return await work(piece)

    try:
        async for piece in pieces:
            under_way.append(asyncio.create_task(run(piece)))
            if len(under_way) >= size:
                task = under_way.popleft()
                await asyncio.wait({task})
                if failure := task.exception():
                    break
                yield task.result()
        while under_way:
            task = under_way.popleft()
            await asyncio.wait({task})
            if error := task.exception():
                failure = failure or error
            else:
                yield task.result()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    if failure:
        raise failure
