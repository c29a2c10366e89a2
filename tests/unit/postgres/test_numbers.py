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

    def __init__(self, erasures: int = 0, gone: str = "") -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self._erasures = erasures
        self._gone = gone

    async def fetchval(self, *_: Any) -> int:
        return self._erasures

    async def fetchrow(self, _sql: str, _operator_id: int, names: str) -> tuple[Any, ...]:
        self.asked.set()
        await self.answer.wait()
        found = [name for name in names.split("\x1f") if name != self._gone]
        return found, [int(name[1:]) for name in found], self._erasures


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


@pytest.mark.parametrize("names", [{"p1", "p2"}, {"p1", "p2", "p3"}])
async def test_nothing_that_was_remembered_holds_after_an_erasure(names: set[str]) -> None:
    """Whether there is a name to look up besides or not."""
    numbers = EntityNumbers()
    await find(numbers, {"p1", "p2"})
    connection = Slow(erasures=1, gone="p1")
    connection.answer.set()
    found = await numbers.find(cast("Connection", connection), 1, names)
    assert found.keys() == names - {"p1"}
    unanswered = cast("Connection", Slow(erasures=1))
    assert (await numbers.find(unanswered, 1, {"p2"}))["p2"] == 2


async def test_what_others_find_later_is_not_found_by_who_has_asked() -> None:
    """W42: of a batch, an entity that was not there when keys were taken is not there for its events."""
    numbers = EntityNumbers()
    await find(numbers, {"p1"})
    slow = Slow(gone="p2")
    slow.answer.set()
    found = await numbers.find(cast("Connection", slow), 1, {"p1", "p2"})
    known = await numbers.find(cast("Connection", slow), 1, {"p1"})
    await find(numbers, {"p2", "p3"})
    assert dict(found) == dict(known) == {"p1": 1}


async def test_names_are_remembered_after_a_look_up() -> None:
    numbers = EntityNumbers()
    assert (await find(numbers, {"p1", "p2"}))["p2"] == 2
    unanswered = Slow()
    found = await numbers.find(cast("Connection", unanswered), 1, {"p1", "p2"})
    assert dict(found) == {"p1": 1, "p2": 2}
    assert not unanswered.asked.is_set()
