"""Several processes on one database: two workers of a server, and two servers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx2
import pytest

from tests.support.api import deposit, player, state
from tests.support.running import RunningServer, wait_until_refused
from tests.system.conftest import Serve

CONNECTIONS = 8
READS = "60/86400s"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, module_db: str) -> Iterator[RunningServer]:
    """A server with two workers, and few reads for anybody."""
    data_dir = tmp_path_factory.mktemp("workers") / "data"
    flags = ("--workers", "2", "--limit-read", READS)
    server = RunningServer(data_dir, *flags, db=module_db).start()
    yield server
    assert server.stop() == 0


def _new_operator_key(server: RunningServer, name: str) -> str:
    server.command("operators", "create", name)
    return server.new_key(name)


def _clients(server: RunningServer, key: str, stack: ExitStack) -> list[httpx2.Client]:
    """Clients with connections of their own, which fall to whichever worker takes them."""
    clients = [stack.enter_context(closing(server.client(key))) for _ in range(CONNECTIONS)]
    return [*clients]


def _fill(clients: list[httpx2.Client], name: str) -> None:
    """Each client sends ten rounds of batches at the same time; all are acknowledged."""

    def send(number: int) -> None:
        for step in range(10):
            names = [f"{name}-{number}-{step}-{at}" for at in range(20)]
            for kind, items in (
                ("entities", [player(one) for one in names]),
                ("events", [deposit(one, step) for one in names]),
                ("states", [state(one, step) for one in names]),
            ):
                answer = clients[number].post(f"/batch/{kind}", json=items)
                assert answer.status_code == 200, answer.text
                assert answer.json()["data"]["succeeded"] == 20

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(send, range(len(clients))))


def _counter(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    found = 0.0
    for line in text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            found += float(line.rpartition(" ")[2])
    return found


def test_batches_of_several_connections_are_all_stored_and_counted_over_both_workers(
    workers: RunningServer,
) -> None:
    key = _new_operator_key(workers, "batches")
    total = CONNECTIONS * 10 * 20
    with ExitStack() as stack:
        clients = _clients(workers, key, stack)
        before = workers.page("/metrics").text
        _fill(clients, "p")
        rows = workers.command("db", "check")["rows"]
        assert (rows["entities"], rows["events"], rows["states"]) == (total, total, total)
        for _ in range(6):  # on connections of their own: either worker tells the sum of both
            after = workers.page("/metrics").text
            for kind in ("entities", "events", "states"):
                labels = {"kind": kind, "outcome": "succeeded"}
                counted = _counter(after, "opdata_items_total", **labels)
                assert counted - _counter(before, "opdata_items_total", **labels) == total
            requests = {"endpoint": "batch_events", "status": "200"}
            counted = _counter(after, "opdata_requests_total", **requests)
            assert counted - _counter(before, "opdata_requests_total", **requests) == 80


def test_a_quota_is_exact_over_both_workers(workers: RunningServer) -> None:
    """W60."""
    key = _new_operator_key(workers, "quota")
    with ExitStack() as stack:
        clients = _clients(workers, key, stack)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(
                pool.map(lambda n: clients[n % CONNECTIONS].get("/templates"), range(96))
            )
    assert Counter(answer.status_code for answer in answers) == {200: 60, 429: 36}
    left = sorted(
        int(answer.headers["ratelimit"].split(";")[1].removeprefix("r="))
        for answer in answers
        if answer.status_code == 200
    )
    assert left == list(range(60))


def test_a_revoked_key_stops_working_at_every_worker_within_five_seconds(
    workers: RunningServer,
) -> None:
    """W3."""
    kept = _new_operator_key(workers, "revoked")
    with ExitStack() as stack:
        admin = stack.enter_context(closing(workers.client(kept)))
        made = admin.post(f"{workers.url}/api-keys", json={"label": "to be revoked"}).json()["data"]
        clients = _clients(workers, made["key"], stack)
        for client in clients:  # every worker has seen it
            assert client.get("/settings").status_code == 200
        answer = admin.delete(f"{workers.url}/api-keys", params={"id": made["id"]})
        assert answer.status_code == 200
        wait_until_refused(clients, time.monotonic())
        assert {client.get("/settings").status_code for client in clients} == {401}
        assert admin.get("/settings").status_code == 200


def test_a_suspended_operators_keys_stop_at_every_worker_within_five_seconds(
    workers: RunningServer,
) -> None:
    """W12."""
    key, other = (
        _new_operator_key(workers, "suspended"),
        _new_operator_key(workers, "not suspended"),
    )
    with ExitStack() as stack:
        clients = _clients(workers, key, stack)
        others = _clients(workers, other, stack)
        for client in clients:  # every worker has seen it
            assert client.post("/entities", json=player("p")).status_code in (200, 201)
        workers.command("operators", "suspend", "suspended", "--reason", "a test")
        wait_until_refused(clients, time.monotonic())
        answers = [client.post("/entities", json=player("q")) for client in clients]
        assert {answer.status_code for answer in answers} == {401}
        assert {client.get("/settings").status_code for client in others} == {200}
        workers.command("operators", "resume", "suspended")
        listed = {client.get("/entities").text for client in clients}
        [items] = {text.count('"externalId":"') for text in listed}
        assert items == 1


def test_a_key_made_by_a_command_works_at_every_worker_at_once(workers: RunningServer) -> None:
    key = _new_operator_key(workers, "made beside")
    with ExitStack() as stack:
        for client in _clients(workers, key, stack):
            assert client.get("/settings").status_code == 200


def test_one_idempotency_key_sent_over_all_connections_at_once_is_done_once(
    workers: RunningServer,
) -> None:
    """W41."""
    key = _new_operator_key(workers, "once")
    with ExitStack() as stack:
        clients = _clients(workers, key, stack)
        assert clients[0].post("/entities", json=player("p1")).status_code == 201

        def send(number: int) -> httpx2.Response:
            headers = {"Idempotency-Key": "the-same"}
            return clients[number].post("/batch/events", json=[deposit("p1")] * 3, headers=headers)

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(send, range(CONNECTIONS)))
        assert {answer.status_code for answer in answers} == {200}
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == CONNECTIONS - 1
        assert len({answer.content for answer in answers}) == 1
        assert len(clients[0].get("/entities/p1/events").json()["data"]["items"]) == 3


def test_two_servers_on_one_data_directory_share_everything(serve: Serve) -> None:
    servers = [serve("--limit-read", "50/86400s") for _ in range(2)]
    key = servers[0].new_key()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(server.client(key))) for server in servers * 2]
        _fill(clients, "p")
        rows = servers[0].command("db", "check")["rows"]
        assert rows["entities"] == rows["events"] == rows["states"] == len(clients) * 10 * 20
        # Read at the one what was written at the other.
        for number, client in enumerate(clients):
            assert client.post("/entities", json=player(f"q{number}")).status_code == 201
            other = clients[(number + 1) % len(clients)]
            assert other.get(f"/entities/q{number}").status_code == 200
        with ThreadPoolExecutor(len(clients)) as pool:
            answers = list(pool.map(lambda n: clients[n % 4].get("/templates"), range(80)))
        assert Counter(answer.status_code for answer in answers) == {200: 46, 429: 34}
        servers[1].kill()
        assert clients[0].post("/batch/entities", json=[player("last")]).status_code == 200
    assert servers[0].stop() == 0
