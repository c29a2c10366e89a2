"""What was acknowledged outlives `kill -9` at any moment, whole and once (W25)."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import httpx2

from tests.support.api import deposit, player, state
from tests.support.running import RunningServer
from tests.system.conftest import Serve

KILLS = 6
WRITERS = 4
BATCH = 20


class Writer:
    """Sends batches without end, one client's worth; what is not answered is sent again.

    Each round writes new players, a deposit for each, and one state that counts the rounds. A
    request keeps its Idempotency-Key until it is answered, so nothing may be done twice.
    """

    def __init__(self, number: int, server: RunningServer, key: str) -> None:
        self.name = f"w{number}"
        self.acknowledged = 0
        """Rounds answered so far."""
        self._client = httpx2.Client(
            base_url=server.base, headers={"Authorization": f"Bearer {key}"}, timeout=30
        )
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> None:
        """Stop after the round at hand is acknowledged."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._client.close()
        assert self.failure is None, self.failure

    def players(self, round_number: int) -> list[str]:
        return [f"{self.name}-{round_number}-{at}" for at in range(BATCH)]

    def _run(self) -> None:
        try:
            for number in itertools.count():
                self._round(number)
                self.acknowledged = number + 1
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - told to the test by `finish`
            self.failure = error

    def _round(self, number: int) -> None:
        names = self.players(number)
        self._post("entities", number, [player(name, round=number) for name in names])
        events = [deposit(name, 10, idempotencyKey=f"{name} deposit") for name in names]
        self._post("events", number, events)
        self._post("states", number, [state(f"{self.name}-0-0", number)])

    def _post(self, kind: str, number: int, items: list[dict[str, Any]]) -> None:
        headers = {"Idempotency-Key": f"{self.name}-{kind}-{number}"}
        while True:
            try:
                answer = self._client.post(f"/batch/{kind}", json=items, headers=headers)
            except httpx2.TransportError:
                time.sleep(0.02)
                continue
            if answer.status_code in (409, 503):
                time.sleep(0.02)
                continue
            assert answer.status_code == 200, answer.text
            data = answer.json()["data"]
            assert (data["succeeded"], data["failed"]) == (len(items), 0), data
            # The idempotency record answers a retry; an event is never a duplicate of itself.
            assert "duplicates" not in data, data
            return


def _rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return list(connection.execute(sql))


def test_everything_acknowledged_survives_kill_9_at_any_moment_under_load(serve: Serve) -> None:
    """W25: all of a batch or none of it, and never twice."""
    server = serve("--limit-batch", "1000000/60s")
    database = server.data_dir / "opdata.db"
    key = server.new_key()
    server.client(key).close()
    writers = [Writer(number, server, key) for number in range(WRITERS)]
    moments = random.Random(7)
    for _ in range(KILLS):
        before = [writer.acknowledged for writer in writers]
        while any(
            writer.acknowledged <= done for writer, done in zip(writers, before, strict=True)
        ):
            assert not [writer.failure for writer in writers if writer.failure]
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.15))
        server.kill()
        assert _rows(database, "PRAGMA integrity_check") == [("ok",)]
        server.start()
    for writer in writers:
        writer.finish()
    assert server.stop() == 0

    assert _rows(database, "PRAGMA integrity_check") == [("ok",)]
    wanted = {
        name
        for writer in writers
        for number in range(writer.acknowledged)
        for name in writer.players(number)
    }
    stored = Counter(name for (name,) in _rows(database, "SELECT external_id FROM entities"))
    assert stored == Counter(wanted)
    deposits = Counter(
        name
        for (name,) in _rows(
            database, "SELECT external_id FROM events JOIN entities USING (operator_id, entity_no)"
        )
    )
    assert deposits == Counter(wanted)
    rounds = sum(writer.acknowledged for writer in writers)
    assert _rows(database, "SELECT count(*) FROM jobs") == [(rounds,)]
    values = dict(
        _rows(
            database,
            "SELECT external_id, value FROM states JOIN entities USING (operator_id, entity_no)",
        )
    )
    assert values == {f"{one.name}-0-0": str(one.acknowledged - 1) for one in writers}


def test_a_batch_acknowledged_right_before_kill_9_is_there_after_the_restart(
    serve: Serve,
) -> None:
    """W25."""
    server = serve()
    key = server.new_key()
    with closing(server.client(key)) as client:
        answer = client.post("/batch/entities", json=[player(f"p{at}") for at in range(1_000)])
        server.kill()
        assert answer.json()["data"]["succeeded"] == 1_000
        server.start()
        job = client.get(f"/batch/jobs/{answer.json()['data']['jobId']}").json()["data"]
        assert (job["status"], job["output"]["succeeded"]) == ("completed", 1_000)
        for at in (0, 500, 999):
            found = client.get(f"/entities/p{at}").json()["data"]
            assert found["data"] == player(f"p{at}")["data"]
    assert server.stop() == 0
