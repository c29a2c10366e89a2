"""`make bench`: ingestion through a real server, beside the straight line and the bare driver.

    python -m benchmarks [PART …] [--store sqlite|postgres] [--quick] [--strict]

Parts: players events states singles growth tables reads stages loader memory; all of them without any.
A full run of all parts on both stores is what docs/performance.md shows; it goes to
benchmarks/results/latest.json, any other to benchmarks/results/other.json.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.batches import measure_batches
from benchmarks.checks import checks
from benchmarks.grids import Grid, grids
from benchmarks.growth import measure_growth
from benchmarks.loader import measure_loader
from benchmarks.machine import machine
from benchmarks.memory import measure_memory
from benchmarks.places import STORES, Place, place
from benchmarks.plan import FULL, QUICK, Plan, note
from benchmarks.singles import measure_singles
from benchmarks.stages import measure_stages
from benchmarks.tables import measure_tables
from benchmarks.workloads import KINDS

RESULTS: Final = Path("benchmarks/results")
LATEST: Final = RESULTS / "latest.json"
_WIDTH: Final = 180  # of the tables, where no terminal has one
PARTS: Final = (*KINDS, "singles", "growth", "tables", "reads", "stages", "loader", "memory")


def main() -> int:
    """Measure, print, write the JSON; with --strict 1 when a target is missed."""
    options = _parser().parse_args()
    parts = options.parts or PARTS
    plan = QUICK if options.quick else FULL
    stores = [options.store] if options.store else list(STORES)
    # As after Ctrl-C, servers are stopped and folders removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: dict[str, Any] = {"machine": {**machine(), "run": plan.mode}}
    try:
        for store in stores:
            with place(store) as where:
                results[store] = uvloop.run(_measure(where, plan, parts))
    except KeyboardInterrupt:
        note("interrupted; nothing was kept")
        return 130
    results = msgspec.to_builtins(results)
    whole = plan is FULL and set(parts) == set(PARTS) and stores == list(STORES)
    path = LATEST if whole else RESULTS / "other.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for grid in grids(results):
        console.print(_rich(grid))
    console.print(f"JSON: {path}")
    missed = [one for one in checks(results) if not one.met]
    return 1 if options.strict and missed else 0


async def _measure(where: Place, plan: Plan, parts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if kinds := [kind for kind in KINDS if kind in parts]:
        found["batches"] = await measure_batches(where, plan, kinds)
    if "singles" in parts:
        found["singles"] = await measure_singles(where, plan)
    if "growth" in parts:
        found["growth"] = await measure_growth(where, plan)
    if "stages" in parts:
        found["stages"] = await measure_stages(where, plan)
    if "loader" in parts:
        found["loader"] = await measure_loader(where, plan)
    if "memory" in parts:
        found["memory"] = await measure_memory(where, plan)
    grown = [name for part, name in (("tables", "batches"), ("reads", "reads")) if part in parts]
    if grown:
        found["tables"] = await measure_tables(where, plan, grown)
    return found


def _rich(grid: Grid) -> Table:
    table = Table(*grid.columns, title=grid.title, show_header=any(grid.columns))
    for row in grid.rows:
        table.add_row(*(escape(cell.replace("**", "")) for cell in row))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", type=_part, metavar="PART")
    parser.add_argument("--store", choices=STORES, help="one store only")
    parser.add_argument("--quick", action="store_true", help="two minutes, not twenty-five")
    parser.add_argument("--strict", action="store_true", help="fail when a target is missed")
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no such part: {text} (parts: {' '.join(PARTS)})")
    return text


if __name__ == "__main__":
    sys.exit(main())
