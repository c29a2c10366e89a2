"""What was acknowledged outlives `kill -9` at any moment, whole and once (W25)."""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import closing, suppress
from typing import Final

import psutil
import pytest

from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.faults.writers import (
    UNLIMITED,
    Writer,
    assert_stored_meanwhile,
    assert_stored_once,
    wait_for_a_round_of_each,
)
from tests.support.api import player
from tests.system.conftest import Serve

WRITERS: Final = 4
WORKERS: Final = 2
READY_WITHIN_S: Final = 2
_SLACK_S: Final = 6
"""What a machine that is busy with other things may add to it."""


@pytest.mark.fault("kill -9 of the server under load")
def test_everything_acknowledged_survives_kill_9_at_any_moment_under_load(
    serve: Serve, counts: Counts, tally: Tally
) -> None:
    """W25, W41: all of a request or none of it, and never twice, however often it is sent."""
    server = serve(*UNLIMITED)
    key = server.new_key()
    server.client(key).close()
    writers = [Writer(number, server, key) for number in range(WRITERS)]
    moments = counts.chance("kills")
    ready_s: list[float] = []
    for _ in counts.times("kills"):
        before = [writer.acknowledged for writer in writers]
        while [writer.acknowledged for writer in writers] == before:
            assert not [writer.failure for writer in writers if writer.failure]
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.2))
        server.kill()
        tally.add("kills")
        assert_stored_meanwhile(server.stored, writers)
        started = time.monotonic()
        server.start()
        ready_s.append(time.monotonic() - started)
        tally.measure("ready after s", ready_s[-1])
    for writer in writers:
        writer.finish()
    tally.add("requests", sum(writer.acknowledged for writer in writers))
    tally.measure("ready after s, median", statistics.median(ready_s))
    assert server.stop() == 0

    assert_stored_once(server.stored, writers)
    if counts.is_long:
        assert statistics.median(ready_s) <= READY_WITHIN_S + _SLACK_S


@pytest.mark.fault("kill -9 of one worker of several under load")
def test_a_worker_that_is_killed_takes_nothing_acknowledged_with_it(
    serve: Serve, counts: Counts, tally: Tally
) -> None:
    """W25: the others go on, and another one is started in its place."""
    server = serve("--workers", str(WORKERS), *UNLIMITED)
    key = server.new_key()
    server.client(key).close()
    writers = [Writer(number, server, key) for number in range(WRITERS)]
    moments = counts.chance("worker kills")
    for _ in counts.times("worker_kills"):
        wait_for_a_round_of_each(writers)
        time.sleep(moments.uniform(0, 0.2))
        os.kill(moments.choice(_workers(server.pid)), signal.SIGKILL)
        tally.add("kills")
        deadline = time.monotonic() + 30
        while len(_workers(server.pid)) < WORKERS:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    wait_for_a_round_of_each(writers)
    for writer in writers:
        writer.finish()
    tally.add("requests", sum(writer.acknowledged for writer in writers))
    assert server.stop() == 0

    assert_stored_once(server.stored, writers)


@pytest.mark.fault("kill -9 of the server under load")
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


def _workers(pid: int) -> list[int]:
    """The living worker processes of a server."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):  # which a zombie counts as
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found
