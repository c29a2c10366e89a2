"""Batches on their way: bounds, order, keys, retries."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opdata.client.retry import Backoff
from opdata.loader.batches import cut_batches
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind
from opdata.loader.run import Load, run_load
from opdata.loader.source import Selection, Source
from opdata.loader.summary import Summary
from tests.unit.loader.conftest import Run
from tests.unit.loader.fake_api import HANG_UP, KEY, FakeApi, Reply, error

QUICK = Backoff(base_delay_s=0.01, max_delay_s=0.05, first_contact_s=2.0, give_up_after_s=2.0)


def send(api: FakeApi, kind: Kind, source: str, **options: object) -> Summary:
    chosen = {"batch_size": kind.max_items, "backoff": QUICK} | options
    selection = Selection(kind, [source], None, "x")
    return run_load(Load(selection, api.url, KEY, **chosen))  # type: ignore[arg-type]


def numbered(count: int, name: str = "rows.csv") -> str:
    Path(name).write_text("externalId,n\n" + "".join(f"p{n},{n}\n" for n in range(count)))
    return name


@pytest.mark.parametrize(("kind", "most"), [(ENTITIES, 1_000), (EVENTS, 5_000), (STATES, 1_000)])
def test_batches_are_as_large_as_the_endpoint_takes(
    api: FakeApi, load: Run, kind: Kind, most: int
) -> None:
    option = {"entities": "--entity-type", "events": "--event-type", "states": "--state-key"}
    ran = load(kind.name, numbered(2 * most + 1), option[kind.name], "x", "--concurrency", "1")
    assert ran.code == 0
    assert {request.path for request in api.received} == {f"/operator-data-api/batch/{kind.name}"}
    assert [len(request.items) for request in api.received] == [most, most, 1]
    assert [item["externalId"] for item in api.stored] == [f"p{n}" for n in range(2 * most + 1)]


def test_batch_size_makes_them_smaller(api: FakeApi, load: Run) -> None:
    load("entities", numbered(5), "--entity-type", "x", "--batch-size", "2", "--concurrency", "1")
    assert [len(request.items) for request in api.received] == [2, 2, 1]


def test_a_body_never_exceeds_its_bound_unless_one_item_does(api: FakeApi) -> None:
    lines = [
        json.dumps({"id": str(n), "text": "é" * (n * 100)}, ensure_ascii=False) for n in range(1, 9)
    ]
    Path("a.ndjson").write_text("\n".join(lines))
    summary = send(api, ENTITIES, "a.ndjson", max_body_bytes=1_500, concurrency=1)
    assert summary.succeeded == 8
    assert [[item["externalId"] for item in request.items] for request in api.received] == [
        ["1", "2", "3"], ["4"], ["5"], ["6"], ["7"], ["8"],
    ]  # fmt: skip
    assert all(len(request.body) <= 1_500 for request in api.received if len(request.items) > 1)


def test_a_dry_run_asks_for_one_and_carries_no_key(api: FakeApi, load: Run) -> None:
    ran = load("entities", numbered(3), "--entity-type", "x", "--dry-run")
    assert [request.params for request in api.received] == [{"dryRun": "true"}]
    assert api.received[0].idempotency_key is None
    assert api.stored == []
    assert "dry run: nothing was written" in ran.out


def test_no_more_requests_than_asked_for_are_under_way(api: FakeApi) -> None:
    api.delay_s = lambda _items: 0.05
    send(api, EVENTS, numbered(30), batch_size=2, concurrency=3)
    assert api.most_at_once == 3
    assert len(api.stored) == 30


@pytest.mark.parametrize("kind", [ENTITIES, STATES])
def test_the_last_row_of_an_id_takes_effect_last_whatever_the_concurrency(
    api: FakeApi, kind: Kind
) -> None:
    chance = random.Random(7)
    ids = [f"p{chance.randrange(40)}" for _ in range(200)]
    Path("a.csv").write_text("id,n\n" + "".join(f"{id_},{n}\n" for n, id_ in enumerate(ids)))
    api.delay_s = lambda items: chance.random() * 0.05 * len(items) / 5
    for number in (3, 9, 17):
        api.script += [error(503, "UNAVAILABLE")] if number % 2 else []
    send(api, kind, "a.csv", batch_size=5, concurrency=8)
    final = {item["externalId"]: item[kind.payload]["n"] for item in api.stored}
    assert final == {id_: n for n, id_ in enumerate(ids)}
    assert api.most_at_once > 1


def test_batches_are_the_same_whatever_the_concurrency(api: FakeApi) -> None:
    source = numbered(50)
    send(api, EVENTS, source, batch_size=7, concurrency=1)
    first = {(request.idempotency_key, request.body) for request in api.received}
    api.received.clear()
    send(api, EVENTS, source, batch_size=7, concurrency=5)
    assert {(request.idempotency_key, request.body) for request in api.received} == first


def test_a_lost_answer_is_asked_for_again_with_the_same_key(api: FakeApi) -> None:
    api.script.append(lambda: None)  # executed, and then the line goes dead
    summary = send(api, EVENTS, numbered(10), concurrency=1)
    first, second = api.received
    assert first.idempotency_key == second.idempotency_key
    assert first.body == second.body
    assert len(api.stored) == 10
    assert (summary.succeeded, summary.already_loaded) == (10, 0)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (HANG_UP, "unreachable"),
        (error(503, "UNAVAILABLE"), "unavailable"),
        (error(409, "CONFLICT", Retry_After="0"), "in flight"),
        (error(429, "RATE_LIMITED"), "rate limited"),
        (error(502, "BAD_GATEWAY"), "unavailable"),
        (error(500, "INTERNAL_ERROR"), "unavailable"),
    ],
)
def test_passing_trouble_is_waited_out(api: FakeApi, trouble: object, reason: str) -> None:
    api.script += [trouble, trouble]  # type: ignore[list-item]
    summary = send(api, ENTITIES, numbered(3), concurrency=1)
    assert summary.succeeded == 3
    assert summary.waits == {reason: 2}
    assert len({request.idempotency_key for request in api.received}) == 1
    assert len(api.stored) == 3


def test_retry_after_is_honoured(api: FakeApi) -> None:
    api.script.append(error(429, "RATE_LIMITED", Retry_After="1"))
    begun_at_s = time.monotonic()
    summary = send(api, ENTITIES, numbered(1))
    assert 1.0 <= time.monotonic() - begun_at_s < 10
    assert summary.waits == {"rate limited": 1}
    assert summary.succeeded == 1


def test_a_batch_that_is_too_large_is_sent_in_parts_in_order(api: FakeApi) -> None:
    source = numbered(8)
    api.max_body_bytes = 200
    summary = send(api, ENTITIES, source, concurrency=1)
    assert [item["externalId"] for item in api.stored] == [f"p{n}" for n in range(8)]
    assert (summary.succeeded, summary.batches) == (8, 1)
    keys = [request.idempotency_key for request in api.received]
    assert len(set(keys)) == len(keys)


def test_an_item_that_is_too_large_by_itself_is_refused_alone(api: FakeApi) -> None:
    rows = [{"id": str(n), "text": "x" * (500 if n == 3 else 1)} for n in range(5)]
    Path("a.ndjson").write_text("\n".join(json.dumps(row) for row in rows))
    api.max_body_bytes = 300
    summary = send(api, ENTITIES, "a.ndjson")
    assert [item["externalId"] for item in api.stored] == ["0", "1", "2", "4"]
    (failure,) = summary.failures
    assert (failure.code, failure.count, failure.rows) == ("PAYLOAD_TOO_LARGE", 1, [4])


def test_loading_events_again_within_a_day_sends_none_twice(api: FakeApi) -> None:
    source = numbered(20)
    send(api, EVENTS, source, batch_size=10)
    summary = send(api, EVENTS, source, batch_size=10)
    assert len(api.stored) == 20
    assert (summary.succeeded, summary.already_loaded) == (20, 20)


def test_events_that_were_refused_get_another_try_when_loaded_again(api: FakeApi) -> None:
    source = numbered(10)
    api.refuse = lambda item: (
        ("NOT_FOUND", "no such entity") if item["externalId"] in {"p3", "p7"} else None
    )
    assert send(api, EVENTS, source).failed == 2
    again = send(api, EVENTS, source)
    assert (again.succeeded, again.already_loaded, again.failed) == (8, 8, 2)
    assert again.failures[0].rows == [4, 8]
    api.refuse = lambda _item: None
    healed = send(api, EVENTS, source)
    assert (healed.succeeded, healed.already_loaded, healed.failed) == (10, 8, 0)
    assert sorted(item["externalId"] for item in api.stored) == [f"p{n}" for n in range(10)]
    # The third load delivered them, so a fourth finds everything done.
    assert send(api, EVENTS, source).already_loaded == 10
    assert len(api.stored) == 10


def test_two_batches_of_the_same_events_are_both_sent(api: FakeApi) -> None:
    Path("a.csv").write_text("id\n" + "p1\n" * 6)
    send(api, EVENTS, "a.csv", batch_size=3)
    assert len(api.stored) == 6


@pytest.mark.parametrize("kind", [ENTITIES, STATES])
def test_loading_an_older_file_again_overwrites(api: FakeApi, kind: Kind) -> None:
    Path("old.csv").write_text("id,n\n1,1\n")
    Path("new.csv").write_text("id,n\n1,2\n")
    for source in ("old.csv", "new.csv", "old.csv"):
        send(api, kind, source)
    assert [item[kind.payload]["n"] for item in api.stored] == [1, 2, 1]


def test_a_server_that_comes_back_is_carried_on_with(
    load: Run, players: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeApi()
    monkeypatch.setenv("OPDATA_API_KEY", KEY)
    fake.script += [HANG_UP] * 3 + [error(503, "UNAVAILABLE", Retry_After="1")]
    with fake.running():
        ran = load(
            "entities", players(2_500), "--entity-type", "player", "--url", fake.url + "/", "--json"
        )
    assert ran.code == 0
    assert ran.summary["waits"] == {"unreachable": 3, "unavailable": 1}
    assert sorted(item["externalId"] for item in fake.stored) == sorted(
        f"p{number}" for number in range(2_500)
    )


def test_a_server_error_that_stays_is_no_endless_loop(api: FakeApi) -> None:
    api.script += [error(500, "INTERNAL_ERROR", "Internal server error")] * 10
    summary = send(api, ENTITIES, numbered(1))
    assert summary.stopped is not None
    assert summary.stopped.reason == "unavailable"
    assert summary.unanswered == 1
    assert len(api.received) == 4


def test_an_answer_that_does_not_add_up_stops_the_load(api: FakeApi) -> None:
    answer = {"success": True, "data": {"succeeded": 1, "failed": 0, "errors": []}}
    api.script.append(error(200, "")._replace(payload=answer))
    summary = send(api, ENTITIES, numbered(2))
    assert summary.stopped is not None
    assert "does not account for every item" in summary.stopped.message


def test_large_rows_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opdata.loader.duck._BLOCK_BYTES", 50_000)
    Path("a.csv").write_text("id,text\n" + "".join(f"{n},{'x' * 500}\n" for n in range(2_000)))
    with Source(Selection(ENTITIES, ["a.csv"], None, "x")) as source:
        sizes = [len(block) for block in source.blocks()]
    assert sum(sizes) == 2_000
    assert max(sizes[1:]) < 100


def test_the_cut_does_not_depend_on_how_rows_were_read() -> None:
    rows = [(b"x" * (n % 40), None) for n in range(100)]
    whole = [(batch.number, batch.rows, batch.items) for batch in cut_batches([rows], 9, 150)]
    singly = cut_batches([[row] for row in rows], 9, 150)
    assert [(batch.number, batch.rows, batch.items) for batch in singly] == whole
    assert all(len(batch.body) <= 150 for batch in cut_batches([rows], 9, 150))
    assert [len(items) for _, _, items in whole if len(items) == 9] != []


def test_a_batch_that_may_be_stored_is_not_sent_again_in_halves(api: FakeApi, load: Run) -> None:
    too_large = error(413, "PAYLOAD_TOO_LARGE")
    api.script.extend([lambda: None, too_large])
    ran = load("events", numbered(10), "--event-type", "x", "--json")
    assert ran.code == 2
    assert "rows 1 to 10 were sent before without an answer and are too large" in ran.err
    assert len(api.stored) == 10
    assert (ran.summary["unanswered"], ran.summary["unsent"]) == (10, 0)

    api.script.extend([lambda: None, too_large])
    assert load("entities", numbered(10), "--entity-type", "x").code == 0


def test_a_refusal_after_a_lost_answer_does_not_say_that_nothing_is_stored(
    api: FakeApi, load: Run
) -> None:
    api.script.extend([lambda: None, error(401, "UNAUTHORIZED")])
    ran = load("events", numbered(10), "--event-type", "x", "--json")
    assert ran.code == 3
    assert len(api.stored) == 10
    assert (ran.summary["unanswered"], ran.summary["unsent"]) == (10, 0)


def test_what_was_refused_of_a_batch_that_cannot_be_delivered_is_in_the_rejects(
    api: FakeApi, load: Run
) -> None:
    api.refuse = lambda item: ("NOT_FOUND", "none") if item["externalId"] == "p1" else None
    answers = iter([error(413, "PAYLOAD_TOO_LARGE"), None, error(401, "UNAUTHORIZED")])
    execute = api._answer_once
    api._answer_once = lambda request: next(answers) or execute(request)  # type: ignore[method-assign]
    ran = load("events", numbered(10), "--event-type", "x", "--rejects", "r", "--json")
    assert ran.code == 3
    assert [json.loads(line)["row"] for line in Path("r").read_text().splitlines()] == [2]
    assert (ran.summary["failed"], ran.summary["succeeded"]) == (1, 4)


def test_an_answer_that_names_an_item_twice_does_not_add_up(api: FakeApi, load: Run) -> None:
    twice = [{"index": 0, "code": "NOT_FOUND", "message": "none"}] * 2
    data = {"succeeded": 9, "failed": 1, "errors": twice}
    api.script.append(Reply(200, {"success": True, "data": data}))
    ran = load("events", numbered(10), "--event-type", "x", "--rejects", "r")
    assert ran.code == 2
    assert "does not account for every item" in ran.err
    assert Path("r").read_text() == ""


def test_a_load_that_failed_ends_while_its_source_says_nothing(
    api: FakeApi, load: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    source = os.fdopen(writing, "w")
    # The source would end by itself, late, so that a load that waits for it fails and does not hang.
    late = threading.Timer(20, source.close)
    late.start()
    source.write("".join(f'{{"externalId":"p{n}"}}\n' for n in range(1_000)))
    source.flush()
    with os.fdopen(reading) as piped:
        monkeypatch.setattr("sys.stdin", piped)
        api.script.append(error(401, "UNAUTHORIZED"))
        ran = load("events", "-", "--format", "ndjson", "--event-type", "x", "--batch-size", "500")
    late.cancel()
    late.join()
    assert ran.code == 3
    assert not source.closed
    source.close()
