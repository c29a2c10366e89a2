"""One request and its repetitions: what is retried, for how long, under which key, and how it ends."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import opdata
from opdata import (
    Backoff,
    Client,
    ClientError,
    Conflict,
    ForeignAnswer,
    InternalError,
    OutcomeUnknown,
    RateLimited,
    Refused,
    State,
    Unavailable,
    Unreachable,
)
from opdata.client.errors import BY_CODE
from opdata.errors import WireError
from opdata.testing import FakeServer
from tests.support.client_items import bet, bets, entity


@pytest.fixture
def with_player(fake: FakeServer, client: Client) -> FakeServer:
    client.send_entities([entity("p1")])
    fake.requests.clear()
    return fake


Break = Callable[[FakeServer], None]
TROUBLES: dict[str, Break] = {
    "an answer that is lost": lambda fake: fake.lose_answers(),
    "a connection that fails": lambda fake: fake.refuse_connections(),
    "429": lambda fake: fake.answer_next(429),
    "503": lambda fake: fake.answer_next(503),
    "500": lambda fake: fake.answer_next(500),
    "a proxy's 502": lambda fake: fake.answer_next(502, retry_after_s=None),
    "a request still in flight": lambda fake: fake.answer_next(409),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_passing_trouble_doubles_nothing(
    with_player: FakeServer, client: Client, trouble: str
) -> None:
    TROUBLES[trouble](with_player)
    TROUBLES[trouble](with_player)
    result = client.send_events(bets(10))

    assert (result.succeeded, result.replayed) == (10, 0)
    assert [event.data["bet_amount"] for event in with_player.events] == list(range(10))
    assert len(with_player.requests) == 3
    assert len({request.idempotency_key for request in with_player.requests}) == 1
    assert len(with_player.time.slept_s) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda client, key: client.put_entity(entity("p2"), idempotency_key=key),
        lambda client, key: client.delete_entity("p1", idempotency_key=key),
        lambda client, key: client.add_event(bet("p1"), idempotency_key=key),
        lambda client, key: client.update_settings(data_retention_days=9, idempotency_key=key),
        lambda client, key: client.put_state(
            opdata.State(external_id="p1", state_key="balance", value=1), idempotency_key=key
        ),
    ],
    ids=["put_entity", "delete_entity", "add_event", "update_settings", "put_state"],
)
@pytest.mark.parametrize("key", [None, "mine"])
def test_every_write_has_a_key_and_survives_a_lost_answer(
    with_player: FakeServer, client: Client, call: Callable[[Client, str | None], Any], key: str
) -> None:
    with_player.lose_answers()
    call(client, key)
    first, second = with_player.requests
    assert first.idempotency_key == second.idempotency_key == (key or first.idempotency_key)
    assert first.idempotency_key
    assert len(with_player.events) <= 1


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "\n"])
def test_a_key_that_cannot_be_sent_is_refused_here(client: Client, key: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        client.put_entity(entity("p1"), idempotency_key=key)
    with pytest.raises(ValueError, match="visible ASCII"):
        client.send_entities([entity("p1")], idempotency_key=key)


def test_retry_after_is_waited_for_and_never_cut_short(fake: FakeServer, client: Client) -> None:
    fake.answer_next(429, retry_after_s=7)
    fake.answer_next(503, retry_after_s=20)
    client.get_settings()
    first, second = fake.time.slept_s
    assert 7 <= first <= 7.25
    assert 20 <= second <= 20.25


def test_waits_double_with_full_jitter(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[float, float]] = []

    def most(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", most)
    fake.refuse_connections(5)
    with fake.client(
        backoff=Backoff(base_delay_s=0.5, max_delay_s=4, first_contact_s=99)
    ) as client:
        client.get_settings()
    assert bounds == [(0, 0.5), (0, 1), (0, 2), (0, 4), (0, 4)]
    assert fake.time.slept_s == [0.5, 1, 2, 4, 4]


def test_a_write_whose_answer_never_comes_ends_with_its_key_and_can_be_repeated(
    with_player: FakeServer, client: Client
) -> None:
    with_player.lose_answers(1_000)
    with pytest.raises(OutcomeUnknown) as raised:
        client.send_events(bets(10))
    error = raised.value
    assert (error.retryable, error.outcome_unknown) == (True, True)
    assert with_player.time.at_s <= 120
    assert "may have been carried out" in error.message
    assert len(with_player.events) == 10

    with_player._faults.clear()
    again = client.send_events(bets(10), idempotency_key=error.idempotency_key)
    assert (again.succeeded, again.replayed) == (10, 1)
    assert len(with_player.events) == 10


def test_a_batch_call_that_stopped_half_way_is_completed_under_its_key(fake: FakeServer) -> None:
    with fake.client(chunk_items=10) as client:
        client.send_entities([entity("p1")])
        chunks = client.stream_events(bets(35), idempotency_key="night-1")
        next(chunks)
        fake.answer_next(503, times=1_000)
        with pytest.raises(Unavailable):
            next(chunks)
        fake._faults.clear()
        fake.answer_next(401)
        with pytest.raises(Refused) as raised:
            client.send_events(bets(35), idempotency_key="night-1")
        assert raised.value.idempotency_key == "night-1"
        assert raised.value.partial is not None
        assert raised.value.partial.succeeded == 0
        result = client.send_events(bets(35), idempotency_key="night-1")
    assert (result.succeeded, result.chunks, result.replayed) == (35, 4, 1)
    assert [event.data["bet_amount"] for event in fake.events] == list(range(35))


def test_what_was_acknowledged_before_an_error_is_told(fake: FakeServer) -> None:
    with fake.client(chunk_items=10, deadline_s=5) as client:
        client.send_entities([entity("p1")])

        def rows() -> Any:
            yield from bets(25)
            fake.refuse_connections(1_000)
            yield from bets(15)

        with pytest.raises(Unreachable) as raised:
            client.send_events(rows())
    partial = raised.value.partial
    assert partial is not None
    assert (partial.succeeded, partial.chunks) == (20, 2)
    assert len(fake.events) == 20


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (lambda fake: fake.refuse_connections(1_000), Unreachable),
        (lambda fake: fake.answer_next(429, times=1_000), RateLimited),
        (lambda fake: fake.answer_next(503, times=1_000), Unavailable),
        (lambda fake: fake.answer_next(409, times=1_000), OutcomeUnknown),
        (lambda fake: fake.answer_next(504, times=1_000), OutcomeUnknown),
    ],
)
def test_a_deadline_ends_all_patience(
    fake: FakeServer, client: Client, trouble: Break, kind: type[ClientError]
) -> None:
    client.get_settings()
    trouble(fake)
    with pytest.raises(Unreachable) as raised:
        client.within(30).put_entity(entity("p1"))
    assert type(raised.value) is kind
    assert raised.value.retryable
    assert raised.value.outcome_unknown == (kind is OutcomeUnknown)
    assert raised.value.idempotency_key == fake.requests[-1].idempotency_key
    assert 15 <= fake.time.at_s <= 30


def test_a_read_that_is_not_answered_leaves_nothing_unknown(
    fake: FakeServer, client: Client
) -> None:
    fake.lose_answers(1_000)
    with pytest.raises(Unreachable) as raised:
        client.get_settings()
    assert (type(raised.value), raised.value.outcome_unknown) == (Unreachable, False)


def test_a_server_never_heard_of_is_given_up_soon(fake: FakeServer, client: Client) -> None:
    fake.refuse_connections(1_000)
    with pytest.raises(Unreachable):
        client.get_settings()
    assert fake.time.at_s <= 10


def test_a_fault_of_the_server_is_met_four_times_and_no_more(
    fake: FakeServer, client: Client
) -> None:
    fake.answer_next(500, times=10)
    with pytest.raises(InternalError) as raised:
        client.put_entity(entity("p1"))
    assert len(fake.requests) == 4
    error = raised.value
    assert (error.status, error.code, error.request_id) == (500, "INTERNAL_ERROR", "req_4")
    assert error.outcome_unknown
    assert error.idempotency_key


def test_a_key_is_never_made_twice_whatever_is_lost(fake: FakeServer, client: Client) -> None:
    fake.lose_answers()
    with pytest.raises(OutcomeUnknown, match="look before repeating it") as raised:
        client.create_api_key("ci")
    assert raised.value.idempotency_key is None
    assert [key.label for key in client.list_api_keys()] == ["ci"]
    fake.refuse_connections()
    fake.answer_next(503)
    assert client.create_api_key("sure").label == "sure"
    assert len(client.list_api_keys()) == 2


def test_there_is_an_exception_for_each_code_of_the_contract() -> None:
    def codes(kind: type[WireError]) -> dict[str, bool]:
        own = {kind.code: kind.retryable} if "code" in vars(kind) else {}
        return {**own, **{c: r for each in kind.__subclasses__() for c, r in codes(each).items()}}

    known = codes(WireError)
    assert BY_CODE.keys() == known.keys()
    assert len(set(BY_CODE.values())) == len(BY_CODE)
    for code, kind in BY_CODE.items():
        assert getattr(opdata, kind.__name__) is kind
        assert kind.retryable == (known[code] or code == "INTERNAL_ERROR")


@pytest.mark.parametrize("code", BY_CODE)
def test_a_code_raises_its_exception_with_status_and_request_id(code: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        body = {
            "success": False,
            "error": {"code": code, "message": "because"},
            "resetAt": "2026-04-06T12:00:01.500Z",
        }
        return httpx2.Response(418, json=body, headers={"X-Request-Id": "r1"})

    with (
        Client("http://x", "k", http=httpx2.MockTransport(answer)) as client,
        pytest.raises(BY_CODE[code]) as raised,
    ):
        client.get_settings()
    error = raised.value
    assert type(error) is BY_CODE[code]
    assert (error.status, error.code, error.message, error.request_id) == (
        418,
        code,
        "because",
        "r1",
    )


def test_a_rate_limit_tells_when_it_ends() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        body = {
            "success": False,
            "error": {"code": "RATE_LIMITED", "message": "Rate limit exceeded for read"},
            "resetAt": "2026-04-06T12:00:01.500Z",
        }
        return httpx2.Response(429, json=body, headers={"Retry-After": "999"})

    with (
        Client("http://x", "k", http=httpx2.MockTransport(answer)) as client,
        pytest.raises(RateLimited, match="Rate limit exceeded for read") as raised,
    ):
        client.get_settings()
    assert raised.value.reset_at is not None
    assert raised.value.reset_at.utcoffset() == timedelta(0)


def test_a_conflict_for_good_is_not_waited_for(with_player: FakeServer, client: Client) -> None:
    client.add_event(bet("p1", 1, idempotency_key="b1"))
    with pytest.raises(Conflict) as raised:
        client.add_event(bet("p1", 2, idempotency_key="b1"))
    assert not raised.value.retryable
    assert with_player.time.slept_s == []


@pytest.mark.parametrize(
    "content", [b"<html>", b"{}", b'{"success":true}', b'{"success":true,"data":{"items":3}}']
)
def test_another_programs_answer_is_said_to_be_one(content: bytes) -> None:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, content=content))
    with Client("http://x", "k", http=transport) as client:
        with pytest.raises(ForeignAnswer):
            client.list_entities()
        with pytest.raises(ForeignAnswer) as raised:
            client.send_entities([entity("p1")])
    assert raised.value.outcome_unknown


def test_errors_can_be_handed_between_processes(client: Client) -> None:
    with pytest.raises(opdata.NotFound) as raised:
        client.get_entity("nobody")
    copy = pickle.loads(pickle.dumps(raised.value))
    assert type(copy) is opdata.NotFound
    assert str(copy) == str(raised.value) == "Entity not found"
    assert (copy.status, copy.request_id) == (404, "req_1")


def test_neither_keys_nor_values_nor_ids_are_logged_or_shown(
    fake: FakeServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "opdata.client")
    fake.answer_next(503)
    secret = entity("secret-id", email="secret@example.com")
    client.send_entities([secret])
    stored = client.get_entity("secret-id")
    result = client.send_events([bet("secret-nobody", "secret-stake")])
    made = client.create_api_key("label")

    logged = [record.getMessage() for record in caplog.records if record.name == "opdata.client"]
    assert "GET /entities/{externalId}: attempt 1: HTTP 200, request id req_3" in logged
    assert any("POST /batch/entities: unavailable; attempt 2 in" in line for line in logged)
    shown = [*logged, repr(client), repr(stored), repr(made), repr(result)]
    shown += [repr(client.within(1)), repr(client._transport)]
    shown += [repr(secret.data.keys()), repr(result.errors[0]), repr(bet("p", "secret-stake"))]
    text = "\n".join(shown)
    assert repr(client) == "Client('http://opdata.test')"
    assert fake.api_key not in text
    assert made.key not in text
    assert "secret@" not in repr(secret) + text
    assert "secret-stake" not in text
    assert "secret-id" not in "\n".join(logged)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x", "k"),
        ("127.0.0.1:8080", "k"),
        ("http://user:hunter2@x", "k"),
        ("http://x", "hunter2\n2"),
        ("http://x", ""),
    ],
)
def test_a_url_or_key_that_cannot_be_one_is_refused_without_showing_it(
    url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPDATA_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"url|api_key") as raised:
        Client(url, key)
    assert "hunter2" not in str(raised.value)


def test_url_and_key_come_from_the_environment(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_URL", "http://opdata.test/")
    monkeypatch.setenv("OPDATA_API_KEY", fake.api_key)
    with Client(http=fake.http) as client:
        assert client.get_settings().template is not None


@pytest.mark.parametrize("name", [".", "..", "a/b", "%2e"])
def test_every_id_can_be_addressed(fake: FakeServer, client: Client, name: str) -> None:
    client.put_entity(entity(name))
    client.put_state(State(external_id=name, state_key=name, value=5))
    assert client.get_entity(name).external_id == name
    assert client.get_state(name, name).value == 5
    assert list(fake.states) == [(name, name)]
    client.delete_entity(name)
    assert name not in fake.entities
