"""The database goes away under load and comes back: only 503s, and nothing lost or double (W25)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.faults.writers import (
    UNLIMITED,
    Appender,
    Writer,
    assert_appended_once,
    assert_only_refused,
    assert_stored_once,
    wait_for_a_round_of_each,
)
from tests.support.api import player
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.running import OPDATA, RunningServer
from tests.system.conftest import Serve

WRITERS = 3
APPENDERS = 3
LOADED = 20_000
LOADED_PLAYERS = 50
SOON_S = 30

_BUSY = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND state <> 'idle'"
)
_COMMITTING = f"{_BUSY} AND state = 'active' AND query = 'COMMIT'"
_CUT = "SELECT pg_terminate_backend(pid) FROM ({} ORDER BY random() LIMIT 1) AS one"


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A server of the module's own. A commit takes it 5 ms, so that some are met half-way."""
    server = PostgresServer(18, "-c", "commit_delay=5000", "-c", "commit_siblings=0").start()
    yield server
    server.remove()


def _ready(server: RunningServer) -> int:
    return server.page("/readyz").status_code


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def _loading(server: RunningServer, key: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`opdata load` of events, in many small batches; it does not outlive the test."""
    source = folder / "events.ndjson"
    with source.open("w") as file:
        for number in range(LOADED):
            row = {"externalId": f"l{number % LOADED_PLAYERS}", "eventType": "bonus", "n": number}
            file.write(json.dumps(row) + "\n")
    load = subprocess.Popen(
        [
            OPDATA,
            "load",
            "events",
            str(source),
            "--batch-size",
            "20",
            "--concurrency",
            "2",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPDATA_URL": server.url, "OPDATA_API_KEY": key},
    )
    try:
        yield load
    finally:
        if load.poll() is None:
            load.kill()
            load.communicate()


@pytest.mark.fault("PostgreSQL crashes under load")
def test_a_database_that_crashes_under_load_loses_and_doubles_nothing(
    serve_as_told: Serve, database: PostgresServer, tmp_path: Path, counts: Counts, tally: Tally
) -> None:
    """W25, W41: clients are told to come again, and need do nothing else."""
    tally.store = "postgres"
    server = serve_as_told(*UNLIMITED, db=database.new_database())
    pid = server.pid
    key = server.new_key()
    with closing(server.client(key)) as client:
        for number in range(LOADED_PLAYERS):
            client.post("/entities", json=player(f"l{number}")).raise_for_status()
    moments = counts.chance("crashes")
    with _loading(server, key, tmp_path) as load:
        writers = [Writer(number, server, key) for number in range(WRITERS)]
        for number in counts.times("crashes"):
            wait_for_a_round_of_each(writers)
            time.sleep(moments.uniform(0, 0.3))
            assert number or load.poll() is None, "the load was over before the database went away"
            database.stop_immediately()
            tally.add("crashes")
            _until(lambda: _ready(server) == 503)
            assert server.page("/healthz").status_code == 200
            database.start()
            since = time.monotonic()
            _until(lambda: _ready(server) == 200)
            tally.measure("ready after s", time.monotonic() - since)
        wait_for_a_round_of_each(writers)
        for writer in writers:
            writer.finish()
        said, complained = load.communicate(timeout=120)
    assert load.returncode == 0, complained
    summary = json.loads(said)
    assert (summary["succeeded"], summary["failed"]) == (LOADED, 0)

    assert_only_refused(writers)
    assert server.pid == pid
    stored = server.stored
    assert_stored_once(stored, writers)
    loaded = stored.rows(
        "SELECT external_id, (events.data ->> 'n')::int FROM events"
        " JOIN entities USING (operator_id, entity_no) WHERE external_id LIKE 'l%'"
    )
    assert Counter(loaded) == Counter((f"l{n % LOADED_PLAYERS}", n) for n in range(LOADED))
    assert server.stop() == 0
    assert {line["status"] for line in _requests(server)} <= {200, 201, 503}


class Cutter:
    """Cuts a connection of the server every few milliseconds, each second one while it commits."""

    def __init__(self, url: str) -> None:
        self.cut = 0
        self.cut_at_commit = 0
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        moments = random.Random(13)
        with closing(psycopg.connect(self._url, autocommit=True)) as connection:
            while not self._stop.is_set():
                self.cut += len(connection.execute(_CUT.format(_BUSY)).fetchall())
                time.sleep(moments.uniform(0, 0.02))
                self.cut_at_commit += len(connection.execute(_CUT.format(_COMMITTING)).fetchall())
                time.sleep(moments.uniform(0, 0.02))


@pytest.mark.fault("PostgreSQL hangs up in the middle of a transaction")
def test_a_connection_that_is_cut_at_any_moment_leaves_a_batch_whole_or_not_there(
    serve_as_told: Serve, database: PostgresServer, counts: Counts, tally: Tally
) -> None:
    """W25: also without an Idempotency-Key, 200 says that it was written and 503 that it was not."""
    tally.store = "postgres"
    url = database.new_database()
    server = serve_as_told(*UNLIMITED, db=url)
    key = server.new_key()
    with closing(server.client(key)) as client:
        for number in range(APPENDERS):
            client.post("/entities", json=player(f"a{number}")).raise_for_status()
    cutter = Cutter(url)
    writers = [Writer(number, server, key) for number in range(WRITERS)]
    appenders = [Appender(number, server, key, f"a{number}") for number in range(APPENDERS)]
    clients: list[Writer | Appender] = [*writers, *appenders]
    cuts, at_commit = counts.terminations, counts.terminations // 10
    deadline = time.monotonic() + counts.minutes * 60
    try:
        while cutter.cut < cuts or cutter.cut_at_commit < at_commit:
            assert time.monotonic() < deadline, (cutter.cut, cutter.cut_at_commit)
            assert not [one.failure for one in clients if one.failure]
            time.sleep(0.05)
    finally:
        cutter.finish()
        for one in clients:
            one.finish()

    tally.add("cuts", cutter.cut)
    tally.add("cuts of a commit", cutter.cut_at_commit)
    assert_only_refused(writers)
    stored = server.stored
    assert_stored_once(stored, writers)
    assert_appended_once(stored, appenders)
    assert server.stop() == 0


@pytest.mark.fault("PostgreSQL crashes under load")
def test_a_commit_that_a_crash_undid_is_not_taken_for_somebody_elses(
    serve_as_told: Serve,
) -> None:
    """W25: after a crash PostgreSQL gives the number of a transaction that left no trace out again."""
    # A commit waits 100 ms before it is flushed, and nothing else flushes what it has written.
    slow = ("commit_delay=100000", "commit_siblings=0", "wal_writer_delay=10s")
    database = PostgresServer(18, *(flag for one in slow for flag in ("-c", one))).start()
    url = database.new_database()
    server = serve_as_told(db=url)
    with closing(server.client()) as client, ThreadPoolExecutor(1) as thread:
        client.post("/entities", json=player("p")).raise_for_status()
        event = {"externalId": "p", "eventType": "bonus", "data": {}}
        for _ in range(3):
            with closing(psycopg.connect(url, autocommit=True)) as looking:
                sent = thread.submit(client.post, "/batch/events", json=[event])
                while not looking.execute(_COMMITTING).fetchall():
                    assert not sent.done()
            database.stop_immediately()
            # Others are faster than the server to write again: it cannot reach the database yet.
            known = database.port
            database.port = free_port()
            database.start()
            with closing(psycopg.connect(database.url, autocommit=True)) as others:
                for _ in range(50):
                    others.execute("SELECT pg_current_xact_id()")
            database.stop()
            database.port = known
            database.start()
            answer = sent.result()
            stored = server.stored.rows("SELECT count(*) FROM events")
            assert (answer.status_code, stored) == (503, [(0,)])
    assert server.stop() == 0
    database.remove()


def _requests(server: RunningServer) -> Iterator[dict[str, int]]:
    """The requests in the server's log."""
    for line in server.log.read_text().splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if entry.get("event") == "request":
                yield entry
