"""What holds across the processes of one server: two workers, one store, many senders."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2
import pytest

from opdata.client.trust import trusted
from tests.support.api import player
from tests.support.running import RunningServer
from tests.wire.senders import at_once, new_operator

SENDERS = 8


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, module_db: str) -> Iterator[RunningServer]:
    """A real server of two processes that takes 20 batches an hour from an operator."""
    data_dir = tmp_path_factory.mktemp("workers") / "data"
    flags = ("--workers", "2", "--limit-batch", "20/3600s")
    running = RunningServer(data_dir, *flags, db=module_db).start()
    yield running
    assert running.stop() == 0


def alone(client: httpx2.Client) -> httpx2.Client:
    """A sender with a connection of its own, so that both workers get some."""
    return httpx2.Client(
        base_url=client.base_url, headers=client.headers, timeout=60, verify=trusted()
    )


@pytest.mark.clause("W25", "W40", "W41")
def test_one_idempotency_key_from_eight_senders_is_executed_once(workers: RunningServer) -> None:
    with new_operator(workers, "eight senders") as client:
        client.post("/entities", json=player("p")).raise_for_status()
        event = {"eventType": "session", "data": {}}

        def send(path: str, body: object) -> httpx2.Response:
            with alone(client) as sender:
                return sender.post(path, json=body, headers={"Idempotency-Key": "k"})

        batch = [player(f"q{n}") for n in range(200)]
        answers = at_once([lambda: send("/batch/entities", batch)] * SENDERS)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
        assert sorted(map(str, replayed)) == ["None", *["true"] * (SENDERS - 1)]
        jobs = client.get("/batch/jobs").json()["data"]["items"]
        assert [job["id"] for job in jobs] == [answers[0].json()["data"]["jobId"]]

        answers = at_once([lambda: send("/entities/p/events", event)] * SENDERS)
        assert sorted(answer.status_code for answer in answers) == [*[200] * (SENDERS - 1), 201]
        assert len({answer.json()["data"]["id"] for answer in answers}) == 1
        assert len(client.get("/entities/p/events").json()["data"]["items"]) == 1


@pytest.mark.clause("W24", "W26")
def test_an_entity_that_eight_senders_create_at_once_is_one(workers: RunningServer) -> None:
    with new_operator(workers, "one entity") as client:

        def send(sender_no: int) -> httpx2.Response:
            with alone(client) as sender:
                return sender.post("/entities", json=player("p", vip_level=sender_no))

        answers = at_once([partial(send, no) for no in range(SENDERS)])
        assert sorted(answer.status_code for answer in answers) == [*[200] * (SENDERS - 1), 201]
        assert len({answer.json()["data"]["id"] for answer in answers}) == 1
        [found] = client.get("/entities").json()["data"]["items"]
        assert found["data"]["vip_level"] in range(SENDERS)


@pytest.mark.clause("W4", "W48")
def test_a_template_that_was_set_through_one_worker_counts_for_both(
    workers: RunningServer,
) -> None:
    with new_operator(workers, "no template yet", template=False) as client:

        def send(no: int) -> httpx2.Response:
            with alone(client) as sender:
                return sender.post("/entities", json=player(f"p{no}"))

        # Both workers know this operator by now, and that it has none.
        before = at_once([partial(send, no) for no in range(SENDERS)])
        assert {answer.json()["error"]["code"] for answer in before} == {"TEMPLATE_NOT_CONFIGURED"}
        client.put("/settings", json={"templateId": "tpl_igaming"}).raise_for_status()
        after = at_once([partial(send, no) for no in range(SENDERS)])
        assert {answer.status_code for answer in after} == {201}


@pytest.mark.clause("W60", "W61")
def test_a_limit_is_exact_over_both_workers(workers: RunningServer) -> None:
    with new_operator(workers, "exact") as client, ThreadPoolExecutor(SENDERS) as threads:

        def send(_: int) -> httpx2.Response:
            with alone(client) as sender:
                return sender.post("/batch/entities", json=[5])

        answers = list(threads.map(send, range(50)))

        granted = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(granted), len(refused)) == (20, 30)
        # Each of them saw another number of requests left.
        left = sorted(int(one.headers["ratelimit"].split(";")[1][2:]) for one in granted)
        # The worker with the older clock reading takes what is left for one less.
        assert all(abs(one - number) <= 1 for number, one in enumerate(left))
        assert {one.headers["ratelimit"].split(";")[1] for one in refused} == {"r=0"}
    with new_operator(workers, "another") as client:
        assert client.post("/batch/entities", json=[5]).status_code == 200


@pytest.mark.clause("W60")
def test_an_operator_may_have_limits_of_its_own(workers: RunningServer) -> None:
    with new_operator(workers, "special") as client:
        workers.command("operators", "limits", "special", "--set", "ingest:batch=3/3600s")
        deadline, sent_at, policy = time.monotonic() + 5, 0.0, ""
        while policy != '"ingest:batch";q=3;w=3600':
            # Running servers follow within five seconds; until then there are 20 to be had.
            assert sent_at < deadline
            sent_at = time.monotonic()
            answer = client.post("/batch/entities", json=[5])
            policy = answer.headers["ratelimit-policy"]
            time.sleep(0.3)
        answers = [client.post("/batch/entities", json=[5]) for _ in range(4)]
        assert answers[-1].status_code == 429
        # Other categories and other operators keep the server's.
        assert client.get("/templates").headers["ratelimit-policy"] == '"read";q=12000;w=60'
    with new_operator(workers, "ordinary") as client:
        answer = client.post("/batch/entities", json=[5])
        assert answer.headers["ratelimit-policy"] == '"ingest:batch";q=20;w=3600'


@pytest.mark.clause("W1", "W2")
def test_both_workers_count_into_one_set_of_metrics(workers: RunningServer) -> None:
    with new_operator(workers, "counted") as client:
        before = counted(workers)
        for _ in range(30):
            with alone(client) as sender:
                sender.get("/batch/jobs").raise_for_status()
        assert counted(workers) == before + 30


def counted(server: RunningServer) -> float:
    text = server.page("/metrics").text
    values = [
        line.rsplit(" ", 1)[1]
        for line in text.splitlines()
        if line.startswith("opdata_requests_total") and '"list_jobs"' in line
    ]
    return sum(map(float, values))
