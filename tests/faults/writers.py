"""Clients that write without end while something goes wrong, and come again until they are answered."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx2

from opdata.client.trust import trusted
from tests.faults.script import KINDS, Request, Script, assert_as_scripted
from tests.support.running import RunningServer
from tests.support.stored import Stored

BATCH: Final = 20
UNLIMITED: Final = tuple(
    flag
    for category in ("batch", "write", "read", "admin")
    for flag in (f"--limit-{category}", "1000000/60s")
)
"""Flags of a server that takes all that they send."""
_PAUSE_S: Final = 0.02
_AWAY_S: Final = 0.1
_PATIENCE_S: Final = 180


class _Client:
    """A thread with an HTTP client of its own that does `_step` over and over."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self.failure: BaseException | None = None
        self._http = httpx2.Client(
            base_url=server.base,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            verify=trusted(),
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop when the step at hand is done."""
        self._stop.set()
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive()
        self._http.close()
        assert self.failure is None, self.failure

    def _run(self) -> None:
        try:
            for number in itertools.count():
                self._step(number)
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - told to the test by `finish`
            self.failure = error

    def _step(self, number: int) -> None:
        raise NotImplementedError


class Writer(_Client):
    """Sends a script's requests, each until it is answered, under the same Idempotency-Key."""

    def __init__(self, number: int, server: RunningServer, key: str) -> None:
        self.script = Script(number)
        self.acknowledged = 0
        """Requests answered so far."""
        self.statuses: Counter[int] = Counter()
        """How often which status was answered."""
        self.hung_up = 0
        """Requests that were not answered at all."""
        super().__init__(server, key)

    def _step(self, number: int) -> None:
        request = self.script.request(number)
        content = json.dumps(request.body).encode()
        headers = {"Idempotency-Key": request.key}
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                answer = self._http.request(
                    request.method, request.path, content=content, headers=headers
                )
            except httpx2.TransportError:
                self.hung_up += 1
                time.sleep(_AWAY_S)
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code in (409, 503):
                assert int(answer.headers["retry-after"]) >= 1
                time.sleep(_PAUSE_S)
                continue
            assert_answered(request, answer)
            self.acknowledged = number + 1
            return
        raise AssertionError(f"not answered in {_PATIENCE_S} s")


class Appender(_Client):
    """Appends events to one player without end and without any key, each batch sent once."""

    def __init__(self, number: int, server: RunningServer, key: str, external_id: str) -> None:
        self.answers: dict[str, httpx2.Response] = {}
        """The answer to each batch, by the name that its events carry."""
        self._name = f"a{number}"
        self._external_id = external_id
        super().__init__(server, key)

    def _step(self, number: int) -> None:
        name = f"{self._name}-{number}"
        event = {"externalId": self._external_id, "eventType": "bonus", "data": {"n": name}}
        self.answers[name] = self._http.post("/batch/events", json=[event] * BATCH)


def assert_answered(request: Request, answer: httpx2.Response) -> None:
    """The request succeeded, and its answer counts what the script says."""
    assert answer.status_code in (200, 201), (request.key, answer.status_code, answer.text[:500])
    if request.counts is not None:
        data: Mapping[str, Any] = answer.json()["data"]
        assert {name: data[name] for name in request.counts} == request.counts
        # The idempotency record answers a retry; an event is never a duplicate of itself.
        assert data.get("duplicates", 0) == request.counts.get("duplicates", 0), data


def assert_only_refused(writers: Sequence[Writer]) -> None:
    """No writer was hung up on, and what was not done for it was answered with a 503."""
    answered = sum((writer.statuses for writer in writers), Counter[int]())
    assert set(answered) <= {200, 201, 503}
    assert answered[503] > 0
    assert [writer.hung_up for writer in writers] == [0] * len(writers)


def wait_for_a_round_of_each(writers: Sequence[Writer]) -> None:
    """Until each writer has had a request of each kind acknowledged from now on."""
    before = [writer.acknowledged for writer in writers]
    deadline = time.monotonic() + _PATIENCE_S
    while any(
        writer.acknowledged < done + len(KINDS)
        for writer, done in zip(writers, before, strict=True)
    ):
        assert not [writer.failure for writer in writers if writer.failure]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_stored_once(stored: Stored, writers: Sequence[Writer]) -> None:
    """What the writers, who have finished, were acknowledged is stored, and nothing else, and once."""
    assert stored.problems() == []
    assert_as_scripted(stored, {writer.script: writer.acknowledged for writer in writers})


def assert_appended_once(stored: Stored, appenders: Sequence[Appender]) -> None:
    """A batch without any key that was acknowledged is there, once, and one that was refused is not."""
    answers = {name: answer for one in appenders for name, answer in one.answers.items()}
    assert {answer.status_code for answer in answers.values()} <= {200, 503}
    refused = [answer for answer in answers.values() if answer.status_code == 503]
    assert all("retry-after" in answer.headers for answer in refused)
    assert all(answer.json()["error"]["code"] == "UNAVAILABLE" for answer in refused)
    events = stored.rows(
        "SELECT events.data FROM events"
        " JOIN entities USING (operator_id, entity_no) WHERE external_id LIKE 'a%'"
    )
    acknowledged = [name for name, answer in answers.items() if answer.status_code == 200]
    assert Counter(json.loads(data)["n"] for (data,) in events) == Counter(acknowledged * BATCH)


def assert_stored_meanwhile(stored: Stored, writers: Sequence[Writer]) -> None:
    """The same while they write on to a server that is down: one request of each may be there unanswered."""
    assert stored.problems() == []
    acknowledged = {writer.script: writer.acknowledged for writer in writers}
    sent = {script: count + 1 for script, count in acknowledged.items()}
    assert_as_scripted(stored, acknowledged, sent=sent)
