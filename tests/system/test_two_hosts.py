"""Two servers with nothing in common but a PostgreSQL database and the master key, as on two hosts."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial

import httpx2
import pytest

from tests.support.api import add_operator, deposit, player
from tests.support.running import RunningServer, wait_until_refused
from tests.support.stored import database_of
from tests.wire.senders import at_once

SENDERS = 8
READS = 40

Hosts = tuple[RunningServer, RunningServer]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with database_of("postgres") as url:
        env = {"OPDATA_MASTER_KEY": secrets.token_hex(32)}
        flags = ("--limit-read", f"{READS}/86400s")
        one, other = (
            RunningServer(tmp_path_factory.mktemp(name) / "data", *flags, db=url, env=env).start()
            for name in ("one", "other")
        )
        yield one, other
        assert (one.stop(), other.stop()) == (0, 0)


def _key(hosts: Hosts, operator: str) -> str:
    return asyncio.run(add_operator(hosts[0].settings, operator))


def _clients(hosts: Hosts, key: str, stack: ExitStack) -> list[httpx2.Client]:
    """Half of them at the one host and half at the other."""
    return [
        stack.enter_context(closing(hosts[number % 2].client(key))) for number in range(SENDERS)
    ]


def test_what_is_written_at_one_host_is_read_and_opened_at_the_other(hosts: Hosts) -> None:
    """W25, W49."""
    key = _key(hosts, "both")
    with ExitStack() as stack:
        one, other, *_ = _clients(hosts, key, stack)
        one.post("/entities", json=player("p", first_name="Ada")).raise_for_status()
        assert (
            other.get("/entities/p").json()["data"]["data"] == player("p", first_name="Ada")["data"]
        )
        assert other.delete("/entities/p").status_code == 200
        # The one has seen it, and must not go by what it remembers.
        answer = one.post("/batch/events", json=[deposit("p")])
        assert [error["code"] for error in answer.json()["data"]["errors"]] == ["NOT_FOUND"]
        assert other.post("/entities", json=player("p")).status_code == 201
        assert one.post("/batch/events", json=[deposit("p")]).json()["data"]["succeeded"] == 1
        assert len(other.get("/entities/p/events").json()["data"]["items"]) == 1
    # No file of either is the other's, and neither keeps the key in one.
    for host in hosts:
        assert "master.key" not in {path.name for path in host.data_dir.iterdir()}


def test_a_quota_is_exact_over_both_hosts(hosts: Hosts) -> None:
    """W60, W61."""
    key = _key(hosts, "quota")
    with ExitStack() as stack:
        clients = _clients(hosts, key, stack)
        with ThreadPoolExecutor(SENDERS) as pool:
            answers = list(pool.map(lambda n: clients[n % SENDERS].get("/templates"), range(96)))
    assert Counter(answer.status_code for answer in answers) == {200: READS, 429: 96 - READS}
    left = [
        int(answer.headers["ratelimit"].split(";")[1].removeprefix("r="))
        for answer in answers
        if answer.status_code == 200
    ]
    assert sorted(left) == list(range(READS))


def test_a_revoked_key_stops_working_at_both_hosts_within_five_seconds(hosts: Hosts) -> None:
    """W3."""
    kept = _key(hosts, "revoked")
    with ExitStack() as stack:
        admin = stack.enter_context(closing(hosts[0].client(kept)))
        made = admin.post(f"{hosts[0].url}/api-keys", json={"label": "gone soon"}).json()["data"]
        clients = _clients(hosts, made["key"], stack)
        assert {client.get("/settings").status_code for client in clients} == {200}
        answer = admin.delete(f"{hosts[0].url}/api-keys", params={"id": made["id"]})
        assert answer.status_code == 200
        revoked_at = time.monotonic()
        assert clients[0].get("/settings").status_code == 401, "at once where it was revoked"
        wait_until_refused(clients[1:], revoked_at)
        assert admin.get("/settings").status_code == 200


def test_one_idempotency_key_from_eight_senders_at_both_hosts_is_executed_once(
    hosts: Hosts,
) -> None:
    """W25, W41."""
    key = _key(hosts, "once")
    stored = hosts[0].stored
    operator_id = "SELECT operator_id FROM operators WHERE name = 'once'"
    with ExitStack() as stack:
        clients = _clients(hosts, key, stack)
        assert clients[0].post("/entities", json=player("p")).status_code == 201
        for round_number in range(5):
            headers = {"Idempotency-Key": f"round-{round_number}"}
            batch = [deposit("p")] * 3
            answers = at_once(
                [
                    partial(client.post, "/batch/events", json=batch, headers=headers)
                    for client in clients
                ]
            )
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            replayed = ["idempotent-replayed" in answer.headers for answer in answers]
            assert sum(replayed) == SENDERS - 1
    count = f"SELECT count(*) FROM events WHERE operator_id = ({operator_id})"
    assert stored.rows(count) == [(15,)]
