"""The straight-line floor and the bare driver, as contenders beside the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from benchmarks import bare_postgres, bare_sqlite
from benchmarks.bare_postgres import BarePostgres
from benchmarks.bare_sqlite import BareSqlite
from benchmarks.places import Place, StoreName, processor_s
from benchmarks.served import quiet
from benchmarks.slices import Slice
from benchmarks.straight import Rows, Straight, new_sealer
from benchmarks.workloads import Kind, Workload, known_players

T = TypeVar("T")

MAX_CONNECTIONS: Final = 16


def forms(store: StoreName, kind: Kind, *, update: bool = False) -> Sequence[str]:
    """How a bare driver can write rows of that kind, or update them."""
    by_kind = (bare_sqlite if store == "sqlite" else bare_postgres).FORMS
    return [form for form in by_kind[kind] if not (update and form == bare_postgres.NEW_ONLY)]


def floor_form(store: StoreName, kind: Kind) -> str:
    """The one that the floor writes in."""
    form: str = (bare_sqlite if store == "sqlite" else bare_postgres).FLOOR_FORM[kind]
    return form


class Local:
    """A database of its own, written by this process without a server."""

    def __init__(self, where: Place, bare: BareSqlite | BarePostgres) -> None:
        self.straight = Straight(new_sealer())
        self._where = where
        self._bare = bare
        self._known = 0
        self._makers: Mapping[Kind, Callable[[bytes], Rows]] = {
            "players": self.straight.players,
            "events": self.straight.events,
            "states": self.straight.states,
        }

    async def know(self, player_batches: int) -> None:
        """Store so many batches of known players, unless they are."""
        form = floor_form(self._where.store, "players")
        for batch in range(self._known, player_batches):
            await self._bare.write("players", form, self.straight.players(known_players(batch)))
        self._known = max(self._known, player_batches)

    async def floor(self, workload: Workload, numbers: range, *, connections: int) -> Slice:
        """From bodies to rows that are flushed."""
        await self.know(workload.known(numbers[-1]))
        bodies = [workload.body(number) for number in numbers]
        make, form = self._makers[workload.kind], floor_form(self._where.store, workload.kind)

        async def write(body: bytes) -> None:
            await self._bare.write(workload.kind, form, make(body))

        return await self._turn(bodies, write, workload.items, connections)

    async def bare(
        self, workload: Workload, form: str, numbers: range, *, connections: int
    ) -> Slice:
        """From rows that are ready to rows that are flushed."""
        await self.know(workload.known(numbers[-1]))
        make = self._makers[workload.kind]
        ready = [make(workload.body(number)) for number in numbers]

        async def write(rows: Rows) -> None:
            await self._bare.write(workload.kind, form, rows)

        return await self._turn(ready, write, workload.items, connections)

    async def _turn(
        self, work: Sequence[T], write: Callable[[T], Awaitable[None]], items: int, connections: int
    ) -> Slice:
        waiting = iter(work)
        latencies_s: list[float] = []

        async def worker() -> None:
            for one in waiting:
                began = time.perf_counter()
                await write(one)
                latencies_s.append(time.perf_counter() - began)

        with quiet():
            database_s = processor_s(self._where.database_processes)
            script_s, started = time.process_time(), time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(connections)))
            seconds = time.perf_counter() - started
            spent = {"script": time.process_time() - script_s}
            if processes := self._where.database_processes:
                spent["database"] = processor_s(processes) - database_s
        return Slice(items * len(work), seconds, latencies_s, spent)


@asynccontextmanager
async def local(where: Place) -> AsyncIterator[Local]:
    """A new database of the place, written by this process."""
    home = where.new_home()
    bare: BareSqlite | BarePostgres
    if home.url:
        bare = await BarePostgres.connect(home.url, MAX_CONNECTIONS)
    else:
        bare = BareSqlite(home.folder)
    try:
        yield Local(where, bare)
    finally:
        await bare.close()
