"""Batches of each kind through a real server, beside the straight-line floor and the bare driver.

For each kind and number of connections all contenders take turns: a server of one worker and one of two,
each with rows that are new, the same rows changed, and the same once more; the floor; every form of the
bare driver. Each contender has a database of its own, so that all tables grow alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from benchmarks.local import Local, forms, local
from benchmarks.places import Place, StoreName
from benchmarks.plan import Plan, note
from benchmarks.served import Served, served
from benchmarks.slices import Series, Slice, ratio
from benchmarks.workloads import Kind, Workload, workloads

CONNECTIONS: Final = (1, 4, 16)
WORKERS: Final = (1, 2)
_MOST: Final = 96
_CROWDED: Final = 4
"""With more connections than that, turns are long and fewer, and the bare driver has none: so many bring
it nothing on two cores."""

Name = tuple[str, ...]
"""Of a series: whose it is, which variant, and for the bare driver in which form."""


class Contenders(NamedTuple):
    """Everyone who takes turns."""

    servers: Mapping[int, Served]
    floor: Local
    bare: Local


async def measure_batches(where: Place, plan: Plan, kinds: Sequence[Kind]) -> dict[str, Any]:
    """Those kinds at every number of connections: `{kind: {connections: figures}}`."""
    found: dict[str, Any] = {}
    variants = workloads(plan.player_batches)
    async with _contenders(where) as contenders:
        numbers = _Numbers()
        for kind in kinds:
            for connections in CONNECTIONS:
                note(f"{where.store}: batches of {kind} over {connections} connections")
                cell = _Cell(where.store, contenders, variants[kind], connections, numbers)
                found.setdefault(kind, {})[str(connections)] = await cell.measure(plan)
    return found


@asynccontextmanager
async def _contenders(where: Place) -> AsyncIterator[Contenders]:
    async with AsyncExitStack() as stack:
        servers = {
            workers: await stack.enter_async_context(served(where, workers=workers))
            for workers in WORKERS
        }
        floor = await stack.enter_async_context(local(where))
        bare = await stack.enter_async_context(local(where))
        yield Contenders(servers, floor, bare)


class _Numbers:
    """Numbers of batches: each is new once to each contender."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, Kind], int] = {}

    def take(self, whose: object, kind: Kind, count: int) -> range:
        """The next so many of that kind."""
        first = self._next.get((id(whose), kind), 0)
        self._next[id(whose), kind] = first + count
        return range(first, first + count)


class _Cell:
    """One kind of batch over one number of connections on one store."""

    def __init__(
        self,
        store: StoreName,
        contenders: Contenders,
        variants: Mapping[str, Workload],
        connections: int,
        numbers: _Numbers,
    ) -> None:
        self._store = store
        self._contenders = contenders
        self._variants = variants
        self._kind: Kind = variants["new"].kind
        self._connections = connections
        self._numbers = numbers
        self._series: dict[Name, Series] = {}

    async def measure(self, plan: Plan) -> dict[str, Any]:
        """Warm everyone up, let them take their turns, and put the figures together."""
        crowded = self._connections > _CROWDED
        rounds = plan.rounds_crowded if crowded else plan.rounds
        if crowded and not plan.thorough:
            self._variants = {"new": self._variants["new"]}
        batches = max(plan.fewest_batches, self._connections)
        if plan.thorough or self._connections == 1:
            await self._round(batches)
            batches_a_second = self._series["1", "new"].rates[-1] / self._variants["new"].items
            batches = min(_MOST, max(batches, round(plan.slice_s * batches_a_second)))
            self._series.clear()
        for _ in range(rounds):
            await self._round(batches)
        return {"batches_a_slice": batches, "rounds": rounds, **self._figures()}

    async def _round(self, batches: int) -> None:
        """A turn of everyone with each variant: those that are compared come close together."""
        servers, floor, bare = self._contenders
        bare_forms = forms(self._store, self._kind) if self._connections <= _CROWDED else ()
        take = partial(self._numbers.take, kind=self._kind, count=batches)
        of_server = {workers: take(server) for workers, server in servers.items()}
        of_floor = take(floor)
        of_form = {form: take(bare) for form in bare_forms}
        together = {"connections": self._connections}
        for name, workload in self._variants.items():
            for workers, server in servers.items():
                turn = await server.turn(workload, of_server[workers], **together)
                self._add((str(workers), name), turn)
            if workload not in self._without_answers:
                continue
            turn = await floor.floor(workload, of_floor, **together)
            self._add(("floor", name), turn)
            for form, numbers in of_form.items():
                if workload.before is None or form in forms(self._store, self._kind, update=True):
                    turn = await bare.bare(workload, form, numbers, **together)
                    self._add(("bare", name, form), turn)

    @property
    def _without_answers(self) -> list[Workload]:
        """What can be written by someone who neither looks nor remembers."""
        return [one for name, one in self._variants.items() if name in {"new", "updated"}]

    def _add(self, name: Name, turn: Slice) -> None:
        self._series.setdefault(name, Series()).add(turn)

    def _figures(self) -> dict[str, Any]:
        series = self._series
        served = {
            str(workers): {name: series[str(workers), name].summary() for name in self._variants}
            for workers in WORKERS
        }
        ours = {one.name: series["1", one.name] for one in self._without_answers}
        forms_of: dict[str, dict[str, Series]] = {}
        for (whose, name, *form), one in series.items():
            if whose == "bare":
                forms_of.setdefault(name, {})[form[0]] = one
        return {
            "served": served,
            "floor": {name: series["floor", name].summary() for name in ours},
            "beside_floor": {name: ratio(one, series["floor", name]) for name, one in ours.items()},
            "bare": {
                name: {form: one.summary() for form, one in by_form.items()}
                for name, by_form in forms_of.items()
            },
            "beside_bare": {
                name: {form: ratio(ours[name], one) for form, one in by_form.items()}
                for name, by_form in forms_of.items()
            },
            "two_workers": {
                name: ratio(series["2", name], series["1", name]) for name in served["1"]
            },
            "beside_new": {
                name: ratio(series["1", name], series["1", _first_sent(self._kind, name)])
                for name in self._variants
            },
        }


def _first_sent(kind: Kind, name: str) -> str:
    """What a batch had been when it was new."""
    return "keyed" if kind == "events" and name != "new" else "new"
