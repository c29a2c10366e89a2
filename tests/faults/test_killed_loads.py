"""A load that is killed, and whose server is killed, stores exactly its input in the end.

In the short run it is killed while it sends events and while it sends states; in the long one many times
in each step, that of entities too, and of more rows.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.counts import COUNTS, Counts
from tests.faults.results import Tally
from tests.support.running import OPDATA, RunningServer
from tests.system.conftest import Serve

KILLS: Final = COUNTS.load_kills
LONG: Final = KILLS > 1
PLAYERS: Final = 1_000 if LONG else 200
EVENTS: Final = 100_000 if LONG else 6_000
VERSIONS: Final = 40 if LONG else 12
"""How often each entity and each state comes in its file; the last one has to stay."""
STEPS: Final = ("entities-players", "events", "states")
KILLED_IN: Final = STEPS if LONG else STEPS[1:]
BATCH: Final = 250 if LONG else 100
_TIMEOUT_S: Final = 300


class Loading:
    """`opdata load` on a server, in a directory and with a home of its own."""

    def __init__(self, server: RunningServer, home: Path) -> None:
        self.home = home
        self.key = server.new_key()
        server.client(self.key).close()
        self._env = {
            **os.environ,
            "OPDATA_URL": server.url,
            "OPDATA_API_KEY": self.key,
            "XDG_STATE_HOME": str(home / "state"),
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [OPDATA, "load", *arguments, "--batch-size", str(BATCH), "--json"],
            cwd=self.home,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def acknowledged(self, step: str) -> int:
        """Batches of a step that its checkpoint says are acknowledged."""
        found = list((self.home / "state").rglob(f"{step}.checkpoint"))
        return sum(file.read_bytes().count(b'"line":"acknowledged"') for file in found)

    def wait_for(self, process: subprocess.Popen[bytes], step: str, batches: int) -> bool:
        """Whether that many batches of a step were acknowledged while the process ran."""
        deadline = time.monotonic() + _TIMEOUT_S
        while process.poll() is None:
            if self.acknowledged(step) >= batches:
                return True
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return False


@pytest.mark.fault("kill -9 of the loader, then --resume")
def test_a_plan_that_is_killed_again_and_again_stores_exactly_its_input(
    serve: Serve, tmp_path: Path, counts: Counts, tally: Tally
) -> None:
    moments = counts.chance("load kills")
    server = serve("--limit-batch", "1000000/60s")
    loading = Loading(server, tmp_path)
    batches = dict(zip(STEPS, write_inputs(tmp_path / "in"), strict=True))
    command = ("all", "in", "--resume", "--concurrency", "4")
    missed = []
    for step in KILLED_IN:
        for number in range(1, KILLS + 1):
            further = moments.randint(1, batches[step] // (4 * KILLS))
            before = loading.acknowledged(step)
            process = loading.start(*command)
            if (step, number) == (KILLED_IN[0], 1):
                # The server goes first; the load waits for it, and goes on.
                assert loading.wait_for(process, STEPS[0], 2)
                server.kill()
                server.start()
            if loading.wait_for(process, step, before + further):
                time.sleep(moments.uniform(0, 0.01))
            process.kill()
            said = process.communicate()
            tally.add("kills")
            if process.returncode != -signal.SIGKILL:
                missed.append((step, number, said))

    out, err = loading.start(*command).communicate(timeout=_TIMEOUT_S)

    assert missed == []
    summary = json.loads(out)
    assert [(each["step"], each["outcome"]) for each in summary["steps"]] == [
        (step, "complete") for step in STEPS
    ], err
    assert [each["summary"]["succeeded"] for each in summary["steps"]] == [
        PLAYERS * VERSIONS,
        EVENTS,
        PLAYERS * VERSIONS,
    ]
    assert summary["steps"][0]["summary"]["resumed"] == PLAYERS * VERSIONS
    assert_stored_as_written(server)
    assert list((tmp_path / "state").rglob("*.checkpoint")) == []


def write_inputs(folder: Path) -> list[int]:
    """Files of all three kinds; how many batches each makes."""
    folder.mkdir()
    versions = [(f"p{number}", version) for version in range(VERSIONS) for number in range(PLAYERS)]
    random.Random(7).shuffle(versions)
    entities = "".join(
        f"{one},{one}@example.com,MT,EUR,active,{place}\n"
        for place, (one, _) in enumerate(versions)
    )
    (folder / "players.csv").write_text("id,email,country,currency,status,place\n" + entities)
    events = "".join(f"p{n % PLAYERS},bonus,{n}\n" for n in range(EVENTS))
    (folder / "events.csv").write_text("externalId,eventType,n\n" + events)
    states = "".join(f"{one},balance,{place}\n" for place, (one, _) in enumerate(versions))
    (folder / "states.csv").write_text("externalId,stateKey,value\n" + states)
    rows = (len(versions), EVENTS, len(versions))
    return [count // BATCH for count in rows]


def assert_stored_as_written(server: RunningServer) -> None:
    last: dict[str, int] = {}
    versions = [(f"p{number}", version) for version in range(VERSIONS) for number in range(PLAYERS)]
    random.Random(7).shuffle(versions)
    for place, (one, _) in enumerate(versions):
        last[one] = place
    entities = server.stored.rows("SELECT external_id, data FROM entities")
    assert {name: json.loads(data)["place"] for name, data in entities} == last
    states = server.stored.rows(
        "SELECT external_id, value FROM states JOIN entities USING (operator_id, entity_no)"
    )
    assert {name: json.loads(value) for name, value in states} == last
    assert events_stored(server) == list(range(EVENTS))


def events_stored(server: RunningServer) -> list[Any]:
    return sorted(
        json.loads(data)["n"] for (data,) in server.stored.rows("SELECT data FROM events")
    )
