"""What a batch and a read take as the tables grow.

At each size a server on the large tables takes turns with one whose tables stay small, so that what is
compared met the same weather.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks import payloads
from benchmarks.bulk import EVENTS_AN_OWNER, bulk, job_of, name_of
from benchmarks.client import message
from benchmarks.inprocess import in_process
from benchmarks.places import Home, Place
from benchmarks.plan import Plan, note
from benchmarks.served import Served, served
from benchmarks.slices import Series, Slice, ratio

PARTS: Final = ("batches", "reads")
WRITES: Final = ("new players", "updated players", "new events", "set states")
READS: Final = ("entity", "states", "newest events", "job")
_BYTES_A_ROW: Final = 1_500
"""Of disk for an entity, an event and what goes with them; the log takes as much while they are made."""


async def measure_tables(where: Place, plan: Plan, parts: Sequence[str]) -> list[dict[str, Any]]:
    """Figures of `parts`, some of `PARTS`, for each size, smallest first."""
    found = []
    rows = plan.table_rows[0]
    large = await _begin(where, rows)
    for step, wanted in enumerate(plan.table_rows, 1):
        if shutil.disk_usage(where.folder).free < 2 * (wanted - rows) * _BYTES_A_ROW:
            note(f"{where.store}: no room on this disk for {wanted:,} rows; left out")
            break
        if wanted > rows:
            note(f"{where.store}: making {wanted - rows:,} entities and events")
            bulk(large).grow(rows + 1, wanted)
            rows = wanted
        small = await _begin(where, plan.table_rows[0])
        note(f"{where.store}: batches and reads at {wanted:,} entities and events")
        async with served(where, home=small) as one, served(where, home=large) as other:
            sides = (_Side(one, plan.table_rows[0], step), _Side(other, wanted, step))
            for side in sides:
                await side.seal()
            found.append({"rows": wanted, **await _compare(*sides, plan, parts)})
    return found


async def _begin(where: Place, rows: int) -> Home:
    """A new installation with so many entities, made like one that the application has stored."""
    home = where.new_home()
    bodies = {
        "entities": payloads.players(0),
        "events": payloads.events(0, 1),
        "states": payloads.states(0, prefix="player"),
    }
    async with in_process(home) as requests:
        for kind, body in bodies.items():
            await requests.request("POST", f"/batch/{kind}", body)
    bulk(home).grow(1, rows)
    return home


class _Side:
    """A server whose tables have so many rows that were made in bulk."""

    def __init__(self, server: Served, rows: int, step: int) -> None:
        self._server = server
        self._rows = rows
        # What is new at one size must be new at the next one too.
        self._new = 100_000_000 * step
        self._random = random.Random(rows)
        self._version = rows
        owners = range(EVENTS_AN_OWNER, rows, EVENTS_AN_OWNER)
        self._owners = self._random.sample(owners, min(len(owners), payloads.STATES_A_BATCH))

    async def seal(self) -> None:
        """Send the players that are read: what was copied is sealed for another name."""
        names = map(name_of, self._owners)
        await self._server.post(
            "/batch/entities", [payloads.named_players(names, self._version)], connections=1
        )

    async def write(self, what: str, batches: int) -> Slice:
        """So many batches of a kind of `WRITES`."""
        kind = what.split()[1]
        bodies = [self._body(what) for _ in range(batches)]
        path = "/batch/entities" if kind == "players" else f"/batch/{kind}"
        return await self._server.post(path, bodies, connections=1)

    async def read(self, what: str, requests: int) -> Slice:
        """So many requests of a kind of `READS`."""
        owners = self._random.choices(self._owners, k=requests)
        paths = [self._path(what, owner) for owner in owners]
        messages = [message("GET", path, self._server.key) for path in paths]
        return await self._server.run(messages, b"", connections=1, items=requests)

    def _body(self, what: str) -> bytes:
        self._version += 1
        match what:
            case "new players":
                first = self._new
                self._new += payloads.PLAYERS_A_BATCH
                numbers: Sequence[int] = range(first, self._new)
                return payloads.named_players(map(name_of, numbers), version=1)
            case "updated players":
                numbers = self._random.sample(range(1, self._rows), payloads.PLAYERS_A_BATCH)
                return payloads.named_players(map(name_of, numbers), version=self._version)
            case "new events":
                numbers = self._random.choices(range(1, self._rows), k=payloads.EVENTS_A_BATCH)
                return payloads.named_events(map(name_of, numbers))
            case _:
                numbers = self._random.sample(range(1, self._rows), payloads.STATES_A_BATCH)
                return payloads.named_states(map(name_of, numbers), version=self._version)

    def _path(self, what: str, owner: int) -> str:
        name = name_of(owner)
        return {
            "entity": f"/entities/{name}",
            "states": f"/entities/{name}/state",
            "newest events": f"/entities/{name}/events?limit=100",
            "job": f"/batch/jobs/{job_of(owner)}",
        }[what]


async def _compare(small: _Side, large: _Side, plan: Plan, parts: Sequence[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for part in parts:
        writing = part == "batches"
        figures[part] = {}
        for what in WRITES if writing else READS:
            series = {small: Series(), large: Series()}
            for turn in range(plan.rounds + 1):
                for side, one in series.items():
                    if writing:
                        slice_ = await side.write(what, plan.turns)
                    else:
                        slice_ = await side.read(what, plan.requests)
                    if turn > 0:  # the first one warms up
                        one.add(slice_)
            figures[part][what] = {
                **_plain(series[large]),
                "time_beside_small": ratio(series[small], series[large]),
            }
    return figures


def _plain(series: Series) -> Mapping[str, Any]:
    summary = series.summary()
    return {"p50_ms": summary.p50_ms, "p99_ms": summary.p99_ms, "requests": summary.requests}
