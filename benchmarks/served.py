"""A real server process under load, as one of the contenders."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from benchmarks.client import connected, message
from benchmarks.places import Home, Place, family, processor_s
from benchmarks.slices import Slice
from benchmarks.workloads import Workload, known_players
from tests.support.running import RunningServer

UNLIMITED: Final = "100000000/1s"
QUOTAS: Final = (
    *("--limit-batch", UNLIMITED),
    *("--limit-write", UNLIMITED),
    *("--limit-read", UNLIMITED),
)
NONE_FAILED: Final = b'"failed":0'


class Served:
    """`opdata serve` on a database of its own, and an operator's key."""

    def __init__(self, where: Place, server: RunningServer) -> None:
        self.server = server
        self.key = server.new_key()
        self._where = where
        self._known = 0

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One request; the body of its answer."""
        async with connected(self.server.port, 1) as connections:
            return await connections.ask(message(method, path, self.key, body))

    async def know(self, player_batches: int) -> None:
        """Store so many batches of known players, unless they are."""
        if missing := range(self._known, player_batches):
            await self.post("/batch/entities", map(known_players, missing), connections=4)
            self._known = player_batches

    async def post(self, path: str, bodies: Iterable[bytes], *, connections: int) -> Slice:
        """Batches of which no item may fail; each counts as one item of the slice."""
        messages = [message("POST", path, self.key, body) for body in bodies]
        return await self.run(messages, NONE_FAILED, connections=connections, items=len(messages))

    async def turn(self, workload: Workload, numbers: range, *, connections: int) -> Slice:
        """The workload's batches of those numbers."""
        await self.know(workload.known(numbers[-1]))
        bodies = [workload.body(number) for number in numbers]
        slice_ = await self.post(workload.path, bodies, connections=connections)
        return slice_._replace(items=workload.items * len(numbers))

    async def run(
        self, messages: Sequence[bytes], expected: bytes, *, connections: int, items: int
    ) -> Slice:
        """Requests over so many connections, and the processor time of all that take part.

        Connections are made anew, for several workers share them out by chance.
        """
        async with connected(self.server.port, connections) as opened:
            with quiet():
                before = self._processor_s()
                load = await opened.run(messages, expected)
                after = self._processor_s()
        spent = {name: after[name] - before[name] for name in before}
        return Slice(items, load.seconds, load.latencies_s, spent | {"client": load.client_s})

    def memory_bytes(self) -> int:
        """Resident memory of its processes."""
        return sum(process.memory_info().rss for process in family(self.server.pid))

    def _processor_s(self) -> Mapping[str, float]:
        spent = {"server": processor_s(family(self.server.pid))}
        if processes := self._where.database_processes:
            spent["database"] = processor_s(processes)
        return spent


@asynccontextmanager
async def served(
    where: Place, *, workers: int = 1, home: Home | None = None
) -> AsyncIterator[Served]:
    """A server while the block lasts; stopped by its process id, however the block ends.

    On a new database of the place, unless there is one.
    """
    home = home or where.new_home()
    server = RunningServer(home.folder, *QUOTAS, "--workers", str(workers), db=home.url)
    try:
        one = Served(where, server.start())
        await one.ask("PUT", "/settings", b'{"templateId":"tpl_igaming"}')
        yield one
    finally:
        server.stop()


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection of this process while the block lasts; what there is goes beforehand."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
