"""`make bench`: ingestion through a real server, beside the bare driver, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apsw
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import payloads
from benchmarks.client import Connection
from benchmarks.floor import BareEvents, rows_of
from benchmarks.stages import Stages
from tests.support.running import RunningServer

RESULTS = Path("benchmarks/results")
TARGET_ITEMS_A_SECOND = 40_000
TARGET_EVENTS_RATIO = 2.5
TARGET_RSS_MIB = 200
_BLOCK = 10
_GENEROUS = ("--limit-batch", "10000000/60s")


def main() -> int:
    """Measure, print, write the JSON; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute, not five")
    rounds = 30 if parser.parse_args().quick else 200
    memory_rounds = 100 if rounds == 30 else 1_000
    with tempfile.TemporaryDirectory(prefix="opdata-bench-") as folder:
        results = measure(Path(folder), rounds, memory_rounds)
    results["machine"] = machine()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    return show(results)


def measure(folder: Path, rounds: int, memory_rounds: int) -> dict[str, Any]:
    """All measurements, in one run on one machine."""
    server = RunningServer(folder / "data", *_GENEROUS).start()
    try:
        key = server.new_key()
        connection = Connection(server.port, key)
        connection.request("PUT", "/settings", b'{"templateId":"tpl_igaming"}')
        players = [payloads.players(number) for number in range(rounds)]
        results: dict[str, Any] = {
            "players_new": _batches(connection, "/batch/entities", players, 1_000),
            "players_resent": _batches(connection, "/batch/entities", players, 1_000),
            "states": _batches(
                connection,
                "/batch/states",
                [payloads.states(number, rounds) for number in range(rounds)],
                1_000,
            ),
            "events": _events_beside_bare(connection, folder, rounds),
        }
        connection.close()
        results["memory"] = _memory(server, key, memory_rounds)
    finally:
        server.stop()
    stages = Stages(folder)
    results["stages_ms"] = {
        "1,000 players": stages.entities(rounds // 2),
        "5,000 events": stages.events(rounds // 4, rounds // 2),
    }
    stages.close()
    return results


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
        "commit": commit.stdout.decode().strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def show(results: dict[str, Any]) -> int:
    """Print the tables; 1 when a target is missed."""
    console = Console()
    table = Table(
        "", "items/s", "p50 ms", "p99 ms", title="One worker, one connection, all checks on"
    )
    for name in ("players_new", "players_resent", "states", "events"):
        row = results[name]
        rate, p50, p99 = row["items_a_second"], row["p50_ms"], row["p99_ms"]
        table.add_row(name, f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}")
    console.print(table)
    for kind, stages in results["stages_ms"].items():
        split = Table("stage", "ms", title=f"Where {kind} spend their time, HTTP aside")
        for stage, ms in stages.items():
            split.add_row(stage, f"{ms:.2f}")
        split.add_row("sum", f"{sum(stages.values()):.2f}")
        console.print(split)
    checks = {
        f"new players ≥ {TARGET_ITEMS_A_SECOND:,}/s": (
            results["players_new"]["items_a_second"],
            results["players_new"]["items_a_second"] >= TARGET_ITEMS_A_SECOND,
        ),
        f"5,000 events ≤ {TARGET_EVENTS_RATIO} times bare apsw": (
            results["events"]["times_bare"],
            results["events"]["times_bare"] <= TARGET_EVENTS_RATIO,
        ),
        f"server ≤ {TARGET_RSS_MIB} MiB after {results['memory']['batches']:,} batches": (
            results["memory"]["rss_mib"],
            results["memory"]["rss_mib"] <= TARGET_RSS_MIB,
        ),
    }
    for name, (value, met) in checks.items():
        console.print(f"{'met   ' if met else 'MISSED'} {name}: {value:,.2f}")
    console.print(f"JSON: {RESULTS / 'latest.json'}")
    return 0 if all(met for _, met in checks.values()) else 1


def _batches(
    connection: Connection, path: str, bodies: list[bytes], items: int
) -> dict[str, float]:
    seconds = []
    for body in bodies:
        took, answer = connection.request("POST", path, body)
        _require_all(answer, items)
        seconds.append(took)
    return _summary(seconds, items)


def _events_beside_bare(connection: Connection, folder: Path, rounds: int) -> dict[str, float]:
    """Blocks of batches through the server and through bare apsw in turn.

    Both meet the same weather; everything is made beforehand, so that neither starts with cold caches.
    """
    bare = BareEvents(folder)
    served, alone = [], []
    for block in range(0, max(20, rounds // 2), _BLOCK):
        bodies = [payloads.events(block + number, rounds) for number in range(_BLOCK)]
        rows = [rows_of(body) for body in bodies]
        for body in bodies:
            took, answer = connection.request("POST", "/batch/events", body)
            _require_all(answer, payloads.EVENTS_A_BATCH)
            served.append(took)
        alone += [bare.write(each) for each in rows]
    bare.close()
    summary = _summary(served, payloads.EVENTS_A_BATCH)
    summary["bare_p50_ms"] = statistics.median(alone) * 1e3
    summary["times_bare"] = statistics.median(served) / statistics.median(alone)
    return summary


def _memory(server: RunningServer, key: str, batches: int) -> dict[str, float]:
    connection = Connection(server.port, key)
    process = psutil.Process(server.pid)
    sizes = []
    for number in range(batches):
        connection.request("POST", "/batch/entities", payloads.players(number, prefix="memory"))
        sizes.append(process.memory_info().rss / 2**20)
    connection.close()
    return {"batches": batches, "rss_mib": sizes[-1], "rss_mib_after_a_tenth": sizes[batches // 10]}


def _require_all(answer: bytes, items: int) -> None:
    data = json.loads(answer)["data"]
    if data["succeeded"] != items:
        raise RuntimeError(f"{data['failed']} items failed: {data['errors'][:2]}")


def _summary(seconds: list[float], items: int) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "items_a_second": items * len(seconds) / sum(seconds),
        "p50_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }


if __name__ == "__main__":
    sys.exit(main())
