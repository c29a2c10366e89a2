"""A server that takes batches as the contract says and can be told to misbehave."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

KEY = "oh_live_" + "0" * 64


class Received(NamedTuple):
    """One request."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def items(self) -> list[Any]:
        items: list[Any] = json.loads(self.body)
        return items

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("idempotency-key")


class Reply(NamedTuple):
    """An answer; status 0 hangs up instead."""

    status: int
    payload: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    payload = {"success": False, "error": {"code": code, "message": message or code}}
    return Reply(
        status, payload, {name.replace("_", "-"): value for name, value in headers.items()}
    )


HANG_UP = Reply(0, None)


class FakeApi:
    """Serves on a free loopback port. `script` answers the first requests, then all is well.

    `refuse` says why an item is not accepted. `stored` are the items that took effect, in order.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.stored: list[Any] = []
        self.script: deque[Reply | Callable[[], None]] = deque()
        self.refuse: Callable[[Any], tuple[str, str] | None] = lambda _item: None
        self.max_body_bytes = 16 * 1024 * 1024
        self.delay_s: Callable[[list[Any]], float] = lambda _items: 0.0
        self.at_once = 0
        self.most_at_once = 0
        self.keys: list[str] | None = []
        """The operator's keys as they are listed; None to a key that may not list them."""
        self.lock = threading.Lock()
        self._answers: dict[str, Reply] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[FakeApi]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    @property
    def items(self) -> list[Any]:
        """All items that arrived, whatever became of them."""
        return [item for request in self.received for item in request.items]

    def forget_keys(self) -> None:
        """As after 24 hours."""
        self._answers.clear()

    def answer(self, request: Received) -> Reply:
        with self.lock:
            self.received.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            scripted = self.script.popleft() if self.script else None
        try:
            time.sleep(self.delay_s(request.items))
            if isinstance(scripted, tuple):
                return scripted
            with self.lock:
                reply = self._answer_once(request)
            if scripted is not None:
                scripted()
                return HANG_UP
            return reply
        finally:
            with self.lock:
                self.at_once -= 1

    def _answer_once(self, request: Received) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error(401, "UNAUTHORIZED", "Missing or invalid API key")
        if len(request.body) > self.max_body_bytes:
            return error(413, "PAYLOAD_TOO_LARGE", "The body is too large")
        key = request.idempotency_key
        if key in self._answers:
            stored = self._answers[key]
            return stored._replace(headers={"Idempotent-Replayed": "true"})
        reply = self._execute(request)
        if key is not None:
            self._answers[key] = reply
        return reply

    def _execute(self, request: Received) -> Reply:
        errors = []
        dry_run = request.params.get("dryRun") == "true"
        for index, item in enumerate(request.items):
            refusal = self.refuse(item)
            if refusal is not None:
                code, message = refusal
                errors.append(
                    {
                        "index": index,
                        "externalId": item.get("externalId"),
                        "code": code,
                        "message": message,
                    }
                )
            elif not dry_run:
                self.stored.append(item)
        data: dict[str, Any] = {
            "succeeded": len(request.items) - len(errors),
            "failed": len(errors),
            "errors": errors,
        }
        if dry_run:
            data["dryRun"] = True
        elif request.path.endswith("/entities"):
            data["jobId"] = f"job_{len(self._answers):016x}"
        return Reply(200, {"success": True, "data": data})


def _handler_for(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert self.path == "/api-keys"
            if api.keys is None:
                self.answer(error(403, "FORBIDDEN"))
                return
            self.answer(Reply(200, {"success": True, "data": [{"maskedKey": k} for k in api.keys]}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.answer(api.answer(Received(url.path, dict(parse_qsl(url.query)), headers, body)))

        def answer(self, reply: Reply) -> None:
            if reply.status == 0:
                self.close_connection = True
                return
            payload = json.dumps(reply.payload).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
