"""The same Idempotency-Key from eight senders at the same moment: executed once, answered alike (W40, W41)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Final

import httpx2
import pytest

from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.faults.script import Request, Script, assert_as_scripted
from tests.faults.writers import UNLIMITED, assert_answered
from tests.system.conftest import Serve

SENDERS: Final = 8
_RACES_A_CONNECTION: Final = 25
"""Then new ones are opened, so that the senders are spread over the workers in ever new ways."""


@pytest.mark.fault("the same Idempotency-Key from 8 senders")
def test_a_key_that_eight_senders_use_at_once_is_executed_once(
    serve: Serve, counts: Counts, tally: Tally
) -> None:
    """W25, W40, W41: over two workers, for requests of every kind."""
    server = serve("--workers", "2", *UNLIMITED)
    key = server.new_key()
    server.client(key).close()
    script, start = Script(0), Barrier(SENDERS)
    clients: list[httpx2.Client] = []

    def send(client: httpx2.Client, request: Request) -> httpx2.Response:
        content, headers = json.dumps(request.body).encode(), {"Idempotency-Key": request.key}
        start.wait()
        while True:
            answer = client.request(request.method, request.path, content=content, headers=headers)
            if answer.status_code != 409:  # its twin is still under way
                return answer
            assert int(answer.headers["retry-after"]) >= 1

    races = 0
    with ThreadPoolExecutor(SENDERS) as threads:
        for race in counts.times("races"):
            if race % _RACES_A_CONNECTION == 0:
                while clients:
                    clients.pop().close()
                clients = [server.client(key, template=False) for _ in range(SENDERS)]
            request = script.request(race)
            assert_executed_once(request, list(threads.map(send, clients, [request] * SENDERS)))
            races += 1
            tally.add("races")
    assert server.stop() == 0
    assert races > 0
    assert_as_scripted(server.stored, {script: races})


def assert_executed_once(request: Request, answers: list[httpx2.Response]) -> None:
    """One of the answers is the first, and all others repeat it."""
    for answer in answers:
        assert_answered(request, answer)
    first = [answer for answer in answers if "idempotent-replayed" not in answer.headers]
    assert len(first) == 1, [answer.status_code for answer in answers]
    if request.path.endswith("/events") and not request.path.startswith("/batch/"):
        # A single event's repetition says so (W41).
        assert len({answer.json()["data"]["id"] for answer in answers}) == 1
        assert sorted(answer.status_code for answer in answers) == [200] * (SENDERS - 1) + [201]
    else:
        assert {answer.content for answer in answers} == {first[0].content}
