"""Queued batches outlive `kill -9`, and each item of them is written once, in order (W30)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from opdata.clock import now_ms
from tests.support.api import add_operator, deposit, player
from tests.support.running import RunningServer
from tests.system.conftest import Serve

pytestmark = pytest.mark.clause("W30")

ASYNC = {"Prefer": "respond-async"}
EVENTS = 1_300
"""Of a batch: three chunks, the last of them not a whole one."""
BATCHES = 8
LEASE_S = 10
WAIT_S = 60


def batch_of_events(number: int) -> list[Any]:
    """Events of one player in order, one in a thousand of them for nobody; without keys of their own."""
    first = number * EVENTS
    return [
        deposit("nobody" if at % 1_000 == 7 else "p", at) for at in range(first, first + EVENTS)
    ]


def queue(client: httpx2.Client, number: int) -> str:
    answer = client.post("/batch/events", json=batch_of_events(number), headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["data"]["jobId"])


def wait_for(found: Callable[[], Any]) -> Any:
    """What is found, as soon as it is something."""
    deadline = time.monotonic() + WAIT_S
    while not (what := found()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return what


def hold(server: RunningServer) -> None:
    """Have all operators' batches wait, as they do while another process has the leases."""
    server.stored.change(
        "INSERT INTO queue_heads (operator_id, holder, expires_at_ms)"
        " SELECT operator_id, 'elsewhere', ? FROM operators",
        now_ms() + 50_000,
    )


def let_go(server: RunningServer) -> None:
    server.stored.change("UPDATE queue_heads SET holder = ''")


def under_way(server: RunningServer) -> list[tuple[Any, ...]]:
    """The job, position and holder of what has begun and is not done, by operator."""
    return server.stored.rows(
        "SELECT job_id, position, holder FROM queue_heads WHERE job_id IS NOT NULL"
    )


def jobs_when_done(client: httpx2.Client, job_ids: list[str]) -> list[Any]:
    def all_done() -> list[Any]:
        time.sleep(0.1)
        found = [client.get(f"/batch/jobs/{one}").json()["data"] for one in job_ids]
        return found if all(one["completed_at"] for one in found) else []

    jobs: list[Any] = wait_for(all_done)
    return jobs


def amounts(server: RunningServer, operator: str) -> list[int]:
    """The amounts of all events of an operator, in the order they were recorded."""
    rows = server.stored.rows(
        "SELECT events.data FROM events JOIN operators USING (operator_id)"
        " WHERE operators.name = ? ORDER BY event_no",
        operator,
    )
    return [json.loads(data)["amount"] for (data,) in rows]


def sent(batches: int) -> list[int]:
    return [
        event["data"]["amount"]
        for number in range(batches)
        for event in batch_of_events(number)
        if event["externalId"] == "p"
    ]


def test_batches_go_on_where_a_killed_server_left_them(serve: Serve) -> None:
    server = serve()
    client = server.client()
    client.post("/entities", json=player("p")).raise_for_status()
    hold(server)
    job_ids = [queue(client, number) for number in range(BATCHES)]
    let_go(server)
    [(job_id, position, _)] = wait_for(lambda: under_way(server))
    server.kill()
    assert server.stored.rows("SELECT count(*) FROM queued_batches") != [(0,)], "killed midway"
    [(at, output)] = server.stored.rows(
        "SELECT position, output FROM queue_heads JOIN jobs USING (operator_id, job_id)"
        " WHERE job_id = ?"
        " UNION ALL SELECT ?, output FROM jobs WHERE job_id = ? AND status = 'completed'",
        *(job_id, EVENTS, job_id),
    )
    counts = json.loads(output or '{"succeeded": 0, "failed": 0}')
    assert at >= position
    assert counts["succeeded"] + counts["failed"] == at, "a chunk and what is told of it are one"
    server.start()

    jobs = jobs_when_done(client, job_ids)

    assert {job["status"] for job in jobs} == {"completed"}
    refused = [[error["index"] for error in job["output"]["errors"]] for job in jobs]
    assert refused == [
        [at for at, event in enumerate(batch_of_events(number)) if event["externalId"] != "p"]
        for number in range(BATCHES)
    ]
    assert amounts(server, "default") == sent(BATCHES)
    assert server.stored.rows("SELECT count(*) FROM queued_batches") == [(0,)]
    assert server.stop() == 0


def test_of_two_processes_each_chunk_is_done_by_one_and_by_the_other_when_one_is_killed(
    serve: Serve,
) -> None:
    server = serve("--workers", "2")
    keys = {
        "default": server.new_key(),
        "second": asyncio.run(add_operator(server.settings, "second")),
    }
    clients = [server.client(key) for key in keys.values()]
    for client in clients:
        client.post("/entities", json=player("p")).raise_for_status()
    hold(server)
    job_ids = [[queue(client, number) for number in range(4)] for client in clients]
    let_go(server)

    [*_, (_, _, holder)] = wait_for(lambda: under_way(server))
    pid = int(holder.split(":")[1])
    assert pid != server.pid
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()

    for name, client, ids in zip(keys, clients, job_ids, strict=True):
        jobs = jobs_when_done(client, ids)
        assert {job["status"] for job in jobs} == {"completed"}
        assert amounts(server, name) == sent(4)
    assert time.monotonic() - killed_at < LEASE_S + WAIT_S / 2
    assert server.stop() == 0


def test_a_server_that_is_stopped_commits_the_chunk_under_way_and_leaves_the_rest(
    serve_as_told: Serve,
) -> None:
    server = serve_as_told()
    client = server.client()
    client.post("/entities", json=player("p")).raise_for_status()
    hold(server)
    job_ids = [queue(client, number) for number in range(BATCHES)]
    let_go(server)
    wait_for(lambda: under_way(server))

    assert server.stop() == 0

    holders = server.stored.rows("SELECT holder FROM queue_heads")
    assert holders == [("",)], "whoever starts next need not wait"
    done = sum(
        (output := json.loads(text))["succeeded"] + output["failed"]
        for (text,) in server.stored.rows("SELECT output FROM jobs WHERE output IS NOT NULL")
    )
    server.start()
    client = server.client()
    jobs_when_done(client, job_ids)
    assert done <= BATCHES * EVENTS
    assert amounts(server, "default") == sent(BATCHES)
    assert server.stop() == 0
