"""`opdata load` on a large file: its memory, and its processor time beside the server's.

    python -m benchmarks.loader [--rows N] [--postgres] [--compress on|off] [--concurrency N]

A CSV of events without an idempotencyKey is generated and loaded by the command a user types into a
real server on loopback. Memory is sampled from the operating system's own count for the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import psutil

from benchmarks.__main__ import Check, machine
from tests.support.postgres import PostgresServer, migrated_database
from tests.support.running import OPDATA, RunningServer

PLAYERS = 100_000
GENEROUS = ("--limit-batch", "10000000/60s")
_SAMPLE_EVERY_S = 0.2
_MIB = 2**20


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 when a target is missed."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="opdata-bench-", dir=options.folder) as folder:
        home = Path(folder)
        home.chmod(0o755)  # a PostgreSQL server runs as another user
        postgres = PostgresServer(18, parent=home).start() if options.postgres else None
        db = migrated_database(postgres.url) if postgres else ""
        server = RunningServer(home / "data", *GENEROUS, db=db).start()
        try:
            print(json.dumps(machine()), file=sys.stderr)
            measured = measure(server, home, options)
        finally:
            server.stop()
            if postgres is not None:
                postgres.remove()
    print(json.dumps(measured, indent=2))
    checks = [
        Check("loader: memory < 300 MiB", measured["rss_mib"], measured["rss_mib"] < 300),
        Check(
            "loader: processor time below the server's",
            measured["loader_cpu_s"] / measured["server_cpu_s"],
            measured["loader_cpu_s"] < measured["server_cpu_s"],
        ),
        Check("all stored", measured["stored"], measured["stored"] == options.rows),
    ]
    for check in checks:
        print(f"{'met   ' if check.met else 'MISSED'} {check.target}: {check.measured:,.2f}")
    return 0 if all(check.met for check in checks) else 1


def measure(server: RunningServer, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Load players, then the events; what the second took."""
    key = server.new_key()
    server.client(key).close()
    env = {
        **os.environ,
        "OPDATA_URL": server.url,
        "OPDATA_API_KEY": key,
        "XDG_STATE_HOME": str(home / "state"),
    }
    _generate(home, options.rows)
    players = ["entities", str(home / "players.csv"), "--entity-type", "player"]
    subprocess.run([OPDATA, "load", *players], env=env, check=True)
    before_s = _cpu_s(_family(server.pid))
    begun_at_s = time.monotonic()
    loader = subprocess.Popen(
        [
            *(OPDATA, "load", "events", str(home / "events.csv"), "--event-type", "game_activity"),
            *("--json", "--compress", options.compress, "--concurrency", str(options.concurrency)),
        ],
        env=env,
        stdout=subprocess.PIPE,
    )
    watch = _Watch(loader.pid)
    watch.start()
    out, _ = loader.communicate()
    watch.join()
    seconds = time.monotonic() - begun_at_s
    summary = json.loads(out)
    [(stored,)] = server.stored.rows("SELECT count(*) FROM events")
    return {
        "rows": options.rows,
        "csv_mb": round((home / "events.csv").stat().st_size / 1e6),
        "stored": stored,
        "refused": summary["failed"],
        "seconds": round(seconds, 1),
        "rows_a_second": round(options.rows / seconds),
        "rss_mib": round(watch.rss_bytes / _MIB, 1),
        "rss_mib_at_tenths": [round(rss / _MIB) for rss in watch.tenths()],
        "loader_cpu_s": round(watch.cpu_s, 1),
        "server_cpu_s": round(_cpu_s(_family(server.pid)) - before_s, 1),
        "waits": summary["waits"],
    }


class _Watch(threading.Thread):
    """The memory and the processor time of a process, sampled while it runs."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._process = psutil.Process(pid)
        self._samples: list[int] = []
        self.rss_bytes = 0
        self.cpu_s = 0.0

    def run(self) -> None:
        """Sample until the process is gone."""
        while True:
            try:
                self._samples.append(self._process.memory_info().rss)
                self.cpu_s = max(self.cpu_s, _cpu_s([self._process]))
            except psutil.Error:
                return
            self.rss_bytes = max(self.rss_bytes, self._samples[-1])
            time.sleep(_SAMPLE_EVERY_S)

    def tenths(self) -> list[int]:
        """The memory at a tenth, two tenths, … of the time."""
        return [self._samples[len(self._samples) * tenth // 10] for tenth in range(1, 10)]


def _generate(home: Path, rows: int) -> None:
    connection = duckdb.connect()
    connection.execute(f"""
        COPY (SELECT 'p' || i AS externalId, 'p' || i || '@mail.example' AS email, 'MT' AS country,
                     'EUR' AS currency, 'active' AS status FROM range({PLAYERS}) rows(i))
        TO '{home}/players.csv' (HEADER)""")
    connection.execute(f"""
        COPY (SELECT 'p' || (hash(i) % {PLAYERS}) AS externalId,
                     strftime(TIMESTAMP '2025-01-01' + to_seconds(i), '%Y-%m-%dT%H:%M:%SZ') AS occurredAt,
                     'game-' || (hash(i + 1) % 50) AS game_id,
                     CAST((hash(i + 2) % 10000) / 100.0 AS DECIMAL(9, 2)) AS bet_amount,
                     CAST((hash(i + 3) % 20000) / 100.0 AS DECIMAL(9, 2)) AS win_amount,
                     'EUR' AS currency, i AS round_id FROM range({rows}) rows(i))
        TO '{home}/events.csv' (HEADER)""")
    connection.close()


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL instead of SQLite")
    parser.add_argument("--compress", default="auto")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--folder", help="where the file and the database go; needs some 5 GB")
    return parser


if __name__ == "__main__":
    sys.exit(main())
