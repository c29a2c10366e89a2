"""What comes over a connection that is no well-behaved request: slow, endless, ambiguous, or no HTTP."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from opdata.api.connection import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED
from tests.support.api import player
from tests.support.running import RunningServer

HANGS_S = 30
"""Far beyond every deadline of the server: whoever waits so long waits for ever."""
BATCH = json.dumps([player("p1")]).encode()
PATH = b"/operator-data-api/batch/entities"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """What is received is the same on every store. Its deadlines are short, its limits low."""
    flags = ("--receive-timeout-s", "0.5", "--max-connections", "20", "--max-body-bytes", "65536")
    running = RunningServer(tmp_path_factory.mktemp("server") / "data", *flags).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def key(server: RunningServer) -> str:
    made = server.new_key()
    server.client(made).close()
    return made


class Line:
    """A connection of bytes."""

    def __init__(self, server: RunningServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=HANGS_S)

    def send(self, data: bytes) -> Line:
        self.socket.sendall(data)
        return self

    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        """All that comes until the server hangs up: status, headers and body of each."""
        received = b""
        while chunk := self.socket.recv(65_536):
            received += chunk
        return list(parsed(received))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next one, the connection being kept; a 100 before it is passed over."""
        received = b""
        while b"\r\n\r\n" not in received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""):
            received += self.piece()
        received = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self.piece()
        [one] = parsed(head + b"\r\n\r\n" + body)
        return one

    def piece(self) -> bytes:
        piece = self.socket.recv(65_536)
        assert piece, "hung up"
        return piece

    def close(self) -> None:
        self.socket.close()


def parsed(received: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        yield int(status.split()[1]), headers, rest[:length]
        received = rest[length:]


@pytest.fixture
def line(server: RunningServer) -> Iterator[Line]:
    with closing(Line(server)) as made:
        yield made


def head(key: str, *headers: bytes, method: bytes = b"POST", path: bytes = PATH) -> bytes:
    lines = [
        method + b" " + path + b" HTTP/1.1",
        b"Host: x",
        b"Authorization: Bearer " + key.encode(),
    ]
    return b"\r\n".join([*lines, *headers, b"", b""])


def get(key: str, path: bytes = b"/templates", *headers: bytes) -> bytes:
    return head(key, *headers, method=b"GET", path=b"/operator-data-api" + path)


def post(key: str, body: bytes = BATCH, *headers: bytes) -> bytes:
    return head(key, b"Content-Length: %d" % len(body), *headers) + body


def code_of(body: bytes) -> str:
    answer = json.loads(body)
    assert answer["success"] is False
    return str(answer["error"]["code"])


def only_refusal(line: Line, status: int, code: str) -> dict[str, str]:
    """It is answered in the envelope, with a request id, and hung up on."""
    [(got, headers, body)] = line.answers()
    assert (got, code_of(body)) == (status, code)
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
    return headers


def refused(server: RunningServer, reason: str) -> float:
    with closing(server.client(template=False)) as client:
        for text in client.get(f"{server.url}/metrics").text.splitlines():
            if text.startswith(f'opdata_refused_total{{reason="{reason}"}}'):
                return float(text.split()[1])
    return 0.0


def entities(server: RunningServer) -> int:
    [(count,)] = server.stored.rows("SELECT count(*) FROM entities")
    return int(count)


AMBIGUOUS = {
    "a length and chunks": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "chunks and a length": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "two equal lengths": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "a negative length": [b"Content-Length: -5"],
    "a signed length": [b"Content-Length: +5"],
    "a length in hexadecimal": [b"Content-Length: 0x5"],
    "a length beyond all numbers": [b"Content-Length: 99999999999999999999999"],
    "an unknown coding": [b"Transfer-Encoding: cow"],
    "chunks that are not last": [b"Transfer-Encoding: chunked, identity"],
    "chunks twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "a disguised coding": [b"Transfer-Encoding: xchunked"],
    "a coding after a vertical tab": [b"Transfer-Encoding: \x0bchunked"],
    "a space before the colon": [b"Content-Length : 5"],
    "a folded header": [b"X-Folded: one", b" two"],
    "a folded coding": [b"Transfer-Encoding:", b" chunked"],
    "no colon": [b"Content-Length 5"],
    "a NUL": [b"X-Nul: a\x00b"],
    "a bare line feed": [b"X-One: a\nContent-Length: 5"],
    "a bare carriage return": [b"X-One: a\rContent-Length: 5"],
    "no name": [b": 5"],
}


@pytest.mark.clause("W2")
@pytest.mark.parametrize("shape", AMBIGUOUS)
def test_a_head_that_two_readers_would_read_differently_is_refused(
    server: RunningServer, key: str, line: Line, shape: str
) -> None:
    before = entities(server)
    line.send(head(key, *AMBIGUOUS[shape]) + b"0\r\n\r\n" + post(key))
    only_refusal(line, 400, "INVALID_INPUT")
    assert entities(server) == before


@pytest.mark.clause("W2")
@pytest.mark.parametrize(
    "frame",
    [
        b"x\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_chunks_of_no_clear_size_are_refused(
    server: RunningServer, key: str, line: Line, frame: bytes
) -> None:
    line.send(head(key, b"Transfer-Encoding: chunked") + frame)
    only_refusal(line, 400, "INVALID_INPUT")


@pytest.mark.clause("W2")
@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/3.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"COW / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so(line: Line, sent: bytes) -> None:
    only_refusal(line.send(sent), 400, "INVALID_INPUT")


def test_a_head_of_many_bytes_is_refused_however_it_comes(server: RunningServer, key: str) -> None:
    value = b"x" * MAX_HEAD_BYTES
    for sent in (
        get(key, b"/templates", b"X-Large: " + value),
        get(key, b"/templates?" + value),
        get(key, b"/templates", b"X-Endless: " + value)[:-4],
        get(key, b"/templates", value + b": name")[:-20],
    ):
        with closing(Line(server)) as line:
            only_refusal(line.send(sent), 400, "INVALID_INPUT")


def test_a_head_of_many_headers_is_refused(server: RunningServer, key: str, line: Line) -> None:
    headers = [b"X-%d: 1" % number for number in range(MAX_HEADERS - 2)]
    status, _, _ = line.send(get(key, b"/templates", *headers)).answer()
    assert status == 200
    line.send(get(key, b"/templates", *headers, b"X-More: 1"))
    only_refusal(line, 400, "INVALID_INPUT")


def test_trailers_are_passed_over(server: RunningServer, key: str, line: Line) -> None:
    size = b"%x" % len(BATCH)
    chunks = size + b";name=value\r\n" + BATCH + b"\r\n0\r\n"
    trailers = b"Authorization: Bearer oh_live_other\r\nIdempotency-Key: late\r\n\r\n"
    line.send(head(key, b"Transfer-Encoding: chunked") + chunks + trailers)
    status, _, body = line.answer()
    assert (status, json.loads(body)["data"]["succeeded"]) == (200, 1)
    assert server.stored.rows("SELECT count(*) FROM idempotency_records") == [(0,)]
    assert line.send(get(key)).answer()[0] == 200


@pytest.mark.parametrize("endless", [b"0\r\nX-Trailer: ", b"5;"])
def test_endless_frames_of_chunks_are_refused(
    server: RunningServer, key: str, line: Line, endless: bytes
) -> None:
    line.send(head(key, b"Transfer-Encoding: chunked") + endless + b"x" * MAX_HEAD_BYTES * 8)
    only_refusal(line, 400, "INVALID_INPUT")


def test_a_head_that_dribbles_is_given_up(server: RunningServer, key: str, line: Line) -> None:
    before = refused(server, "head_timeout")
    for byte in b"GET /operator-data-api/templates HTTP":
        line.send(bytes([byte]))
    only_refusal(line, 408, "REQUEST_TIMEOUT")
    assert refused(server, "head_timeout") == before + 1


def test_a_second_head_is_due_as_the_first_was(server: RunningServer, key: str, line: Line) -> None:
    assert line.send(get(key)).answer()[0] == 200
    line.send(b"GET /operator-data-api/templates HT")
    only_refusal(line, 408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_connection_that_asks_for_nothing_is_closed(line: Line, sent: bytes) -> None:
    assert line.send(sent).answers() == []


def test_a_body_that_dribbles_is_given_up(server: RunningServer, key: str, line: Line) -> None:
    before, rows = refused(server, "body_timeout"), entities(server)
    line.send(post(key)[:-10])
    only_refusal(line, 408, "REQUEST_TIMEOUT")
    assert refused(server, "body_timeout") == before + 1
    assert entities(server) == rows


@pytest.mark.clause("W4")
def test_a_body_without_a_key_is_answered_unread_and_its_rest_is_not_waited_for(
    server: RunningServer, line: Line
) -> None:
    line.send(head("oh_live_wrong", b"Content-Length: 60000") + b"x" * 1000)
    [(status, _, body)] = line.answers()
    assert (status, code_of(body)) == (401, "UNAUTHORIZED")


def test_the_rest_of_a_refused_body_is_passed_over_when_it_comes(
    server: RunningServer, key: str, line: Line
) -> None:
    large = b"x" * 70_000
    line.send(head(key, b"Content-Length: 70000"))
    status, _, body = line.answer()
    assert (status, code_of(body)) == (413, "PAYLOAD_TOO_LARGE")
    line.send(large + get(key))
    assert line.answer()[0] == 200


@pytest.mark.clause("W2")
def test_a_client_that_waits_to_be_told_to_go_on_is_told_so_or_refused(
    server: RunningServer, key: str, line: Line
) -> None:
    expecting = b"Expect: 100-continue"
    line.send(head(key, b"Content-Length: %d" % len(BATCH), expecting))
    assert line.piece() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert line.send(BATCH).answer()[0] == 200
    # Of a body that is not asked for nothing comes, so the next bytes would be taken for it.
    line.send(head(key, b"Content-Length: 70000", expecting))
    only_refusal(line, 413, "PAYLOAD_TOO_LARGE")


def test_requests_sent_ahead_are_answered_in_order(
    server: RunningServer, key: str, line: Line
) -> None:
    paths = [b"/templates", b"/entities/nobody", b"/settings", b"/no-such-path"]
    line.send(b"".join(get(key, path) for path in paths * 2) + post(key))
    line.send(get(key, b"/templates", b"Connection: close"))
    statuses = [status for status, _, _ in line.answers()]
    assert statuses == [200, 404, 200, 404] * 2 + [200, 200]


def test_more_than_a_few_requests_sent_ahead_are_not_taken(
    server: RunningServer, key: str, line: Line
) -> None:
    line.send(get(key) * (MAX_PIPELINED + 10))
    *answers, (status, _, body) = line.answers()
    assert {one for one, _, _ in answers} == {200}
    assert len(answers) == MAX_PIPELINED + 1
    assert (status, code_of(body)) == (503, "UNAVAILABLE")


def test_what_came_before_nonsense_is_answered_before_it(
    server: RunningServer, key: str, line: Line
) -> None:
    line.send(post(key) + get(key) + b"nonsense\r\n\r\n")
    (first, _, _), (second, _, _), (third, _, body) = line.answers()
    assert (first, second, third, code_of(body)) == (200, 200, 400, "INVALID_INPUT")


def test_a_broken_body_behind_another_request_is_refused_in_its_turn(
    server: RunningServer, key: str, line: Line
) -> None:
    broken = head(key, b"Transfer-Encoding: chunked") + b"x\r\n"
    line.send(post(key) + broken)
    (first, _, _), (second, _, body) = line.answers()
    assert (first, second, code_of(body)) == (200, 400, "INVALID_INPUT")


def test_head_is_answered_without_a_body_and_the_connection_goes_on(
    server: RunningServer, key: str, line: Line
) -> None:
    path = b"/operator-data-api/templates"
    line.send(head(key, method=b"HEAD", path=path) + get(key, b"/templates", b"Connection: close"))
    received = b""
    while piece := line.socket.recv(65_536):
        received += piece
    first, _, rest = received.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert b"content-length: 0" not in first.lower()
    [(status, _, _)] = parsed(rest)
    assert status == 200


UPGRADE = (b"Connection: Upgrade", b"Upgrade: h2c")


def test_who_asks_for_another_protocol_is_answered_in_this_one(
    server: RunningServer, key: str, line: Line
) -> None:
    line.send(get(key, b"/templates", *UPGRADE) + get(key))
    [(status, headers, _)] = line.answers()
    assert (status, headers["connection"]) == (200, "close")


def test_who_asks_for_another_protocol_with_a_body_is_refused(
    server: RunningServer, key: str, line: Line
) -> None:
    rows = entities(server)
    only_refusal(line.send(post(key, BATCH, *UPGRADE)), 400, "INVALID_INPUT")
    assert entities(server) == rows


def test_one_connection_too_many_is_refused_and_the_others_go_on(
    server: RunningServer, key: str
) -> None:
    lines = [Line(server) for _ in range(20)]
    try:
        for one in lines:
            assert one.send(get(key)).answer()[0] == 200
        with closing(Line(server)) as more:
            headers = only_refusal(more, 503, "UNAVAILABLE")
            assert headers["retry-after"] == "1"
        for one in lines:
            assert one.send(get(key)).answer()[0] == 200
    finally:
        for one in lines:
            one.close()


def test_an_answer_that_is_not_read_is_given_up(server: RunningServer, key: str) -> None:
    """More of it than the system's buffers hold."""
    before = refused(server, "answer_timeout")
    with closing(server.client(key, template=False)) as client:
        for number in range(200):
            body = player(f"large{number}", note="x" * 60_000)
            assert client.post("/entities", json=body).status_code == 201
    with socket.socket() as deaf:
        deaf.settimeout(HANGS_S)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(get(key, b"/entities?limit=1000"))
        deadline = time.monotonic() + HANGS_S
        while refused(server, "answer_timeout") == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
