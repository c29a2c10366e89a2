"""`opdata load` on a large file: both sides' processor time, and the rate beside ready bodies.

A CSV of events without an idempotencyKey is generated and loaded, by the command a user types, into a real
server on loopback. The same number of events then goes to the same server as bodies encoded beforehand.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import psutil

from benchmarks import payloads
from benchmarks.places import Place, family, processor_s
from benchmarks.plan import Plan, note
from benchmarks.served import Served, served
from tests.support.running import OPDATA

_PLAYERS: Final = 20_000
_CONNECTIONS: Final = 8
_SAMPLE_EVERY_S: Final = 0.1


async def measure_loader(where: Place, plan: Plan) -> dict[str, Any]:
    """What loading `plan.loader_rows` events took."""
    note(f"{where.store}: loading {plan.loader_rows:,} events")
    _generate(where.folder, plan.loader_rows)
    async with served(where) as server:
        with _loading(server, where, "entities", "players.csv", "--entity-type", "player") as first:
            first.communicate()
        before = _spent_s(server, where)
        began = time.perf_counter()
        with _loading(
            server, where, "events", "events.csv", "--event-type", "game_activity"
        ) as loader:
            watch = _Watch(loader.pid)
            watch.start()
            out, _ = loader.communicate()
            seconds = time.perf_counter() - began
            watch.join()
        after = _spent_s(server, where)
        [(stored,)] = server.server.stored.rows("SELECT count(*) FROM events")
        rate = plan.loader_rows / seconds
        return {
            "rows": plan.loader_rows,
            "stored": stored,
            "refused": json.loads(out)["failed"],
            "seconds": seconds,
            "rows_a_second": rate,
            "beside_prepared": rate / await _prepared_rate(server, plan),
            "loader_s": watch.processor_s,
            "loader_mib": watch.rss_bytes / 2**20,
            **{name: after[name] - before[name] for name in before},
        }


async def _prepared_rate(server: Served, plan: Plan) -> float:
    batches = max(_CONNECTIONS, plan.loader_rows // payloads.EVENTS_A_BATCH)
    body = payloads.named_events(f"p{n * 7 % _PLAYERS}" for n in range(payloads.EVENTS_A_BATCH))
    turn = await server.post("/batch/events", [body] * batches, connections=_CONNECTIONS)
    return batches * payloads.EVENTS_A_BATCH / turn.seconds


def _spent_s(server: Served, where: Place) -> dict[str, float]:
    return {
        "server_s": processor_s(family(server.server.pid)),
        "database_s": processor_s(where.database_processes),
    }


@contextmanager
def _loading(
    server: Served, where: Place, kind: str, file: str, *flags: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`opdata load` while the block lasts."""
    env = {
        **os.environ,
        "OPDATA_URL": server.server.url,
        "OPDATA_API_KEY": server.key,
        "XDG_STATE_HOME": str(where.folder / "state"),
    }
    command = [OPDATA, "load", kind, str(where.folder / file), *flags, "--json"]
    loader = subprocess.Popen(
        [*command, "--concurrency", str(_CONNECTIONS)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield loader
    finally:
        if loader.poll() is None:
            loader.terminate()
            loader.wait()


class _Watch(threading.Thread):
    """The memory and the processor time of a process, sampled while it runs."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._process = psutil.Process(pid)
        self.rss_bytes = 0
        self.processor_s = 0.0

    def run(self) -> None:
        """Sample until the process is gone."""
        while True:
            try:
                self.rss_bytes = max(self.rss_bytes, self._process.memory_info().rss)
                self.processor_s = max(self.processor_s, processor_s([self._process]))
            except psutil.Error:
                return
            time.sleep(_SAMPLE_EVERY_S)


def _generate(folder: Path, rows: int) -> None:
    connection = duckdb.connect()
    connection.execute(f"""
        COPY (SELECT 'p' || i AS externalId, 'p' || i || '@mail.example' AS email, 'MT' AS country,
                     'EUR' AS currency, 'active' AS status FROM range({_PLAYERS}) rows(i))
        TO '{folder}/players.csv' (HEADER)""")
    connection.execute(f"""
        COPY (SELECT 'p' || (hash(i) % {_PLAYERS}) AS externalId,
                     strftime(TIMESTAMP '2025-01-01' + to_seconds(i), '%Y-%m-%dT%H:%M:%SZ') AS occurredAt,
                     'game-' || (hash(i + 1) % 50) AS game_id,
                     CAST((hash(i + 2) % 10000) / 100.0 AS DECIMAL(9, 2)) AS bet_amount,
                     CAST((hash(i + 3) % 20000) / 100.0 AS DECIMAL(9, 2)) AS win_amount,
                     'EUR' AS currency, i AS round_id FROM range({rows}) rows(i))
        TO '{folder}/events.csv' (HEADER)""")
    connection.close()
