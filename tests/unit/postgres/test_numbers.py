"""Which entity a name means, while other requests use the same memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from opdata.storage import numbers as module
from opdata.storage.postgres.connection import Connection
from opdata.storage.postgres.numbers import EntityNumbers


class Slow:
    """A connection to an operator of entities p0, p1 …; each look-up waits to be let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def fetchval(self, *_: Any) -> int:
        return 0

    async def fetchrow(self, _sql: str, _operator_id: int, names: str) -> tuple[Any, ...]:
        self.asked.set()
        await self.answer.wait()
        found = names.split("\x1f")
        return found, [int(name[1:]) for name in found], 0


async def find(numbers: EntityNumbers, names: set[str]) -> dict[str, int]:
    connection = Slow()
    connection.answer.set()
    return dict(await numbers.find(cast("Connection", connection), 1, names))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_REMEMBERED", 6)


async def test_names_that_are_forgotten_during_a_look_up_are_there_all_the_same() -> None:
    numbers = EntityNumbers()
    await find(numbers, {"p1", "p2", "p3", "p4"})
    slow = Slow()
    looking = asyncio.create_task(
        numbers.find(cast("Connection", slow), 1, {"p1", "p2", "p3", "p4", "p5"})
    )
    await slow.asked.wait()
    await find(numbers, {"p7", "p8", "p9"})  # the older half of the four is forgotten for these
    slow.answer.set()

    found = await looking

    assert {name: found[name] for name in ("p1", "p2", "p3", "p4", "p5")} == {
        f"p{number}": number for number in range(1, 6)
    }


async def test_names_are_remembered_after_a_look_up() -> None:
    numbers = EntityNumbers()
    assert (await find(numbers, {"p1", "p2"}))["p2"] == 2
    unanswered = Slow()
    found = await numbers.find(cast("Connection", unanswered), 1, {"p1", "p2"})
    assert dict(found) == {"p1": 1, "p2": 2}
    assert not unanswered.asked.is_set()
