"""Batches through a real server, one connection, beside the same rows through the bare driver."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import bare_postgres, payloads, rows
from benchmarks.bare_postgres import BarePostgres
from benchmarks.bare_sqlite import BareSqlite
from benchmarks.client import Connection
from tests.support.postgres import PostgresServer, migrated_database
from tests.support.running import RunningServer

GENEROUS = ("--limit-batch", "10000000/60s")
_BLOCK = 10

Results = dict[str, Any]
Writer = Callable[[int], float]
"""Writes the batch of that number; seconds."""


def measure_sqlite(folder: Path, rounds: int, memory_rounds: int) -> Results:
    """The embedded store; the bare driver is apsw."""
    with _serving(folder / "sqlite") as server:
        connection, key = _connection(server)
        bare = BareSqlite(folder)
        events = [payloads.events(n, rounds) for n in range(rounds // 2)]
        event_rows = [rows.event_rows_sqlite(body) for body in events]
        results = {
            "players_new": _served(connection, "/batch/entities", _players(rounds), 1_000),
            **_rest(connection, rounds),
            "events": _beside(
                _sending(connection, "/batch/events", events, payloads.EVENTS_A_BATCH),
                {"executemany": lambda n: bare.write(event_rows[n])},
                len(events),
                payloads.EVENTS_A_BATCH,
            ),
        }
        bare.close()
        connection.close()
        results["memory"] = _memory(server, key, memory_rounds)
        return results


def measure_postgres(folder: Path, rounds: int) -> Results:
    """The server store, on a server of its own on the same disk; the bare driver is asyncpg."""
    folder.chmod(0o755)  # the server runs as another user
    server = PostgresServer(18, "-c", "max_wal_size=4GB", parent=folder).start()
    try:
        with _serving(folder / "postgres", migrated_database(server.url)) as running:
            connection, _ = _connection(running)
            bare = BarePostgres(migrated_database(server.url))
            events = [payloads.events(n, rounds) for n in range(rounds // 2)]
            results = {
                "players_new": _beside(
                    _sending(connection, "/batch/entities", _players(rounds), 1_000),
                    _bare_players(bare),
                    rounds,
                    1_000,
                ),
                **_rest(connection, rounds),
                "events": _beside(
                    _sending(connection, "/batch/events", events, payloads.EVENTS_A_BATCH),
                    _bare_events(bare, events),
                    len(events),
                    payloads.EVENTS_A_BATCH,
                ),
            }
            bare.close()
            connection.close()
            return results
    finally:
        server.remove()


def _bare_players(bare: BarePostgres) -> dict[str, Writer]:
    players = rows.Players()

    def writer(form: bare_postgres.Form, prefix: str) -> Writer:
        return lambda n: bare.write(form, players.rows(n, prefix))

    forms = bare_postgres.UPSERTS | bare_postgres.INSERTS
    return {name: writer(form, f"bare{at}") for at, (name, form) in enumerate(forms.items())}


def _bare_events(bare: BarePostgres, bodies: Sequence[bytes]) -> dict[str, Writer]:
    ready = [rows.event_rows_postgres(body, n) for n, body in enumerate(bodies)]
    return {
        name: lambda n, form=form: bare.write(form, ready[n])  # type: ignore[misc] # bound at once
        for name, form in bare_postgres.EVENTS.items()
    }


def _rest(connection: Connection, rounds: int) -> Results:
    """What is measured by itself: players again, players changed, states."""
    changed = [body.replace(b'"vip_level":', b'"vip_level":1') for body in _players(rounds)]
    states = [payloads.states(number, rounds) for number in range(rounds)]
    return {
        "players_resent": _served(connection, "/batch/entities", _players(rounds), 1_000),
        "players_updated": _served(connection, "/batch/entities", changed, 1_000),
        "states": _served(connection, "/batch/states", states, 1_000),
    }


def _players(rounds: int) -> list[bytes]:
    return [payloads.players(number) for number in range(rounds)]


@contextmanager
def _serving(data_dir: Path, db: str = "") -> Iterator[RunningServer]:
    server = RunningServer(data_dir, *GENEROUS, db=db).start()
    try:
        yield server
    finally:
        server.stop()


def _connection(server: RunningServer) -> tuple[Connection, str]:
    key = server.new_key()
    connection = Connection(server.port, key)
    connection.request("PUT", "/settings", b'{"templateId":"tpl_igaming"}')
    return connection, key


def _sending(connection: Connection, path: str, bodies: Sequence[bytes], items: int) -> Writer:
    def send(number: int) -> float:
        took, answer = connection.request("POST", path, bodies[number])
        data = json.loads(answer)["data"]
        if data["succeeded"] != items:
            raise RuntimeError(f"{data['failed']} items failed: {data['errors'][:2]}")
        return took

    return send


def _served(connection: Connection, path: str, bodies: Sequence[bytes], items: int) -> Results:
    send = _sending(connection, path, bodies, items)
    return _summary([send(number) for number in range(len(bodies))], items)


def _beside(served: Writer, bare: dict[str, Writer], batches: int, items: int) -> Results:
    """Blocks of batches through the server and through each bare form in turn.

    All meet the same weather; what is written is made beforehand or not timed.
    """
    took: list[float] = []
    alone: dict[str, list[float]] = {name: [] for name in bare}
    for start in range(0, batches, _BLOCK):
        block = range(start, min(start + _BLOCK, batches))
        took += [served(number) for number in block]
        for name, write in bare.items():
            alone[name] += [write(number) for number in block]
    medians = {name: statistics.median(times) for name, times in alone.items()}
    best = min(medians, key=lambda name: medians[name])
    return _summary(took, items) | {
        "bare_p50_ms": {name: median * 1e3 for name, median in medians.items()},
        "bare_best": best,
        "rate_beside_bare": {
            name: median / statistics.median(took) for name, median in medians.items()
        },
    }


def _memory(server: RunningServer, key: str, batches: int) -> Results:
    connection = Connection(server.port, key)
    process = psutil.Process(server.pid)
    sizes = []
    for number in range(batches):
        connection.request("POST", "/batch/entities", payloads.players(number, prefix="memory"))
        sizes.append(process.memory_info().rss / 2**20)
    connection.close()
    return {"batches": batches, "rss_mib": sizes[-1], "rss_mib_after_a_tenth": sizes[batches // 10]}


def _summary(seconds: list[float], items: int) -> Results:
    ordered = sorted(seconds)
    return {
        "items_a_second": items * len(seconds) / sum(seconds),
        "p50_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }
