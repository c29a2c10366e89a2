"""Operators and senders of a real server process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import httpx2

from tests.support.api import add_operator
from tests.support.running import RunningServer

T = TypeVar("T")


@contextmanager
def new_operator(
    server: RunningServer, name: str, *, template: bool = True
) -> Iterator[httpx2.Client]:
    """A client with the key of a new operator, the template set.

    Straight into the store: a command takes the better part of a second to start.
    """
    key = asyncio.run(add_operator(server.settings, name))
    client = server.client(key, template=template)
    try:
        yield client
    finally:
        client.close()


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run all tasks, each in a thread of its own; their results in order."""
    with ThreadPoolExecutor(len(tasks)) as threads:
        return [future.result() for future in [threads.submit(task) for task in tasks]]
