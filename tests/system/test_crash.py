"""What was acknowledged outlives `kill -9` at any moment, whole and once (W25)."""

from __future__ import annotations

import random
import time
from contextlib import closing

from tests.support.api import player
from tests.system.conftest import Serve
from tests.system.writer import Writer, assert_stored_once, wait_for_a_round_of_each

KILLS = 4
WRITERS = 4


def test_everything_acknowledged_survives_kill_9_at_any_moment_under_load(serve: Serve) -> None:
    """W25: all of a batch or none of it, and never twice."""
    server = serve("--limit-batch", "1000000/60s")
    key = server.new_key()
    server.client(key).close()
    writers = [Writer(number, server, key) for number in range(WRITERS)]
    moments = random.Random(7)
    for _ in range(KILLS):
        wait_for_a_round_of_each(writers)
        time.sleep(moments.uniform(0, 0.15))
        server.kill()
        assert server.stored.problems() == []
        server.start()
    for writer in writers:
        writer.finish()
    assert server.stop() == 0

    assert server.stored.problems() == []
    assert_stored_once(server.stored, writers)


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
