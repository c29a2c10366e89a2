"""SIGTERM: what is in flight is finished, then the server ends with exit code 0."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2
import pytest

from tests.support.api import player
from tests.support.running import RunningServer
from tests.system.conftest import Serve


def _wait_until_stopping(server: RunningServer) -> None:
    """Until no new request is answered: the signal has arrived."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            server.page("/healthz", timeout_s=1)
        except httpx2.TransportError:
            return
        time.sleep(0.02)
    raise AssertionError("still answering")


def _wait_for_metric(server: RunningServer, name: str, least: float) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        for line in server.page("/metrics").text.splitlines():
            if line.startswith(f"{name} ") and float(line.split()[1]) >= least:
                return
        time.sleep(0.05)
    raise AssertionError(name)


def _wait_until_refused(server: RunningServer) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    raise AssertionError("still listening")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_in_flight_when_the_server_is_told_to_stop_is_finished(
    serve: Serve, workers: str
) -> None:
    server = serve("--workers", workers)
    key = server.new_key()
    server.client(key).close()
    body = json.dumps([player(f"p{at}") for at in range(50)]).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /operator-data-api/batch/entities HTTP/1.1\r\nHost: test\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
            % (key.encode(), len(body))
            + body[:100]
        )
        _wait_for_metric(server, "opdata_buffered_bytes", 1)  # the head has been read
        os.kill(server.pid, signal.SIGTERM)
        _wait_until_stopping(server)
        connection.sendall(body[100:])
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(content)["data"]["succeeded"] == 50
    assert server.stop() == 0
    server.start()
    with closing(server.client(key, template=False)) as client:
        assert client.get("/entities/p49").status_code == 200
    assert server.stop() == 0


def test_an_idle_connection_does_not_hold_the_server_up(serve: Serve) -> None:
    server = serve()
    with closing(server.client()) as client:
        client.get("/settings").raise_for_status()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15, "less than it waits for requests in flight"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_executing_or_waits_for_its_turn_is_finished_and_nothing_new_is_taken(
    serve: Serve, workers: str
) -> None:
    server = serve("--workers", workers, "--max-executing", "1", "--busy-timeout-s", "30")
    key = server.new_key()
    server.client(key).close()
    while server.log.read_text().count('"event": "started"') < int(workers):
        time.sleep(0.05)
    clients = [server.client(key, template=False) for _ in range(4)]
    large = "x" * 20_000

    def send(number: int) -> httpx2.Response:
        return clients[number].post("/batch/entities", json=[player(f"p{number}", note=large)])

    with ThreadPoolExecutor(4) as threads:
        with server.stored.locked():
            sent = [threads.submit(send, number) for number in range(4)]
            _wait_for_metric(server, "opdata_buffered_bytes", 4 * 20_000)
            os.kill(server.pid, signal.SIGTERM)
            # Refused and not taken: the listener is closed while the requests are still under way.
            _wait_until_refused(server)
            assert not any(one.done() for one in sent)
        answers = [one.result() for one in sent]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    for client in clients:
        client.close()
    assert server.stop() == 0
    items = "SELECT external_id FROM entities ORDER BY external_id"
    assert [name for (name,) in server.stored.rows(items)] == ["p0", "p1", "p2", "p3"]


def test_the_database_is_whole_in_its_one_file_after_a_stop(serve_as_told: Serve) -> None:
    server = serve_as_told()
    with closing(server.client()) as client:
        client.post("/batch/entities", json=[player("p1")]).raise_for_status()
    assert server.stop() == 0
    names = {path.name for path in server.data_dir.iterdir()}
    assert "opdata.db" in names
    assert "opdata.db-wal" not in names
