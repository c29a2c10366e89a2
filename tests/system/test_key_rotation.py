"""`opdata crypto rotate` beside a server under load, killed in the middle and run again (W49, W51)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from opdata.master_keys import MASTER_KEY_FILE
from tests.faults.counts import COUNTS
from tests.support.api import deposit, player
from tests.support.running import OPDATA, RunningServer
from tests.support.stored import STORES
from tests.system.conftest import Serve

NAMES = [f"p{at:04}" for at in range(3_000 if COUNTS.is_long else 1_000)]
ERASED = NAMES[::50]


def named(name: str, turn: int = 0) -> dict[str, Any]:
    return player(name, email=f"{name}-{turn}@mail.example")


def send(client: httpx2.Client, items: list[dict[str, Any]], kind: str = "entities") -> Any:
    answer = client.post(f"/batch/{kind}", json=items)
    answer.raise_for_status()
    assert answer.json()["data"]["failed"] == 0, answer.text[:500]
    return answer.json()["data"]


# So many commits that the test has time to stop it between two of them.
_STEPWISE = """
import sys
from unittest.mock import patch
from opdata.cli import main
with patch("opdata.rotation._BATCH", 10):
    sys.exit(main())
"""


def rotation(server: RunningServer, *program: str) -> subprocess.Popen[bytes]:
    database = {"OPDATA_DB": server.settings.db} if server.settings.db else {}
    return subprocess.Popen(
        [*program, "crypto", "rotate", "--data-dir", str(server.data_dir), "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **database, "OPDATA_BUSY_TIMEOUT_S": "0.5"},  # it waits five of it
    )


class Load:
    """Upserts some entities again and again and erases others; every answer is a success."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self._over = threading.Event()
        self.last: dict[str, dict[str, Any]] = {}
        self.erased: list[str] = []

    def run(self) -> None:
        erasing = iter(ERASED)
        turn = 0
        while not self._over.is_set():
            turn += 1
            chosen = [name for name in NAMES[turn % 40 :: 40] if name not in ERASED]
            items = [named(name, turn) for name in chosen]
            send(self._client, items)
            self.last |= {item["externalId"]: item for item in items}
            if (name := next(erasing, None)) is not None:
                self._client.delete(f"/entities/{name}").raise_for_status()
                self.erased.append(name)
            # Personal fields are read all the while, whichever key they are under.
            self._client.get(f"/entities/{chosen[0]}").raise_for_status()
            time.sleep(0.1)

    def end(self) -> None:
        self._over.set()


@contextmanager
def under_load(client: httpx2.Client) -> Iterator[Load]:
    load = Load(client)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(load.run)
        try:
            yield load
        finally:
            load.end()
        running.result(60)


# Both in the same process: tests/contract/test_rotation.py, tests/wire/test_key_rotation.py.
@pytest.mark.parametrize("db", STORES if COUNTS.is_long else STORES[:1], indirect=True)
def test_a_rotation_that_is_killed_under_load_is_finished_by_the_next(serve: Serve) -> None:
    server = serve("--limit-batch", "1000000/60s", "--limit-write", "1000000/60s")
    client = server.client()
    for start in range(0, len(NAMES), 1_000):
        send(client, [named(name) for name in NAMES[start : start + 1_000]])
    event = deposit(NAMES[1], idempotencyKey="bet-1")
    send(client, [event], "events")
    moved = "SELECT count(*) FROM entities WHERE sealed > ?"
    second = b"\x01\x00\x00\x00\x02"

    with under_load(client) as load:
        killed = rotation(server, sys.executable, "-c", _STEPWISE)
        while not server.stored.rows(moved, second)[0][0]:
            assert killed.poll() is None
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        [(between,)] = server.stored.rows(moved, second)
        finished = rotation(server, OPDATA)
        out, _ = finished.communicate(timeout=120)
        assert finished.returncode == 0
    assert b'"resumed": true' in out
    assert between > 0
    assert load.last
    assert load.erased

    status = server.command("crypto", "status")
    assert [(one["id"], one["state"], one["records"]) for one in status["masterKeys"]] == [
        (1, "not needed", 0),
        (2, "primary", len(NAMES) - len(load.erased)),
    ]
    assert {k["id"]: k["records"] for k in status["dataKeys"]}[1] == 0

    # The older key is removed, for good.
    assert server.stop() == 0
    path = server.data_dir / MASTER_KEY_FILE
    _, newest = path.read_text().splitlines()
    path.write_text(newest)
    server = serve()
    client = server.client()
    for name in load.erased:
        assert client.get(f"/entities/{name}").status_code == 404
    for name in [*NAMES[1::100], *load.last]:
        if name not in load.erased:
            found = client.get(f"/entities/{name}").json()["data"]
            assert found["data"] == load.last.get(name, named(name))["data"]
    stamps = server.stored.rows("SELECT external_id, updated_at_ms FROM entities ORDER BY 1, 2")
    alive = [name for name in NAMES if name not in load.erased]
    send(client, [load.last.get(name, named(name)) for name in alive[:1_000]])
    assert stamps == server.stored.rows(
        "SELECT external_id, updated_at_ms FROM entities ORDER BY 1, 2"
    )
    assert send(client, [event], "events")["duplicates"] == 1
    assert server.stored.problems() == []
    assert server.stop() == 0
