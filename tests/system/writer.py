"""Clients that write without end while something goes wrong, and what must be stored in the end."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import httpx2

from tests.support.api import deposit, player, state
from tests.support.running import RunningServer
from tests.support.stored import Stored

BATCH: Final = 20
_PAUSE_S: Final = 0.02


class Writer:
    """Sends batches without end, one client's worth; what is not answered is sent again.

    Each round writes new players, a deposit for each, and one state that counts the rounds. A
    request keeps its Idempotency-Key until it is answered, so nothing may be done twice.
    """

    def __init__(self, number: int, server: RunningServer, key: str) -> None:
        self.name = f"w{number}"
        self.acknowledged = 0
        """Rounds answered so far."""
        self.statuses: Counter[int] = Counter()
        """How often which status was answered."""
        self.hung_up = 0
        """Requests that were not answered at all."""
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
                self.hung_up += 1
                time.sleep(_PAUSE_S)
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code in (409, 503):
                assert int(answer.headers["retry-after"]) >= 1
                time.sleep(_PAUSE_S)
                continue
            assert answer.status_code == 200, answer.text
            data = answer.json()["data"]
            assert (data["succeeded"], data["failed"]) == (len(items), 0), data
            # The idempotency record answers a retry; an event is never a duplicate of itself.
            assert "duplicates" not in data, data
            return


class Appender:
    """Appends events to one player without end and without any key, each batch sent once."""

    def __init__(self, number: int, server: RunningServer, key: str, external_id: str) -> None:
        self.answers: dict[str, httpx2.Response] = {}
        """The answer to each batch, by the name that its events carry."""
        self.failure: BaseException | None = None
        self._name = f"a{number}"
        self._external_id = external_id
        self._client = httpx2.Client(
            base_url=server.base, headers={"Authorization": f"Bearer {key}"}, timeout=30
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> None:
        """Stop when the batch at hand is answered."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._client.close()
        assert self.failure is None, self.failure

    def _run(self) -> None:
        try:
            for number in itertools.count():
                name = f"{self._name}-{number}"
                event = {"externalId": self._external_id, "eventType": "bonus", "data": {"n": name}}
                self.answers[name] = self._client.post("/batch/events", json=[event] * BATCH)
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - told to the test by `finish`
            self.failure = error


def wait_for_a_round_of_each(writers: Sequence[Writer]) -> None:
    """Until each writer has had a round acknowledged from now on."""
    before = [writer.acknowledged for writer in writers]
    deadline = time.monotonic() + 60
    while any(writer.acknowledged <= done for writer, done in zip(writers, before, strict=True)):
        assert not [writer.failure for writer in writers if writer.failure]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_stored_once(stored: Stored, writers: Sequence[Writer]) -> None:
    """What the writers, who have finished, were acknowledged is stored, and each thing once."""
    wanted = {
        name
        for writer in writers
        for number in range(writer.acknowledged)
        for name in writer.players(number)
    }
    written = "external_id LIKE 'w%'"
    entities = stored.rows(f"SELECT external_id FROM entities WHERE {written}")
    assert Counter(name for (name,) in entities) == Counter(wanted)
    deposits = stored.rows(
        f"SELECT external_id FROM events JOIN entities USING (operator_id, entity_no) WHERE {written}"
    )
    assert Counter(name for (name,) in deposits) == Counter(wanted)
    rounds = sum(writer.acknowledged for writer in writers)
    assert stored.rows("SELECT count(*) FROM jobs") == [(rounds,)]
    values = stored.rows(
        f"SELECT external_id, value FROM states JOIN entities USING (operator_id, entity_no) WHERE {written}"
    )
    assert dict(values) == {f"{one.name}-0-0": str(one.acknowledged - 1) for one in writers}
