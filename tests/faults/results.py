"""What `make torture` did: counted by the tests, kept as JSON, printed as rows of a table."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.faults.counts import COUNTS

RESULTS: Final = Path(__file__).parents[2] / "build" / "torture.json"
PROPERTY: Final = "fault"


class Tally:
    """What one test did: how many of what, and what was worst."""

    def __init__(self, fault: str, store: str) -> None:
        self.fault = fault
        self.store = store
        self.counted: dict[str, int] = {}
        self.worst: dict[str, float] = {}

    def add(self, unit: str, count: int = 1) -> None:
        """Count that many more."""
        self.counted[unit] = self.counted.get(unit, 0) + count

    def measure(self, what: str, value: float) -> None:
        """Remember the largest value."""
        self.worst[what] = max(value, self.worst.get(what, value))

    def row(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "store": self.store,
            "counted": self.counted,
            "worst": {what: round(value, 2) for what, value in self.worst.items()},
        }


class Row(NamedTuple):
    """A test's row and how it ended."""

    row: dict[str, Any]
    outcome: str
    seconds: float


def merged(rows: list[Row]) -> list[Row]:
    """One row for each fault and store: what its tests counted together, and whether all passed."""
    found: dict[tuple[str, str], Row] = {}
    for each in rows:
        tally = Tally(each.row["fault"], each.row["store"])
        earlier = found.get((tally.fault, tally.store), Row(tally.row(), "passed", 0))
        for one in (earlier, each):
            for unit, count in one.row["counted"].items():
                tally.add(unit, count)
            for what, value in one.row["worst"].items():
                tally.measure(what, value)
        outcome = each.outcome if earlier.outcome == "passed" else earlier.outcome
        seconds = earlier.seconds + each.seconds
        found[tally.fault, tally.store] = Row(tally.row(), outcome, seconds)
    return list(found.values())


def write_results(rows: list[Row]) -> None:
    """Add a run to the file of results; earlier runs of the same machine and day stay beside it."""
    runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    runs.append(
        {
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": COUNTS.seed,
            "rows": [
                {**each.row, "outcome": each.outcome, "seconds": round(each.seconds)}
                for each in rows
            ],
        }
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(runs, indent=1) + "\n")


def table(rows: list[Row]) -> list[str]:
    """The rows as Markdown: fault, store, counts, worst, result, time."""
    lines = ["| fault | store | counts | worst | result | s |", "|---|---|---|---|---|---|"]
    for each in rows:
        counted = ", ".join(f"{count:,} {unit}" for unit, count in each.row["counted"].items())
        worst = ", ".join(f"{what} {value:g}" for what, value in each.row["worst"].items())
        cells = (each.row["fault"], each.row["store"], counted, worst, each.outcome)
        lines.append(f"| {' | '.join(cells)} | {each.seconds:.0f} |")
    return lines
