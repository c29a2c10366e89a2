"""One HTTP connection, of which nothing is unbounded: not its head, its queue, nor what it waits for.

uvicorn's protocol reads and answers. What it leaves open is closed here: how long a head may take and
how large it may be, what is done with a body that nobody wants, how many requests may be sent ahead,
how long an answer may lie unread, and what is said to bytes that are no HTTP (W2).
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from opdata.api.door import Door
from opdata.errors import Busy, InvalidInput, RequestTimeout, WireError

DOOR: Final = "door"
"""Where in the lifespan's state the worker's `Door` is."""

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100
MAX_PIPELINED: Final = 32

_MIN_SENT_BYTES_A_SECOND: Final = 1024
_LINGER_S: Final = 2.0
_BODY_HEADERS: Final = (b"content-length", b"transfer-encoding")


class _Refused(Exception):
    """Why nothing more is taken from a connection. Raised within the parser, it makes that stop."""

    def __init__(self, error: WireError, reason: str) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason


class Connection(HttpToolsProtocol):
    """A connection to a client."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door: Door = self.app_state[DOOR]
        self._receiving: Literal["nothing", "head", "body"] = "nothing"
        self._fed = 0
        self._since_progress = 0
        self._refused: _Refused | None = None
        self._raised: _Refused | None = None
        self._head_due: TimerHandle | None = None
        self._rest_due: TimerHandle | None = None
        self._answer_due: TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """A client has connected; its first head is due."""
        super().connection_made(transport)
        self._door.connections = len(self.connections)
        if self._door.connections > self._door.max_connections:
            message = (
                "The server is busy: it has as many connections as it can. Nothing was written."
            )
            self._refuse(_Refused(Busy(message), "connections"))
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it all that was due."""
        for due in (self._head_due, self._rest_due, self._answer_due):
            if due is not None:
                due.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._door.connections = len(self.connections)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, as long as that is still wanted."""
        if self._refused is not None:
            return
        self._since_progress += len(data)
        self._fed = self._since_progress
        super().data_received(data)
        if self._refused is not None:
            return
        if self._since_progress > MAX_HEAD_BYTES:
            # A head, or chunks and trailers that are all frame and no content.
            self._refuse(_too_much())
        elif self._since_progress and self._receiving != "body":
            self._expect_head()

    def shutdown(self) -> None:
        """The server stops: what has begun is finished."""
        self._door.stopping = True
        super().shutdown()

    def pause_writing(self) -> None:
        """The client reads more slowly than is written."""
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._answer_due is not None:
            self._answer_due.cancel()
            self._answer_due = None

    def on_message_begin(self) -> None:
        """The parser has seen a head begin."""
        super().on_message_begin()
        self._receiving = "head"

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser has a header, or a trailer, which nobody asks for."""
        if self._receiving == "head":
            if len(self.headers) == MAX_HEADERS:
                self._stop_parsing(_too_much())
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The parser has a head: its request begins, or waits for those before it."""
        if self._fed > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._stop_parsing(_too_much())
        if len(self.pipeline) == MAX_PIPELINED:
            message = f"More than {MAX_PIPELINED} requests were sent ahead of their answers"
            self._stop_parsing(_Refused(Busy(message), "pipelined"))
        if self.parser.should_upgrade() and self._has_body():
            message = "A request with a body cannot ask for another protocol; send no Upgrade"
            self._stop_parsing(_Refused(InvalidInput(message), "bad_request"))
        super().on_headers_complete()
        self._receiving = "body"
        self._since_progress = 0
        self._unset_keepalive_if_required()
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser would pass over what follows

    def on_body(self, body: bytes) -> None:
        """The parser has a piece of a body."""
        self._since_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser has seen a request's end."""
        self._receiving = "nothing"
        self._since_progress = 0
        super().on_message_complete()
        if self._rest_due is not None:
            self._rest_due.cancel()
            self._rest_due = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """An answer was written: the next request goes on, or what is wrong with it is said."""
        has_next = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_answer()
        elif has_next:
            if self.pipeline:
                self.flow.pause_reading()
        elif self._refused is not None:
            self._answer(self._refused)
        elif self._receiving == "body":
            # It was answered early; whoever closed now might keep the client from reading that.
            self._unset_keepalive_if_required()
            self._rest_due = self._due(self._rest_is_late)
        elif self._receiving == "head":
            self._unset_keepalive_if_required()
            self._expect_head()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, which are no envelope
        """The parser has stopped."""
        message = "The request is not valid HTTP/1.1"
        self._refuse(self._raised or _Refused(InvalidInput(message), "bad_request"))

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long: hang up, also on a client that does not read its answers."""
        super().timeout_keep_alive_handler()
        self._watch_answer()

    def _unsupported_upgrade_warning(self) -> None:
        """To ask for another protocol is no fault: the request is answered in this one."""

    def _stop_parsing(self, why: _Refused) -> NoReturn:
        self._raised = why
        raise why

    def _refuse(self, why: _Refused) -> None:
        """Take nothing more, and say why once all requests before it are answered."""
        self._refused = why
        self._unset_keepalive_if_required()
        if self._receiving == "body" and not self.pipeline:
            # The request that is at fault is being executed, which mostly means that it waits for its body.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._answer(why)
        elif self._receiving == "body":
            self.pipeline.popleft()
        elif not self._is_busy():
            self._answer(why)

    def _answer(self, why: _Refused) -> None:
        status, headers, body = self._door.refusal(why.error, why.reason)
        default = [
            (name.decode(), value.decode()) for name, value in self.server_state.default_headers
        ]
        lines = [f"{name}: {value}\r\n" for name, value in [*default, *headers]]
        head = "".join([*lines, "connection: close\r\n\r\n"]).encode("latin-1")
        self.transport.write(STATUS_LINE[status] + head + body)
        if why.reason == "connections":
            self.transport.close()
        else:
            # Whoever closed with bytes unread might keep the client from reading the answer.
            self.transport.write_eof()
            self.flow.resume_reading()
            self._rest_due = self.loop.call_later(_LINGER_S, self._hang_up)
        self._watch_answer()

    def _is_busy(self) -> bool:
        # None before the first request, whatever its type says.
        return bool(self.cycle) and not self.cycle.response_complete

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _has_body(self) -> bool:
        return any(name in _BODY_HEADERS for name, _ in self.headers)

    def _expect_head(self) -> None:
        if self._head_due is None and not self._is_busy():
            self._head_due = self._due(self._head_is_late)

    def _head_is_late(self) -> None:
        if self._receiving == "head":
            message = f"The request's head did not arrive in {self._door.receive_timeout_s:g} s"
            self._refuse(_Refused(RequestTimeout(message), "head_timeout"))
        elif not self.transport.is_closing():
            self._door.turned_away("head_timeout")
            self.transport.close()

    def _rest_is_late(self) -> None:
        self._door.turned_away("body_timeout")
        self._hang_up()

    def _hang_up(self) -> None:
        self.transport.close()
        self._watch_answer()

    def _watch_answer(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent and self._answer_due is None:
            self._answer_due = self._due(self._look_at_answer)

    def _look_at_answer(self) -> None:
        self._answer_due = None
        sent = self._unsent - self.transport.get_write_buffer_size()
        if sent < _MIN_SENT_BYTES_A_SECOND * self._door.receive_timeout_s:
            self._door.turned_away("answer_timeout")
            self.transport.abort()
        else:
            self._watch_answer()

    def _due(self, late: Callable[[], None]) -> TimerHandle:
        return self.loop.call_later(self._door.receive_timeout_s, late)


def _too_much() -> _Refused:
    message = f"The request's head has more than {MAX_HEAD_BYTES:,} bytes or {MAX_HEADERS} headers"
    return _Refused(InvalidInput(message), "bad_request")
