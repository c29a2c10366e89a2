"""A server in memory behind the HTTP library of the client: no socket, no template, no waiting.

It does what the wire contract says of batches, single items, listings, jobs and idempotency keys. It
checks shapes and not the template, and knows one key; quotas, retention and encryption it has not.
"""

from __future__ import annotations

import gzip
import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx2
import msgspec
from msgspec import Struct

from opdata.client.async_client import AsyncClient
from opdata.client.records import StoredEntity, StoredEvent, StoredState
from opdata.client.sync.client import Client
from opdata.testing.clock import VirtualTime
from opdata.testing.fake_answers import Reply, error, html, loose
from opdata.testing.fake_routes import BASE_PATH, Call, Routes
from opdata.testing.fake_store import FakeStore, Refuse

URL = "http://opdata.test"
_CODES = {409: "CONFLICT", 429: "RATE_LIMITED", 500: "INTERNAL_ERROR", 503: "UNAVAILABLE"}


class Received(Struct, frozen=True):
    """A request that reached the server, with the status it was answered with.

    `status` is 0 when no answer arrived.
    """

    method: str
    path: str
    params: dict[str, str]
    body: Any
    idempotency_key: str | None
    compressed: bool
    respond_async: bool
    """Whether the batch was to be worked off later (W30)."""
    status: int


Fault = Callable[[Callable[[], Reply]], Reply]


class FakeServer:
    """Make clients of it with `client()` and `async_client()`; `time` is theirs and takes no time.

    What a client queues is worked off right after it was accepted, unless `hold_jobs` was called.

    `refuse` stands for the template: given the kind (`entities`, `events`, `states`) and an item, it
    says why the item is refused. `personal_fields` read `"[encrypted]"` in listings of entities.
    """

    def __init__(
        self,
        *,
        template_id: str | None = "tpl_igaming",
        refuse: Refuse | None = None,
        personal_fields: frozenset[str] = frozenset(
            {"first_name", "last_name", "email", "phone", "date_of_birth"}
        ),
        max_body_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.api_key = f"oh_live_{secrets.token_hex(32)}"
        self.max_body_bytes = max_body_bytes
        self.requests: list[Received] = []
        self.time = VirtualTime()
        self.http = httpx2.MockTransport(self._handle)
        """The transport of any client: `Client(URL, server.api_key, http=server.http)`."""
        self._store = FakeStore()
        self._routes = Routes(
            self._store, refuse or (lambda _kind, _item: None), personal_fields, template_id
        )
        self._faults: deque[Fault] = deque()
        self._holds_jobs = False
        self._kept: dict[tuple[str, str, str], tuple[bytes, Reply]] = {}
        self._lock = threading.Lock()

    def client(self, **options: Any) -> Client:
        """A blocking client of this server."""
        given: dict[str, Any] = {"http": self.http, "clock": self.time.blocking} | options
        return Client(URL, self.api_key, **given)

    def async_client(self, **options: Any) -> AsyncClient:
        """An asynchronous client of this server."""
        given: dict[str, Any] = {"http": self.http, "clock": self.time.asynchronous} | options
        return AsyncClient(URL, self.api_key, **given)

    @property
    def entities(self) -> dict[str, StoredEntity]:
        """What is stored, by `external_id`."""
        return self._store.entities

    @property
    def events(self) -> list[StoredEvent]:
        """What is stored, in the order recorded."""
        return self._store.events

    @property
    def states(self) -> dict[tuple[str, str], StoredState]:
        """What is stored, by `external_id` and state key."""
        return self._store.states

    def answer_next(self, status: int, *, times: int = 1, retry_after_s: int | None = 1) -> None:
        """Answer the next requests with this status and do nothing of what they ask for.

        409, 429, 500 and 503 are the server's own, all others a proxy's page.
        """
        headers = (
            {}
            if retry_after_s is None or status == httpx2.codes.INTERNAL_SERVER_ERROR
            else {"Retry-After": str(retry_after_s)}
        )
        code = _CODES.get(status)
        reply = error(status, code, code, headers) if code else html(status)
        self._faults.extend([lambda _execute: reply] * times)

    def lose_answers(self, times: int = 1) -> None:
        """Carry out the next requests, and break the connection before they are answered."""
        self._faults.extend([_execute_and_break] * times)

    def refuse_connections(self, times: int = 1) -> None:
        """Let the next requests not even connect."""
        self._faults.extend([_refuse_connection] * times)

    def hold_jobs(self) -> None:
        """Leave what is queued from now on to `work_off`."""
        self._holds_jobs = True

    def work_off(self, items: int | None = None) -> None:
        """Work off what is queued, in order: all of it, or so many items, and leave a job processing."""
        with self._lock:
            self._routes.queue.work_off(items)

    def change_jobs(self, *jobs: Any) -> None:
        """Put job records in place, such as one that is still processing."""
        self._store.jobs.update({job.id: job for job in jobs})

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        compressed = request.headers.get("Content-Encoding") == "gzip"
        plain = gzip.decompress(body) if compressed else body
        respond_async = _prefers_async(request.headers)
        with self._lock:
            fault = self._faults.popleft() if self._faults else _no_fault
            status = 0
            try:
                reply = fault(lambda: self._answer(request, plain, respond_async=respond_async))
                status = reply.status
            finally:
                if not self._holds_jobs:
                    self._routes.queue.work_off()
                self.requests.append(
                    Received(
                        request.method,
                        request.url.path.removeprefix(BASE_PATH),
                        dict(request.url.params),
                        loose(plain),
                        request.headers.get("Idempotency-Key"),
                        compressed,
                        respond_async,
                        status,
                    )
                )
        request_id = f"req_{len(self.requests)}"
        return httpx2.Response(
            reply.status,
            content=reply.body,
            headers={"Content-Type": reply.media_type, "X-Request-Id": request_id, **reply.headers},
        )

    def _answer(self, request: httpx2.Request, body: bytes, *, respond_async: bool) -> Reply:
        raw_path = request.url.raw_path.decode().partition("?")[0]
        if raw_path == "/readyz":
            return Reply(200, b'{"status":"ready"}')
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return error(401, "UNAUTHORIZED", "Missing or invalid API key")
        if len(body) > self.max_body_bytes:
            sizes = f"The body has {len(body):,} bytes; the limit is {self.max_body_bytes:,}"
            return error(413, "PAYLOAD_TOO_LARGE", sizes)
        params = dict(request.url.params)
        segments = [
            unquote(part) for part in raw_path.removeprefix(BASE_PATH).strip("/").split("/")
        ]
        call = Call(request.method, segments, params, body, respond_async)
        key = request.headers.get("Idempotency-Key")
        if key is None or call.dry_run or segments[0] == "api-keys" or call.method == "GET":
            return self._routes.answer(call)
        return self._once((call.method, raw_path, key), call)

    def _once(self, scope: tuple[str, str, str], call: Call) -> Reply:
        """Carry a write out unless its key was used before (W41)."""
        if scope in self._kept:
            body, stored = self._kept[scope]
            if body != call.body:
                message = "This Idempotency-Key was used with a different request"
                return error(422, "IDEMPOTENCY_KEY_REUSED", message)
            reply = stored.replay or stored
            return msgspec.structs.replace(
                reply, headers={**reply.headers, "Idempotent-Replayed": "true"}
            )
        reply = self._routes.answer(call)
        if reply.is_kept:
            self._kept[scope] = call.body, reply
        return reply


def _prefers_async(headers: httpx2.Headers) -> bool:
    """Whether a preference is `respond-async`, whatever others there are (RFC 7240)."""
    preferences = headers.get_list("Prefer", split_commas=True)
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in preferences)


def _no_fault(execute: Callable[[], Reply]) -> Reply:
    return execute()


def _execute_and_break(execute: Callable[[], Reply]) -> Reply:
    execute()
    raise httpx2.ReadError("the connection broke before the answer")


def _refuse_connection(_execute: Callable[[], Reply]) -> Reply:
    raise httpx2.ConnectError("connection refused")
