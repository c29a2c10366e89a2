"""Where blocking I/O differs from asynchronous I/O: the counterpart of `opdata.client.io`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeAlias, TypeVar

import httpx2

T = TypeVar("T")
R = TypeVar("R")

Rows: TypeAlias = Iterable[T]
HttpClient: TypeAlias = httpx2.Client
HttpTransport: TypeAlias = httpx2.BaseTransport


class Clock(Protocol):
    """Monotonic seconds, and waiting for them to pass."""

    def now_s(self) -> float:
        """Seconds since some moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The real clock."""

    def now_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)


def each(rows: Rows[T]) -> Iterator[T]:
    """The rows, one by one."""
    return iter(rows)


def in_window(pieces: Iterator[T], work: Callable[[T], R], size: int) -> Iterator[R]:
    """The results of `work` on each piece, in the order of the pieces, in `size` threads.

    Pieces are drawn in the caller's thread as there is room. After an error nothing more is begun;
    what is under way is waited for and its results are yielded before the error is raised.
    """
    under_way: deque[Future[R]] = deque()
    failure: BaseException | None = None
    with ThreadPoolExecutor(size, "opdata-client") as threads:
        try:
            for piece in pieces:
                under_way.append(threads.submit(work, piece))
                if len(under_way) >= size:
                    task = under_way.popleft()
                    if failure := task.exception():
                        break
                    yield task.result()
            while under_way:
                task = under_way.popleft()
                if error := task.exception():
                    failure = failure or error
                else:
                    yield task.result()
        finally:
            for task in under_way:
                task.cancel()
    if failure:
        raise failure
