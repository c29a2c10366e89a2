"""What a batch costs as it has more items, larger ones, or comes from more operators."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from benchmarks import payloads
from benchmarks.client import message
from benchmarks.places import Place
from benchmarks.plan import Plan, note
from benchmarks.served import NONE_FAILED, Served, served
from benchmarks.slices import Series, Slice, ratio
from benchmarks.workloads import KNOWN
from opdata.clock import now_ms
from opdata.keys import new_key
from opdata.storage import open_configured
from opdata.storage.base import Store
from opdata.storage.work import ChangeSettings, Outcome, Reply, Write

BATCH_SIZES: Final = {
    "players": (1, 10, 100, 1_000),
    "events": (1, 10, 100, 1_000, 5_000),
    "states": (1, 10, 100, 1_000),
}
ITEM_BYTES: Final = (200, 1_024, 4_096, 16_384, 65_536)
_BODY_BYTES: Final = 4 * 2**20
_FEW_PLAYERS: Final = 100
_MOST_MAKING: Final = 32

Turn = Callable[[], Awaitable[Slice]]


async def measure_growth(where: Place, plan: Plan) -> dict[str, Any]:
    """Figures by batch size, item size and number of operators."""
    note(f"{where.store}: batch sizes")
    async with served(where) as server:
        await server.know(plan.player_batches)
        sizes = {kind: await _by_batch_size(server, kind, plan) for kind in BATCH_SIZES}
        note(f"{where.store}: item sizes")
        items = await _by_item_size(server, plan)
        note(f"{where.store}: operators")
        operators = await _by_operators(server, plan)
    return {"batch_size": sizes, "item_bytes": items, "operators": operators}


async def _by_batch_size(server: Served, kind: str, plan: Plan) -> list[dict[str, Any]]:
    number = iter(range(10**5))

    def body(size: int) -> bytes:
        batch = next(number)
        if kind == "players":
            return payloads.players(batch, prefix=f"size{size}", count=size)
        if kind == "events":
            return payloads.events(batch, plan.player_batches, prefix=KNOWN, count=size)
        return payloads.states(batch % plan.player_batches, prefix=KNOWN, version=batch, count=size)

    path = "/batch/entities" if kind == "players" else f"/batch/{kind}"

    def turn(size: int) -> Turn:
        # Small ones are over in no time: more of them.
        count = plan.turns * (1 if size >= payloads.PLAYERS_A_BATCH else 5)
        return lambda: server.post(path, [body(size) for _ in range(count)], connections=1)

    return await _points({size: turn(size) for size in BATCH_SIZES[kind]}, plan, lambda size: size)


async def _by_item_size(server: Served, plan: Plan) -> list[dict[str, Any]]:
    number = iter(range(10**5))
    counts = {size: min(payloads.PLAYERS_A_BATCH, _BODY_BYTES // size) for size in ITEM_BYTES}

    def body(size: int) -> bytes:
        return payloads.padded_players(next(number), size, counts[size], prefix=f"wide{size}")

    def turn(size: int) -> Turn:
        bodies = range(plan.turns)
        return lambda: server.post("/batch/entities", [body(size) for _ in bodies], connections=1)

    return await _points({size: turn(size) for size in ITEM_BYTES}, plan, lambda size: counts[size])


async def _by_operators(server: Served, plan: Plan) -> list[dict[str, Any]]:
    """Batches of 100 players, each of an operator drawn from so many: most have sent nothing before."""
    number = iter(range(10**6))
    rng = random.Random(0)
    keys = await _operator_keys(server, max(plan.operators))

    def request(count: int) -> bytes:
        batch = next(number)
        body = payloads.players(batch, prefix="many", count=_FEW_PLAYERS)
        return message("POST", "/batch/entities", keys[rng.randrange(count)], body)

    def turn(count: int) -> Turn:
        async def send() -> Slice:
            messages = [request(count) for _ in range(5 * plan.turns)]
            return await server.run(messages, NONE_FAILED, connections=1, items=len(messages))

        return send

    turns = {count: turn(count) for count in plan.operators}
    return await _points(turns, plan, lambda _: _FEW_PLAYERS)


async def _points(
    turns: Mapping[int, Turn], plan: Plan, items: Callable[[int], int]
) -> list[dict[str, Any]]:
    """Everyone's turn in every round; what a batch of each takes, and beside the first one."""
    series = {at: Series() for at in turns}
    for round_ in range(plan.rounds + 1):
        for at, turn in turns.items():
            slice_ = await turn()
            if round_ > 0:  # the first one warms up
                series[at].add(slice_)
    first = next(iter(series.values()))
    found = []
    for at, one in series.items():
        summary = one.summary()
        found.append(
            {
                "at": at,
                "items": items(at),
                "p50_ms": summary.p50_ms,
                "p99_ms": summary.p99_ms,
                "us_an_item": summary.p50_ms / items(at) * 1e3,
                "processor_ms": summary.processor_ms,
                "time_beside_first": ratio(first, one),
            }
        )
    return found


async def _operator_keys(server: Served, count: int) -> Sequence[str]:
    """Keys of so many new operators, each with its template set, made straight in the store."""
    store = await open_configured(server.server.settings, migrate=False)
    making = asyncio.Semaphore(_MOST_MAKING)
    try:
        return await asyncio.gather(*(_new_operator(store, making, n) for n in range(count)))
    finally:
        await store.close()


async def _new_operator(store: Store, making: asyncio.Semaphore, number: int) -> str:
    async with making:
        operator = await store.create_operator(f"operator{number}", os.urandom(32), now_ms())
        made = new_key()
        await store.create_key(made.record(operator.operator_id, "bench", now_ms()), made.key_hash)
        work = ChangeSettings(template_id="tpl_igaming")
        await store.write(Write(operator.operator_id, now_ms(), work, _no_answer))
    return made.key


def _no_answer(_: Outcome) -> Reply:
    return Reply(200, b"{}")
