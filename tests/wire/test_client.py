"""The Python client against a real server; and the server it is tested with does the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest

from opdata import (
    AsyncClient,
    Backoff,
    Client,
    ClientError,
    Conflict,
    Job,
    QueuedBatches,
    Refused,
    RetentionPolicy,
    RetentionWindow,
)
from opdata.testing import FakeServer
from tests.support.broken_line import BrokenLine
from tests.support.client_items import PLAYER, balance, bet, bets, entity
from tests.support.running import RunningServer

AT = datetime(2026, 4, 6, 12, 0, 1, 500_000, UTC)
EARLIER = datetime(2026, 4, 6, 11, 0, tzinfo=UTC)
QUICK = Backoff(base_delay_s=0.01, max_delay_s=0.05)
VARIES = re.compile(r"\b(job|ent|key)_[0-9a-f]{16}\b|\beev_[0-9a-f]{32}\b")


def connected(server: RunningServer, **options: Any) -> Client:
    client = Client(server.url, server.new_key(), **options)
    client.update_settings(template_id="tpl_igaming")
    return client


def entity_batches(client: Client) -> Any:
    rows: list[Any] = [
        entity("c1", first_name="Ann"),
        entity("c2"),
        5,
        {},
        {"entityType": "player", "externalId": 7, "data": []},
        {"entityType": "player", "externalId": "", "data": {**PLAYER, "x": None}, "more": 1},
        entity("a" * 256),
        entity("c\n"),
        entity("c1", first_name="Bea", stake=Decimal("100.00")),
        entity("ü/ß %2F?#"),
    ]
    result = client.send_entities(rows)
    job = client.wait_for_job(result.job_ids[0])
    found = [client.get_entity(name) for name in ("c1", "c2", "ü/ß %2F?#")]
    return result, job.output, found, list(client.iter_entities())[:3]


def event_batches(client: Client) -> Any:
    rows: list[Any] = [
        bet("c1", Decimal("1.10"), occurred_at=AT, idempotency_key="e1"),
        bet("c1", Decimal("1.10"), occurred_at=AT, idempotency_key="e1"),
        bet("c1", Decimal("1.20"), occurred_at=AT, idempotency_key="e1"),
        bet("nobody"),
        bet("c2", 10**25, occurred_at=EARLIER),
        {"externalId": "c1", "eventType": "bonus", "data": {}, "occurredAt": "2026-04-06"},
        {"externalId": "c1", "eventType": "bonus", "data": 1, "occurredAt": 5},
        {"externalId": "c1", "eventType": None, "data": {}},
    ]
    result = client.send_events(rows)
    own = client.list_events("c1", event_type="game_activity", occurred_from=AT)
    none = client.list_events("c1", occurred_before=AT)
    both = sorted(client.iter_events(), key=lambda event: event.external_id)
    return result, own, none, both


def state_batches(client: Client) -> Any:
    rows: list[Any] = [
        balance("c1", Decimal("5.00"), observed_at=AT),
        balance("c1", Decimal("4.00"), observed_at=EARLIER),
        balance("c2", {"amount": Decimal("3.50")}),
        balance("c2", None),
        balance("nobody", 1),
        {"externalId": "c2", "stateKey": 3, "value": False},
    ]
    result = client.send_states(rows)
    listed = sorted(client.iter_states(state_key="balance"), key=lambda one: one.external_id)
    times = [state.observed_at for state in listed if state.external_id == "c1"]
    return result, client.get_state("c1", "balance"), client.get_states("c2"), times


def single_items(client: Client) -> Any:
    acks = [client.put_entity(entity("s1")), client.put_entity(entity("s1", vip_level=2))]
    first = client.add_event(bet("s1", 1), idempotency_key="single-1")
    again = client.add_event(bet("s1", 1), idempotency_key="single-1")
    assert first.id == again.id
    assert (first.is_duplicate, again.is_duplicate) == (False, True)
    client.put_state(balance("s1", {"value": 1, "observedAt": "x"}))
    client.put_state(balance("s1", False))
    state = client.get_state("s1", "balance").value
    client.delete_entity("s1")
    return acks, state, client.send_events([bet("s1")])


def repeats(client: Client) -> Any:
    first = client.send_events([bet("c2"), bet("nobody")], idempotency_key="r1")
    again = client.send_events([bet("c2"), bet("nobody")], idempotency_key="r1")
    return first, again, sum(1 for _ in client.iter_events("c2"))


def dry_runs(client: Client) -> Any:
    result = client.send_entities(list[Any]([entity("d1"), {}]), dry_run=True)
    return result, client.send_events([bet("d1")])


def queued_batches(client: Client) -> Any:
    players: list[Any] = [entity("q1"), 5, entity("q2"), {}, entity("q1", vip_level=2)]
    events: list[Any] = [
        bet("q1", 1, idempotency_key="q-1"),
        bet("nobody"),
        bet("q1", 1, idempotency_key="q-1"),
        {"externalId": "q1", "eventType": "bonus", "data": {"odds": float("nan")}},
        bet("q2", 2),
    ]
    queued: list[QueuedBatches[Any]] = [
        client.queue_entities(players, idempotency_key="q"),
        client.queue_events(events),
        client.queue_states([balance("q1", 1), balance("q1", Decimal("2.00")), balance("q9", 1)]),
    ]
    again = client.queue_entities(players, idempotency_key="q")
    results = [client.wait_for_batches(one) for one in queued]
    jobs = [client.get_job(job_id) for one in queued for job_id in one.job_ids]
    stored = [client.get_entity("q1").data, list(client.iter_events("q2"))]
    seen = [again.job_ids == queued[0].job_ids, again.batches[0].replayed]
    return results, jobs, stored, client.get_state("q1", "balance").value, seen


def pages(client: Client) -> Any:
    client.send_entities([entity(f"p{number:03}") for number in range(25)])
    page = client.list_entities(limit=10)
    second = client.list_entities(limit=10, cursor=page.next_cursor)
    names = [one.external_id for one in (*page, *second)]
    jobs = client.list_jobs(status="completed", job_type="batch_ingest_entities", limit=1)
    return names, jobs.next_cursor is not None, len(jobs.items)


def settings(client: Client) -> Any:
    before = client.get_settings().data_retention_days
    policy = RetentionPolicy(entity_events=RetentionWindow(30, 365))
    client.update_settings(data_retention_days=90, retention_policy=policy)
    after = client.update_settings(data_retention_days=None)
    return before, after.data_retention_days, after.retention_policy == policy


def api_keys(client: Client) -> Any:
    made = client.create_api_key("ci", scopes=["read"], expires_at=datetime(2999, 1, 1, tzinfo=UTC))
    renamed = client.rename_api_key(made.id, "ci-2")
    revoked = client.revoke_api_key(made.id)
    (listed,) = [key for key in client.list_api_keys() if key.id == made.id]
    return (
        (made.label, made.scopes, made.expires_at),
        (listed.label, listed.scopes, listed.expires_at),
        (renamed.label, revoked.revoked_at is not None),
    )


SCENARIOS: list[Callable[[Client], Any]] = [
    entity_batches,
    event_batches,
    state_batches,
    single_items,
    repeats,
    dry_runs,
    queued_batches,
    pages,
    settings,
    api_keys,
]


def plain(value: Any) -> Any:
    """A result as text that is the same for the same behaviour: ids and times of the day are not."""

    def show(kind: Any) -> Any:
        raise TypeError(type(kind))

    text = msgspec.json.encode(value, enc_hook=show).decode()
    text = re.sub(
        r'"(created_at|updated_at|recorded_at|completed_at|observed_at)":"[^"]*"', "", text
    )
    text = re.sub(r'"occurred_at":"(?!2026-04-06)[^"]*"', "", text)
    return VARIES.sub("id", text)


def test_the_fake_server_answers_as_the_real_one(server: RunningServer) -> None:
    fake = FakeServer()
    with connected(server) as real, fake.client() as imagined:
        assert real.is_ready()
        assert imagined.is_ready()
        for scenario in SCENARIOS:
            assert plain(scenario(imagined)) == plain(scenario(real)), scenario.__name__


def test_the_fake_server_refuses_as_the_real_one(server: RunningServer) -> None:
    calls: list[Callable[[Client], Any]] = [
        lambda client: client.get_entity("nobody"),
        lambda client: client.get_state("nobody", "balance"),
        lambda client: client.get_states("nobody"),
        lambda client: client.list_events("nobody"),
        lambda client: client.get_job("job_0000000000000000"),
        lambda client: client.cancel_job("job_0000000000000000"),
        lambda client: client.cancel_job(client.send_entities([entity("a")]).job_ids[0]),
        lambda client: client.delete_entity("nobody"),
        lambda client: client.add_event(bet("nobody")),
        lambda client: client.put_state(balance("nobody", 1)),
        lambda client: client.rename_api_key("key_0000000000000000", "x"),
        lambda client: client.list_entities(limit=1_001),
        lambda client: [
            client.send_entities([entity(name)], idempotency_key="reused") for name in "ab"
        ],
        lambda client: [
            client.add_event(bet("a", amount, idempotency_key="k")) for amount in (1, 2)
        ],
    ]

    def outcome(call: Callable[[Client], Any], client: Client) -> tuple[int, str]:
        with pytest.raises(Refused) as raised:
            call(client)
        return raised.value.status, raised.value.code

    with connected(server) as real, FakeServer().client() as imagined:
        for number, call in enumerate(calls):
            assert outcome(call, imagined) == outcome(call, real), number
    with Client(server.url, "oh_live_nonsense") as stranger:
        assert outcome(lambda client: client.get_settings(), stranger) == (401, "UNAUTHORIZED")
    with Client(server.url, server.new_key("default")) as real, pytest.raises(ClientError):
        real.update_settings(template_id="tpl_none")


def test_no_event_is_doubled_or_lost_over_a_line_that_breaks_mid_answer(
    server: RunningServer,
) -> None:
    with connected(server) as client:
        client.send_entities([entity("broken-line")])
        line = BrokenLine(server.port, most_bytes=900, seed=7)
        with (
            line.up(),
            Client(line.url, server.new_key(), backoff=QUICK, chunk_items=20) as far,
        ):
            result = far.send_events(bets(400, "broken-line"))
            parallel = far.send_events(bets(400, "broken-line"), concurrency=4)
        stored = Counter(event.data["bet_amount"] for event in client.iter_events("broken-line"))
    assert (result.succeeded, parallel.succeeded) == (400, 400)
    assert line.broken > 10
    assert stored == Counter(dict.fromkeys(range(400), 2))


def test_nothing_queued_is_doubled_or_lost_over_a_line_that_breaks_mid_answer(
    server: RunningServer,
) -> None:
    with connected(server) as client:
        client.send_entities([entity("queued-line")])
        line = BrokenLine(server.port, most_bytes=900, seed=9)
        with (
            line.up(),
            Client(line.url, server.new_key(), backoff=QUICK, chunk_items=20) as far,
        ):
            queued = far.queue_events(bets(400, "queued-line"))
        result = client.wait_for_batches(queued)
        stored = [event.data["bet_amount"] for event in client.iter_events("queued-line")]
        jobs = {job.id for job in client.iter_jobs(job_type="batch_ingest_events")}
    assert (result.succeeded, line.broken > 5) == (400, True)
    assert sorted(stored) == list(range(400))
    assert set(queued.job_ids) <= jobs
    assert len(set(queued.job_ids)) == 20


def test_a_cancelled_job_has_stored_what_it_counts_and_stores_no_more(
    server: RunningServer,
) -> None:
    def stored(client: Client) -> int:
        return sum(1 for _ in client.iter_events("cancelled"))

    def ended(client: Client, job_id: str) -> Job:
        try:
            return client.cancel_job(job_id, idempotency_key=job_id)
        except Conflict:  # the server was faster
            return client.wait_for_job(job_id)

    with connected(server) as client:
        client.send_entities([entity("cancelled")])
        queued = client.queue_events(bets(15_000, "cancelled"))
        jobs = [ended(client, job_id) for job_id in reversed(queued.job_ids)]
        # As after an answer that was lost.
        assert ended(client, queued.job_ids[-1]) == jobs[0]
        found = stored(client)
        client.wait_for_batches(client.queue_states([balance("cancelled", 1)]))
        assert [client.get_job(job.id) for job in jobs] == jobs
        assert stored(client) == found == sum(job.output.succeeded for job in jobs if job.output)
    assert jobs[0].status == "cancelled"


def test_the_same_line_doubles_the_events_of_a_loop_written_by_hand(server: RunningServer) -> None:
    with connected(server) as client:
        client.send_entities([entity("by-hand")])
        line = BrokenLine(server.port, most_bytes=900, seed=7)
        headers = {"Authorization": f"Bearer {server.new_key()}"}
        items = [msgspec.to_builtins(each, enc_hook=str) for each in bets(400, "by-hand")]
        with line.up(), httpx2.Client(base_url=line.url, headers=headers) as http:
            for start in range(0, 400, 20):
                post_until_answered(http, items[start : start + 20])
        stored = Counter(event.data["bet_amount"] for event in client.iter_events("by-hand"))
    assert set(stored) == set(range(400))
    assert stored.total() > 400


def post_until_answered(http: httpx2.Client, items: list[Any]) -> None:
    while True:
        try:
            http.post("/operator-data-api/batch/events", json=items).raise_for_status()
        except httpx2.TransportError:
            continue
        return


async def test_the_asynchronous_client_does_the_same(server: RunningServer) -> None:
    key = server.new_key()
    line = BrokenLine(server.port, most_bytes=900, seed=8)
    async with AsyncClient(server.url, key) as client:
        await client.update_settings(template_id="tpl_igaming")
        await client.send_entities([entity("async-1")])
        with line.up():
            async with AsyncClient(line.url, key, backoff=QUICK, chunk_items=20) as far:
                result = await far.send_events(bets(400, "async-1"), concurrency=4)
        stored = [event.data["bet_amount"] async for event in client.iter_events("async-1")]
    assert result.succeeded == 400
    assert sorted(stored) == list(range(400))
    assert line.broken > 5
