"""What is known of a write when the answer to one of its attempts was lost."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from opdata import Client, TooLarge, Unauthorized
from opdata.client.sync.transport import Transport
from opdata.client.transport import AsyncTransport
from opdata.testing import FakeServer
from opdata.testing.fake_answers import error
from tests.support.client_items import balance, bets, entity

EVENTS = [{"externalId": "p1", "eventType": "bonus", "data": {"n": n}} for n in range(10)]
LARGE = bytes(20_000_000)
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"success":true,"data":{}}'


def answers_next(fake: FakeServer, status: int, code: str) -> None:
    fake._faults.append(lambda _execute: error(status, code, code))


@contextmanager
def server_that_hangs_up_while_it_is_sent_to() -> Iterator[str]:
    """Reads a little of the first request and breaks the connection, and answers the second."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            first, _ = listening.accept()
            first.recv(1_000)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
            second, _ = listening.accept()
            with second:
                left = len(LARGE)
                while left > 0:
                    left -= len(second.recv(1_000_000))
                second.sendall(ANSWER)
                second.recv(1_000_000)

        serving = threading.Thread(target=serve)
        serving.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        serving.join()


def test_events_that_may_be_stored_are_not_sent_again_in_halves(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    fake.lose_answers()
    fake.answer_next(413)
    with pytest.raises(TooLarge) as caught:
        client.send_events(bets(100), idempotency_key="k")
    assert caught.value.outcome_unknown
    assert caught.value.idempotency_key == "k"
    assert len(fake.events) == 100
    assert client.send_events(bets(100), idempotency_key="k").succeeded == 100
    assert len(fake.events) == 100


def test_what_cannot_be_doubled_is_halved_all_the_same(fake: FakeServer, client: Client) -> None:
    client.send_entities([entity("p1")])
    fake.lose_answers()
    fake.answer_next(413)
    keyed = [{**event, "idempotencyKey": f"k{n}"} for n, event in enumerate(EVENTS)]
    assert client.send_events(keyed).succeeded == 10
    fake.lose_answers()
    fake.answer_next(413)
    assert client.send_states(balance("p1", n) for n in range(10)).succeeded == 10
    assert len(fake.events) == 10
    assert fake.states["p1", "balance"].value == 9


def test_a_refusal_after_a_lost_answer_leaves_the_outcome_unknown(
    fake: FakeServer, client: Client
) -> None:
    client.send_entities([entity("p1")])
    fake.lose_answers()
    answers_next(fake, 401, "UNAUTHORIZED")
    with pytest.raises(Unauthorized) as caught:
        client.send_events(EVENTS)
    assert caught.value.outcome_unknown
    assert not caught.value.changed_nothing
    assert len(fake.events) == 10


def test_a_refusal_of_the_only_attempt_says_that_nothing_was_done(
    fake: FakeServer, client: Client
) -> None:
    answers_next(fake, 401, "UNAUTHORIZED")
    with pytest.raises(Unauthorized) as caught:
        client.send_events(EVENTS)
    assert not caught.value.outcome_unknown
    assert caught.value.changed_nothing


def test_a_request_that_the_other_side_did_not_take_to_its_end_was_not_carried_out() -> None:
    with server_that_hangs_up_while_it_is_sent_to() as url, Transport(url, "k") as transport:
        assert not transport.post("/batch/events", LARGE).unsure

    async def post(url: str) -> bool:
        async with AsyncTransport(url, "k") as transport:
            return (await transport.post("/batch/events", LARGE)).unsure

    with server_that_hangs_up_while_it_is_sent_to() as url:
        assert not asyncio.run(post(url))
