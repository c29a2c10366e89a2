"""`make bench`: ingestion through a real server, beside the bare database driver, on each store."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from rich.console import Console
from rich.table import Table

from benchmarks.bare_postgres import UPSERTS
from benchmarks.measure import measure_postgres, measure_sqlite
from benchmarks.stages import Stages

RESULTS = Path("benchmarks/results")
_KINDS = ("players_new", "players_resent", "players_updated", "states", "events")


class Check(NamedTuple):
    """A target and what was measured of it."""

    target: str
    measured: float
    met: bool


def main() -> int:
    """Measure, print, write the JSON; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute, not five")
    parser.add_argument("--store", choices=("sqlite", "postgres"), help="one store only")
    arguments = parser.parse_args()
    rounds, memory_rounds = (30, 100) if arguments.quick else (200, 1_000)
    results: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="opdata-bench-") as name:
        folder = Path(name)
        if arguments.store != "postgres":
            results["sqlite"] = measure_sqlite(folder, rounds, memory_rounds)
            results["stages_ms"] = stages(folder, rounds)
        if arguments.store != "sqlite":
            results["postgres"] = measure_postgres(folder, rounds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    return show(results)


def stages(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Where the time of a batch goes on the embedded store, in this process."""
    parts = Stages(folder)
    found = {
        "1,000 players": parts.entities(rounds // 2),
        "5,000 events": parts.events(rounds // 4, rounds // 2),
    }
    parts.close()
    return found


def machine() -> dict[str, str]:
    """What this was measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, check=False
    )
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": f"{os.cpu_count()} x {model[0] if model else platform.machine()}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "postgresql": "18",
        "commit": commit.stdout.decode().strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def show(results: Mapping[str, Any]) -> int:
    """Print the tables; 1 when a target is missed."""
    console = Console()
    for store in ("sqlite", "postgres"):
        if store in results:
            _show_store(console, store, results[store])
    for kind, parts in results.get("stages_ms", {}).items():
        split = Table("stage", "ms", title=f"Where {kind} spend their time on SQLite, HTTP aside")
        for stage, ms in parts.items():
            split.add_row(stage, f"{ms:.2f}")
        split.add_row("sum", f"{sum(parts.values()):.2f}")
        console.print(split)
    checks = _checks(results)
    for check in checks:
        mark = "met   " if check.met else "MISSED"
        console.print(f"{mark} {check.target}: {check.measured:,.2f}")
    console.print(f"JSON: {RESULTS / 'latest.json'}")
    return 0 if all(check.met for check in checks) else 1


def _show_store(console: Console, store: str, measured: Mapping[str, Any]) -> None:
    table = Table(
        *("", "items/s", "p50 ms", "p99 ms"),
        title=f"{store}: one worker, one connection, all checks on",
    )
    for name in _KINDS:
        row = measured[name]
        rate, p50, p99 = row["items_a_second"], row["p50_ms"], row["p99_ms"]
        table.add_row(name, f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}")
    console.print(table)
    beside = Table("", "bare driver", "its p50 ms", "our rate beside it")
    for name in _KINDS:
        for form, ratio in measured[name].get("rate_beside_bare", {}).items():
            beside.add_row(name, form, f"{measured[name]['bare_p50_ms'][form]:.1f}", f"{ratio:.2f}")
    console.print(beside)


def _checks(results: Mapping[str, Any]) -> list[Check]:
    checks = []
    if sqlite := results.get("sqlite"):
        rate = sqlite["players_new"]["items_a_second"]
        checks.append(Check("sqlite: new players ≥ 40,000/s", rate, rate >= 40_000))
        ratio = sqlite["events"]["rate_beside_bare"]["executemany"]
        checks.append(Check("sqlite: events ≥ 0.4 times bare apsw", ratio, ratio >= 0.4))
        memory = sqlite["memory"]
        target = f"sqlite: server ≤ 200 MiB after {memory['batches']:,} batches"
        checks.append(Check(target, memory["rss_mib"], memory["rss_mib"] <= 200))
    if postgres := results.get("postgres"):
        ratio = min(postgres["players_new"]["rate_beside_bare"][form] for form in UPSERTS)
        checks.append(
            Check("postgres: new players ≥ 0.6 times the best upsert", ratio, ratio >= 0.6)
        )
        ratio = postgres["events"]["rate_beside_bare"]["COPY"]
        checks.append(Check("postgres: events ≥ 0.7 times COPY", ratio, ratio >= 0.7))
    return checks


if __name__ == "__main__":
    sys.exit(main())
