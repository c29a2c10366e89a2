"""What a server's memory comes to after many batches."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.places import Place
from benchmarks.plan import Plan, note
from benchmarks.served import served
from benchmarks.workloads import workloads

_BATCHES_A_STEP: Final = 10


async def measure_memory(where: Place, plan: Plan) -> dict[str, Any]:
    """Resident MiB after a tenth and after all of `plan.memory_batches`, players and events in turn."""
    note(f"{where.store}: memory")
    kinds = workloads(plan.player_batches)
    sizes = []
    async with served(where) as server:
        for step in range(plan.memory_batches // (2 * _BATCHES_A_STEP)):
            numbers = range(step * _BATCHES_A_STEP, (step + 1) * _BATCHES_A_STEP)
            for kind in ("players", "events"):
                await server.turn(kinds[kind]["new"], numbers, connections=4)
            sizes.append(server.memory_bytes() / 2**20)
    return {
        "batches": len(sizes) * 2 * _BATCHES_A_STEP,
        "mib": sizes[-1],
        "mib_after_a_tenth": sizes[len(sizes) // 10],
    }
