"""A server's memory does not grow with what it has taken in."""

from __future__ import annotations

import json
from contextlib import closing

import psutil

from tests.support.api import player
from tests.support.running import RunningServer
from tests.system.conftest import Serve

MIB = 1024 * 1024


def _rss_mib(server: RunningServer) -> float:
    return float(psutil.Process(server.pid).memory_info().rss) / MIB


def test_memory_does_not_grow_with_the_batches_taken_in(serve: Serve) -> None:
    """250 batches of 1,000 new players, of which the last 150 must cost nothing."""
    server = serve("--limit-batch", "1000000/60s")
    mark = b"RRRRRR"
    batch = json.dumps(
        [
            player(f"p{mark.decode()}-{at}", first_name="Alice", last_name=f"C{at}")
            for at in range(1_000)
        ]
    ).encode()

    with closing(server.client()) as client:

        def send(numbers: range) -> None:
            for number in numbers:
                body = batch.replace(mark, b"%06d" % number)
                answer = client.post("/batch/entities", content=body)
                assert answer.json()["data"]["succeeded"] == 1_000

        send(range(100))
        before = _rss_mib(server)
        send(range(100, 250))
        after = _rss_mib(server)
    assert after < 200
    assert after - before < 12
    assert server.stop() == 0
