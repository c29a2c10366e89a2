"""Where blocking I/O differs from asynchronous I/O: the counterpart of `opdata.client.io`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event, local
from typing import Final, Protocol, TypeAlias, TypeVar

import httpx2

T = TypeVar("T")
R = TypeVar("R")

PIECE_BYTES: Final = 256 * 1024

_thread: Final = local()
"""In a thread of `in_window`: `abandoned`, the event that says so."""

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
        """See `Clock`. Raises `CancelledError` when nobody waits for this thread's work any more."""
        abandoned: Event | None = getattr(_thread, "abandoned", None)
        if abandoned is None:
            time.sleep(seconds)
        elif abandoned.wait(seconds):
            raise CancelledError


def each(rows: Rows[T]) -> Iterator[T]:
    """The rows, one by one."""
    return iter(rows)


def in_pieces(body: bytes) -> Iterator[bytes]:
    """A body bit by bit: only between them is it seen that the other side has stopped taking it."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def in_window(pieces: Iterator[T], work: Callable[[T], R], size: int) -> Iterator[R]:
    """The results of `work` on each piece, in the order of the pieces, in `size` threads.

    Pieces are drawn in the caller's thread as there is room. After an error nothing more is begun;
    what is under way is waited for and its results are yielded before the error is raised. Whoever
    leaves early waits for the requests that are under way, and not for those to be sent again; with
    Ctrl-C for none.
    """
    under_way: deque[Future[R]] = deque()
    failure: BaseException | None = None
    abandoned = Event()

    def begin() -> None:
        _thread.abandoned = abandoned

    threads = ThreadPoolExecutor(size, "opdata-client", begin)
    is_interrupted = False
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
    except (KeyboardInterrupt, SystemExit):
        is_interrupted = True
        raise
    finally:
        abandoned.set()
        threads.shutdown(wait=not is_interrupted, cancel_futures=True)
    if failure:
        raise failure
