"""Ending work on SIGINT or SIGTERM, so that it can tidy up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from opdata.export.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Result = TypeVar("_Result")


async def until_signal(
    work: Coroutine[Any, Any, _Result], *, on_signal: Callable[[], None] | None = None
) -> _Result:
    """The result of `work`, which the first signal cancels; then `Interrupted` is raised.

    `on_signal` ends what a cancellation does not reach, such as a thread. A second signal kills the
    process: tidying up may itself be stuck, behind a reader that reads no more.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    caught: list[signal.Signals] = []

    def catch(number: signal.Signals) -> None:
        caught.append(number)
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        if on_signal is not None:
            on_signal()
        task.cancel()

    before = [(number, signal.getsignal(number)) for number in _SIGNALS]
    for number in _SIGNALS:
        loop.add_signal_handler(number, catch, number)
    try:
        await asyncio.wait({task})
    finally:
        for number, handler in before:
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
    if caught:
        if not task.cancelled():
            task.exception()  # what the interruption broke is no news
        raise Interrupted(caught[0].name)
    return task.result()


async def in_thread(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Run a function in a thread; a cancellation waits for it to return.

    What it works on may be closed as soon as this is over.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
