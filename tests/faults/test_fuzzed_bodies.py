"""Mutated bodies to every endpoint that writes: no 5xx, sound answers, and the rows that they speak of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import httpx2
import psutil
import pytest

from tests.faults.bodies import PLAYERS, Fuzzed, fuzzed
from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.faults.writers import UNLIMITED
from tests.support.api import player
from tests.support.stored import Stored
from tests.system.conftest import Serve
from tests.wire.answers import batch_of

MIB: Final = 1024 * 1024
_MOST_GROWTH_MIB: Final = 64
_SINGLE: Final = {"/entities": "entities", "/entities/p0/events": "events"}
_STATE: Final = "/entities/p1/state/balance"


class Told:
    """What the answers say is stored."""

    def __init__(self) -> None:
        self.entities: set[str] = set(PLAYERS)
        self.states: set[tuple[str, str]] = set()
        self.events: Counter[str] = Counter()
        self.duplicates = 0
        self.jobs = 1
        self.keys = 0

    def note(self, request: Fuzzed, answer: httpx2.Response) -> None:
        """Take note of an answer, which must be a sound one."""
        assert answer.status_code < 500, (answer.status_code, request)
        body = answer.json()
        assert isinstance(body, dict)
        assert body["success"] is answer.is_success, request
        if not answer.is_success:
            assert set(body["error"]) == {"code", "message"}, request
            return
        if request.path == "/api-keys":
            self.keys += request.method == "POST"
        elif request.path == _STATE:
            self.states.add(("p1", "balance"))
        elif request.path in _SINGLE and _SINGLE[request.path] == "entities":
            self.entities.add(body["data"]["externalId"])
        elif request.path in _SINGLE:
            self.events["p0"] += answer.status_code == 201  # 200 is a duplicate (W42)
        elif request.path.startswith("/batch/"):
            self._note_batch(request, answer)

    def _note_batch(self, request: Fuzzed, answer: httpx2.Response) -> None:
        sent = _items(request)
        data = batch_of(answer, len(sent))
        refused = {error["index"] for error in data["errors"]}
        accepted = [item for at, item in enumerate(sent) if at not in refused]
        if request.path == "/batch/entities":
            self.jobs += 1
            self.entities |= {item["externalId"] for item in accepted}
        elif request.path == "/batch/states":
            self.states |= {(item["externalId"], item["stateKey"]) for item in accepted}
        else:
            self.duplicates += data.get("duplicates", 0)
            self.events.update(item["externalId"] for item in accepted)

    def assert_stored(self, stored: Stored) -> None:
        """The rows are those that the answers told of."""
        live = stored.rows("SELECT external_id FROM entities WHERE deleted_at_ms IS NULL")
        assert Counter(name for (name,) in live) == Counter(self.entities)
        states = stored.rows(
            "SELECT external_id, state_key FROM states JOIN entities USING (operator_id, entity_no)"
        )
        assert Counter(states) == Counter(self.states)
        events = stored.rows(
            "SELECT external_id, count(*) FROM events"
            " JOIN entities USING (operator_id, entity_no) GROUP BY external_id"
        )
        assert dict(events).keys() <= self.events.keys()
        assert sum(dict(events).values()) == self.events.total() - self.duplicates
        assert stored.rows("SELECT count(*) FROM jobs") == [(self.jobs,)]
        assert stored.problems() == []


def _items(request: Fuzzed) -> list[Mapping[str, Any]]:
    """The items of a batch that was accepted, read by another parser; a line that is none is {}."""
    assert request.plain is not None, "a body that does not inflate was accepted"
    if not request.is_lines:
        found: list[Mapping[str, Any]] = json.loads(request.plain.decode())
        return found
    items = []
    for line in request.plain.split(b"\n"):
        if line.strip():
            try:
                items.append(json.loads(line.decode()))
            except ValueError:
                items.append({})
    return items


@pytest.mark.fault("fuzzed bodies")
def test_whatever_a_body_is_the_answer_is_sound_and_true(
    serve: Serve, counts: Counts, tally: Tally
) -> None:
    """W2, W9, W21."""
    server = serve(*UNLIMITED)
    key = server.new_key()
    told, statuses = Told(), Counter[int]()
    with closing(server.client(key)) as client:
        client.post("/batch/entities", json=[player(name) for name in PLAYERS]).raise_for_status()
        before = psutil.Process(server.pid).memory_info().rss
        for number in counts.times("bodies"):
            # Each can be made again by itself: `fuzzed(counts.chance("bodies", number))`.
            request = fuzzed(counts.chance("bodies", number))
            base = server.url if request.path == "/api-keys" else server.base
            answer = client.request(
                request.method,
                f"{base}{request.path}",
                content=request.content,
                headers=request.headers,
            )
            try:
                told.note(request, answer)
            except Exception as error:
                raise AssertionError(f"body {number} of seed {counts.seed}") from error
            statuses[answer.status_code] += 1
            tally.add("bodies")
        grown = (psutil.Process(server.pid).memory_info().rss - before) / MIB
    tally.measure("grown MiB", grown)
    tally.add("accepted", sum(count for status, count in statuses.items() if status < 300))
    tally.add("5xx", 0)
    # Neither all right nor all wrong: such bodies would try nothing.
    assert min(statuses[200], statuses[400]) >= statuses.total() // 10
    assert grown <= _MOST_GROWTH_MIB
    told.assert_stored(server.stored)
    assert server.stop() == 0
