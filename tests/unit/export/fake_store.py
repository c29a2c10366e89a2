"""A server that lists items a few at a time and can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

KEY = "oh_live_" + "0" * 64
BASE = "/operator-data-api"

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def failure(status: int, code: str, **headers: str) -> Reply:
    body = {"success": False, "error": {"code": code, "message": f"no luck: {code}"}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, names, json.dumps(body).encode()


class FakeStore:
    """Serves on a free loopback port.

    `items` are the texts of what each listing has, `people` those of what `GET /entities/{id}` answers.
    `script` answers the first requests; what it holds that can be called is called, and all is well.
    """

    page_items = 2

    def __init__(self) -> None:
        self.items: dict[str, list[str]] = {"entities": [], "events": [], "states": []}
        self.people: dict[str, str] = {}
        self.script: deque[Reply | Callable[[], None]] = deque()
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[FakeStore]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, target: str, key: str | None) -> Reply:
        with self.lock:
            self.asked.append(target.removeprefix(BASE))
            scripted = self.script.popleft() if self.script else None
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if isinstance(scripted, tuple):
                return scripted
            if scripted is not None:
                scripted()
            if key != f"Bearer {KEY}":
                return failure(401, "UNAUTHORIZED")
            return self._found(target)
        finally:
            with self.lock:
                self.at_once -= 1

    def _found(self, target: str) -> Reply:
        url = urlsplit(target)
        name = url.path.removeprefix(f"{BASE}/")
        if name in self.items:
            start = int(dict(parse_qsl(url.query)).get("cursor", "0"))
            page = self.items[name][start : start + self.page_items]
            more = start + len(page) < len(self.items[name])
            cursor = f'"{start + len(page)}"' if more else "null"
            return _success('{"items":[' + ",".join(page) + f'],"nextCursor":{cursor}}}')
        person = self.people.get(unquote(name.removeprefix("entities/")))
        return failure(404, "NOT_FOUND") if person is None else _success(person)


def _success(data: str) -> Reply:
    return 200, {}, ('{"success":true,"data":' + data + "}").encode()


def _handler_for(store: FakeStore) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = store.answer(self.path, self.headers["Authorization"])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
