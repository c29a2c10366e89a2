"""Reveals share entries, are written at once when nobody is ahead, and fail together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from opdata.api.reveals import Reveals
from opdata.audit import Entry, Head, Record
from opdata.errors import Unavailable
from opdata.storage.reads import AuditQuery, Page


class SlowLog:
    """A log that writes when it is let, and notes what it was given."""

    def __init__(self) -> None:
        self.written: list[tuple[int, list[Entry]]] = []
        self.free = asyncio.Event()
        self.broken = False

    async def record(self, operator_id: int, entries: Sequence[Entry]) -> None:
        await self.free.wait()
        if self.broken:
            raise Unavailable
        self.written.append((operator_id, list(entries)))

    async def chain(self, operator_id: int, *, after: int, limit: int) -> Sequence[Record]:
        raise NotImplementedError

    async def entries(self, operator_id: int, query: AuditQuery) -> Page[Record]:
        raise NotImplementedError

    async def heads(self) -> Sequence[Head]:
        raise NotImplementedError

    def revealed(self) -> list[tuple[int, str, object]]:
        return [
            (operator_id, entry.actor, entry.detail["entities"])
            for operator_id, entries in self.written
            for entry in entries
        ]


def asked(reveals: Reveals, entity_id: str, key_id: str = "key_1") -> asyncio.Task[None]:
    return asyncio.create_task(reveals.record(1, key_id, entity_id))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_alone_waits_for_nobody_and_those_that_come_meanwhile_share_the_next() -> None:
    log = SlowLog()
    reveals = Reveals(log)
    tasks = [asked(reveals, "ent_1")]
    await settle()
    tasks += [asked(reveals, "ent_2"), asked(reveals, "ent_3"), asked(reveals, "ent_2")]
    tasks += [asked(reveals, "ent_2", "key_2")]
    await settle()
    assert not any(task.done() for task in tasks), "nobody is answered before it is written"
    log.free.set()
    await asyncio.gather(*tasks)
    assert log.revealed() == [
        (1, "key:key_1", ["ent_1"]),
        (1, "key:key_1", ["ent_2", "ent_3"]),
        (1, "key:key_2", ["ent_2"]),
    ]
    assert len(log.written) == 2


async def test_operators_do_not_wait_for_each_other() -> None:
    log = SlowLog()
    reveals = Reveals(log)
    both = [asyncio.create_task(reveals.record(one, "key_1", "ent_1")) for one in (1, 2)]
    await settle()
    log.free.set()
    await asyncio.gather(*both)
    assert [operator_id for operator_id, _ in log.written] == [1, 2]


async def test_an_entry_names_a_thousand_entities_at_most() -> None:
    log = SlowLog()
    reveals = Reveals(log)
    first = asked(reveals, "ent")
    await settle()
    rest = [asked(reveals, f"ent_{at}") for at in range(1_001)]
    await settle()
    log.free.set()
    await asyncio.gather(first, *rest)
    assert [len(entities) for _, _, entities in log.revealed()] == [1, 1_000, 1]  # type: ignore[arg-type]


async def test_all_who_share_an_entry_hear_that_it_could_not_be_written() -> None:
    log = SlowLog()
    log.broken = True
    log.free.set()
    reveals = Reveals(log)
    results = await asyncio.gather(
        *(reveals.record(1, "key_1", f"ent_{at}") for at in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [Unavailable] * 3
    log.broken = False
    await reveals.record(1, "key_1", "ent_3")
    assert log.revealed() == [(1, "key:key_1", ["ent_3"])]


async def test_who_goes_away_takes_nobody_along_and_is_recorded_all_the_same() -> None:
    log = SlowLog()
    reveals = Reveals(log)
    gone, stays = asked(reveals, "ent_1"), asked(reveals, "ent_2")
    await settle()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    closing = asyncio.create_task(reveals.close())
    await settle()
    assert not closing.done()
    log.free.set()
    await asyncio.gather(stays, closing)
    assert log.revealed() == [(1, "key:key_1", ["ent_1", "ent_2"])]
