"""Batches of any size: how they are cut, what comes back, and what it is tied to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from opdata import Client, Entity, Event, ItemsRefused, State
from opdata.testing import FakeServer
from tests.support.client_items import balance, bet, bets, entity


@dataclass
class Row:
    """A user's own object: the client must hand back this one, not a copy."""

    player: str
    stake: Decimal


def sizes(fake: FakeServer) -> list[int]:
    return [len(request.body) for request in fake.requests]


def test_rows_are_cut_at_the_most_that_each_endpoint_takes(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities(entity(f"p{n}") for n in range(2_001))
    client.send_events(bets(5_001))
    client.send_states(balance("p1", n) for n in range(1_000))

    assert sizes(fake) == [1_000, 1_000, 1, 5_000, 1, 1_000]
    assert len(fake.entities) == 2_001
    assert [event.data["bet_amount"] for event in fake.events] == list(range(5_001))
    assert fake.states["p1", "balance"].value == 999


def test_nothing_is_sent_of_nothing(fake: FakeServer, client: Client) -> None:
    assert client.send_events([]).total == 0
    assert fake.requests == []


def test_rows_are_drawn_only_as_they_are_sent(fake: FakeServer) -> None:
    drawn = 0

    def rows() -> Iterator[Entity]:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            yield entity(f"p{number}")

    with fake.client(chunk_items=10) as client:
        chunks = client.stream_entities(rows())
        assert drawn == 0
        first = next(chunks)

    assert (first.start, len(first.rows), len(fake.entities)) == (0, 10, 10)
    assert drawn == 11


def test_a_refused_row_is_handed_back_itself_with_its_position(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    rows = [Row("p1", Decimal(1)), Row("nobody", Decimal(2)), Row("p1", Decimal(3))] * 2_000

    result = client.send_events(rows, to_item=lambda row: bet(row.player, row.stake))

    assert (result.succeeded, result.failed, result.total, result.chunks) == (
        4_000,
        2_000,
        6_000,
        2,
    )
    assert [error.index for error in result.errors] == list(range(1, 6_000, 3))
    assert all(error.row is rows[error.index] for error in result.errors)
    assert {(error.code, error.external_id) for error in result.errors} == {("NOT_FOUND", "nobody")}
    assert len(fake.events) == 4_000


def test_refusals_can_be_made_an_exception(client: Client) -> None:
    result = client.send_states([balance(f"secret-{n}", 1) for n in range(5)])
    with pytest.raises(ItemsRefused, match="5 of 5 items were refused: row 0: NOT_FOUND") as raised:
        result.raise_for_errors()
    assert raised.value.result is result
    client.send_states([]).raise_for_errors()


def test_items_may_be_objects_of_the_wire_contract(fake: FakeServer, client: Client) -> None:
    item = {"entityType": "game", "externalId": "g1", "data": {"name": "Roulette"}}
    assert client.send_entities([item, 5, {}]).failed == 2  # type: ignore[type-var] # on purpose
    assert fake.entities["g1"].data == {"name": "Roulette"}


def test_entities_and_states_are_sent_in_order_one_request_after_the_other(
    fake: FakeServer,
) -> None:
    fake.answer_next(503)
    fake.lose_answers()
    with fake.client(chunk_items=2) as client:
        client.send_entities([entity("p1", vip_level=level) for level in range(5)])
        assert fake.entities["p1"].data["vip_level"] == 4
        fake.answer_next(429)
        client.send_states([balance("p1", value) for value in range(5)])
    assert fake.states["p1", "balance"].value == 4


def test_a_body_is_cut_before_it_grows_over_its_bound(fake: FakeServer) -> None:
    fake.max_body_bytes = 1_000
    with fake.client(max_body_bytes=1_000) as client:
        client.send_entities([entity("p1")])
        client.send_events(bet("p1", "é" * 100 * (n % 4)) for n in range(20))
    assert all(request.status == 200 for request in fake.requests)
    assert len(fake.events) == 20
    assert len(fake.requests) > 5


def test_a_request_that_is_too_large_is_halved_until_it_passes(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    fake.requests.clear()
    fake.max_body_bytes = 500

    result = client.send_events(bets(20))

    assert (result.succeeded, result.failed, result.chunks) == (20, 0, 1)
    assert [event.data["bet_amount"] for event in fake.events] == list(range(20))
    keys = [request.idempotency_key for request in fake.requests]
    assert len(set(keys)) == len(keys) > 4


def test_a_proxys_413_halves_too(fake: FakeServer, client: Client) -> None:
    fake.answer_next(413)
    assert client.send_entities([entity("p1"), entity("p2")]).succeeded == 2
    assert sizes(fake) == [2, 1, 1]


def test_an_item_too_large_by_itself_is_refused_alone(fake: FakeServer, client: Client) -> None:
    fake.max_body_bytes = 400
    rows = [entity("p1"), entity("p2", note="x" * 500), entity("p3")]
    result = client.send_entities(rows)
    (error,) = result.errors
    assert (error.index, error.row, error.external_id) == (1, rows[1], "p2")
    assert error.code == "PAYLOAD_TOO_LARGE"
    assert set(fake.entities) == {"p1", "p3"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), 'Field "data.odds" must be a number that JSON has: NaN or infinite'),
        (Decimal("Infinity"), 'Field "data.odds" must be a number that JSON has: NaN or infinite'),
        (Decimal("sNaN"), 'Field "data.odds" must be a number that JSON has: NaN or infinite'),
        ({"deep": [1, Decimal("NaN")]}, 'Field "data.odds.deep[1]" must be a number'),
        (object(), 'Field "data.odds" holds a object, which JSON has no value for'),
        ("\ud800", "Item holds text that cannot be stored: a lone surrogate"),
    ],
)
def test_what_json_cannot_hold_costs_its_row_and_not_its_neighbours(
    fake: FakeServer, client: Client, value: Any, message: str
) -> None:
    rows = [entity("p1"), entity("p2", odds=value), entity("p3", odds=None)]
    result = client.send_entities(rows)
    (error,) = result.errors
    assert (error.index, error.external_id, error.code) == (1, "p2", "VALIDATION_FAILED")
    assert message in error.message
    assert error.row is rows[1]
    assert set(fake.entities) == {"p1", "p3"}


def test_a_number_too_large_for_a_float_is_a_number(fake: FakeServer, client: Client) -> None:
    large = Decimal("1e400")
    assert client.send_entities([entity("p1", odds=large, note=None)]).succeeded == 1
    assert fake.entities["p1"].data["odds"] == large


def test_a_chunk_of_nothing_that_json_can_hold_is_not_sent(
    fake: FakeServer, client: Client
) -> None:
    assert client.send_events([bet("p1", float("inf"))]).failed == 1
    assert fake.requests == []


def test_money_goes_out_and_comes_back_with_its_digits(fake: FakeServer, client: Client) -> None:
    amounts = [Decimal("100.00"), Decimal("12345678901234567890.12"), Decimal("1E+2"), 10**30, 7]
    client.send_entities([entity("p1", amounts=amounts, rate=0.1)])

    data = client.get_entity("p1").data
    assert [str(amount) for amount in data["amounts"]] == [str(amount) for amount in amounts]
    assert [type(amount) for amount in data["amounts"]] == [type(amount) for amount in amounts]
    assert data["rate"] == Decimal("0.1")


def test_times_are_aware_on_the_way_out_and_back(fake: FakeServer, client: Client) -> None:
    client.send_entities([entity("p1")])
    at = datetime(2026, 4, 6, 12, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    client.send_events([bet("p1", occurred_at=at)])
    client.send_states([balance("p1", 1, observed_at=at)])
    (event,) = client.iter_events("p1")
    assert event.occurred_at == at
    assert event.recorded_at.tzinfo is not None
    (state,) = client.iter_states()
    assert state.observed_at == at.astimezone(UTC)

    naive = datetime(2026, 4, 6)  # noqa: DTZ001 - the point
    for make in (lambda: bet("p1", occurred_at=naive), lambda: balance("p1", 1, observed_at=naive)):
        with pytest.raises(ValueError, match="must be an aware datetime"):
            make()
    with pytest.raises(ValueError, match="occurred_from must be an aware datetime"):
        client.list_events(occurred_from=naive)


def test_a_dry_run_writes_nothing_and_uses_no_key_up(fake: FakeServer, client: Client) -> None:
    result = client.send_entities(list[Any]([entity("p1"), {}]), dry_run=True)
    assert (result.succeeded, result.failed, result.dry_run, result.job_ids) == (1, 1, True, [])
    assert fake.entities == {}
    assert [(r.params, r.idempotency_key) for r in fake.requests] == [({"dryRun": "true"}, None)]


def test_each_entity_batch_leaves_its_job(fake: FakeServer) -> None:
    with fake.client(chunk_items=2) as client:
        result = client.send_entities([entity(f"p{n}") for n in range(3)])
        jobs = {job.id: job for job in client.iter_jobs()}
        assert set(result.job_ids) == set(jobs)
        assert client.wait_for_job(result.job_ids[0]).output == jobs[result.job_ids[0]].output
    assert fake.time.slept_s == []


def test_events_may_be_sent_several_requests_at_a_time_and_are_told_in_order(
    fake: FakeServer,
) -> None:
    fake.answer_next(503, times=3)
    with fake.client(chunk_items=7) as client:
        client.send_entities([entity("p1")])
        rows = [bet("p1" if n % 10 else "nobody", n) for n in range(100)]
        chunks = list(client.stream_events(rows, concurrency=4))
    assert [chunk.start for chunk in chunks] == list(range(0, 100, 7))
    assert [error.index for chunk in chunks for error in chunk.errors] == list(range(0, 100, 10))
    assert sorted(event.data["bet_amount"] for event in fake.events) == [
        n for n in range(100) if n % 10
    ]


def test_an_event_with_a_key_of_its_own_is_stored_once_and_counted(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    rows = [bet("p1", 1, idempotency_key="b1"), bet("p1", 1, idempotency_key="b1")]
    result = client.send_events([*rows, bet("p1", 2, idempotency_key="b1")])
    assert (result.succeeded, result.duplicates) == (2, 1)
    assert [(error.index, error.code) for error in result.errors] == [(2, "DUPLICATE_CONFLICT")]
    assert len(fake.events) == 1


def test_large_bodies_are_compressed_and_small_ones_are_not(fake: FakeServer) -> None:
    for threshold, compressed in [(1_000, [False, True]), (None, [False, False])]:
        fake.requests.clear()
        with fake.client(compress_above_bytes=threshold) as client:
            client.send_entities([entity("p1")])
            client.send_entities([entity(f"p{n}") for n in range(100)])
        assert [request.compressed for request in fake.requests] == compressed
    assert len(fake.entities) == 100


def test_members_that_were_not_given_are_not_sent(fake: FakeServer, client: Client) -> None:
    client.send_events([Event(external_id="p", event_type="session", data={})])
    client.send_states([State(external_id="p", state_key="balance", value=None)])
    assert fake.requests[0].body == [{"externalId": "p", "eventType": "session", "data": {}}]
    assert fake.requests[1].body == [{"externalId": "p", "stateKey": "balance", "value": None}]
    assert json.dumps(fake.requests[0].body)
