"""Many clients write the same entities at the same moment."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.support.api import player
from tests.system.conftest import Serve

WRITERS = 32
NAMES = 5_000
ITEMS = 1_000


def test_batches_of_the_same_keys_in_opposite_orders_all_succeed_and_each_key_has_one_of_them(
    serve: Serve,
) -> None:
    """W24, W25: no error reaches a client, and what is stored is what somebody sent last."""
    server = serve("--workers", "2", "--limit-batch", "1000000/60s", "--busy-timeout-s", "60")
    key = server.new_key()
    server.client(key).close()

    def body(writer: int) -> bytes:
        names = [f"p{(writer * 487 + at * 3) % NAMES:04}" for at in range(ITEMS)]
        items = [player(name, writer=writer) for name in dict.fromkeys(names)]
        return json.dumps(items if writer % 2 else items[::-1]).encode()

    def write(writer: int) -> httpx2.Response:
        with httpx2.Client(headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
            return client.post(f"{server.base}/batch/entities", content=body(writer))

    write(0)  # so that some are there to be replaced, while the others are made
    with ThreadPoolExecutor(WRITERS) as threads:
        answers = list(threads.map(write, range(WRITERS)))
    assert Counter(answer.status_code for answer in answers) == {200: WRITERS}
    for answer in answers:
        assert answer.json()["data"]["succeeded"] == ITEMS, answer.text[:300]
        assert answer.json()["data"]["errors"] == []

    sent_by = {
        writer: {item["externalId"] for item in json.loads(body(writer))}
        for writer in range(WRITERS)
    }
    stored = server.stored.rows("SELECT external_id, data FROM entities")
    assert Counter(name for name, _ in stored) == Counter(set().union(*sent_by.values()))
    assert [name for name, data in stored if name not in sent_by[json.loads(data)["writer"]]] == []
    assert server.stop() == 0
