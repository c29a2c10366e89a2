"""Many clients write the same entities at the same moment."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from opdata.client.trust import trusted
from tests.faults.counts import Counts
from tests.faults.results import Tally
from tests.support.api import player
from tests.system.conftest import Serve

WRITERS = 32
NAMES = 5_000
ITEMS = 1_000


@pytest.mark.fault("32 writers on the same 5,000 keys in opposite orders")
def test_batches_of_the_same_keys_in_opposite_orders_all_succeed_and_each_key_has_one_of_them(
    serve: Serve, counts: Counts, tally: Tally
) -> None:
    """W24, W25: no error reaches a client, and what is stored is what somebody sent last."""
    server = serve("--workers", "2", "--limit-batch", "1000000/60s", "--busy-timeout-s", "60")
    key = server.new_key()
    server.client(key).close()

    def body(round_number: int, writer: int) -> bytes:
        names = [f"p{(writer * 487 + at * 3) % NAMES:04}" for at in range(ITEMS)]
        items = [player(name, by=[round_number, writer]) for name in dict.fromkeys(names)]
        return json.dumps(items if writer % 2 else items[::-1]).encode()

    def write(content: bytes) -> httpx2.Response:
        shown = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(headers=shown, timeout=120, verify=trusted()) as client:
            return client.post(f"{server.base}/batch/entities", content=content)

    write(body(0, 0))  # so that some are there to be replaced, while the others are made
    for number in counts.times("collisions"):
        bodies = [body(number, writer) for writer in range(WRITERS)]
        with ThreadPoolExecutor(WRITERS) as threads:
            answers = list(threads.map(write, bodies))
        tally.add("batches", WRITERS)
        assert Counter(answer.status_code for answer in answers) == {200: WRITERS}
        for answer in answers:
            assert answer.json()["data"]["succeeded"] == ITEMS, answer.text[:300]
            assert answer.json()["data"]["errors"] == []

        sent_by = [{item["externalId"] for item in json.loads(content)} for content in bodies]
        stored = server.stored.rows("SELECT external_id, data FROM entities")
        assert Counter(name for name, _ in stored) == Counter(set().union(*sent_by))
        last = [(name, *json.loads(data)["by"]) for name, data in stored]
        assert [one for one in last if one[1] != number or one[0] not in sent_by[one[2]]] == []
    assert server.stop() == 0
