"""More than a worker can do at once: what waits, what is refused, and who is not affected."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import httpx2

from tests.support.api import add_operator, player, state
from tests.support.running import RunningServer
from tests.system.conftest import Serve

PATIENCE_S = 30


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shown(server: RunningServer, name: str) -> float:
    """A number of the server's metrics; 0 while it is not there."""
    for text in server.page("/metrics").text.splitlines():
        if text.startswith(f"{name} "):
            return float(text.split()[1])
    return 0.0


def client_of(server: RunningServer, name: str) -> httpx2.Client:
    return server.client(asyncio.run(add_operator(server.settings, name)))


def test_an_operators_flood_is_refused_in_part_and_another_operator_is_served(
    serve: Serve,
) -> None:
    server = serve("--max-executing", "1", "--max-queued", "12", "--busy-timeout-s", "30")
    batch = [player(f"large{number}", note="x" * 1000) for number in range(20)]
    with (
        closing(client_of(server, "flood")) as flood,
        closing(client_of(server, "quiet")) as quiet,
        ThreadPoolExecutor(21) as threads,
    ):

        def send(client: httpx2.Client, number: int) -> httpx2.Response:
            items = [{**one, "externalId": f"{number}_{one['externalId']}"} for one in batch]
            return client.post("/batch/entities", json=items)

        with server.stored.locked():
            flooding = [threads.submit(send, flood, number) for number in range(20)]
            until(lambda: shown(server, 'opdata_refused_total{reason="queue_full"}') == 13)
            other: Future[httpx2.Response] = threads.submit(send, quiet, 0)
            until(lambda: shown(server, "opdata_queued") == 7)
            assert shown(server, "opdata_executing") == 1
            assert shown(server, "opdata_buffered_bytes") > 8 * 20 * 1000
            assert server.page("/healthz").status_code == 200
        answers = [one.result() for one in flooding]
        assert other.result().status_code == 200
        assert Counter(answer.status_code for answer in answers) == {200: 7, 503: 13}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.json()["error"]["code"] for answer in refused} == {"UNAVAILABLE"}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert len(quiet.get("/entities?limit=1000").json()["data"]["items"]) == 20
        stored = [
            one["externalId"] for one in flood.get("/entities?limit=1000").json()["data"]["items"]
        ]
        kept = {number for number, answer in enumerate(answers) if answer.status_code == 200}
        assert {int(one.partition("_")[0]) for one in stored} == kept
        assert len(stored) == 7 * 20
        until(lambda: shown(server, "opdata_buffered_bytes") == 0)
        assert shown(server, "opdata_executing") == shown(server, "opdata_queued") == 0


def test_a_turn_that_does_not_come_is_told_so_and_nothing_was_written(serve: Serve) -> None:
    server = serve("--max-executing", "1", "--queue-timeout-s", "0.2", "--busy-timeout-s", "30")
    body = [player("p1", note="x" * 20_000)]
    with closing(server.client()) as client, ThreadPoolExecutor(1) as threads:
        with server.stored.locked():
            first = threads.submit(client.post, "/batch/entities", json=body)
            until(lambda: shown(server, "opdata_executing") == 1)
            answer = client.post("/batch/entities", json=[player("p2", note="x" * 20_000)])
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert first.result().status_code == 200
        items = client.get("/entities").json()["data"]["items"]
        assert [one["externalId"] for one in items] == ["p1"]


def test_bodies_beyond_what_may_be_held_are_refused(serve_as_told: Serve) -> None:
    server = serve_as_told("--max-body-bytes", "65536", "--max-buffered-bytes", "131072")
    body = [state("p1", "x" * 50_000)]
    with closing(server.client()) as client, ThreadPoolExecutor(4) as threads:
        assert client.post("/entities", json=player("p1")).status_code == 201
        with server.stored.locked():
            sent = [threads.submit(client.post, "/batch/states", json=body) for _ in range(4)]
            until(lambda: shown(server, 'opdata_refused_total{reason="buffered_bytes"}') == 3)
        assert Counter(one.result().status_code for one in sent) == {200: 1, 503: 3}
        assert client.post("/batch/states", json=body).status_code == 200
