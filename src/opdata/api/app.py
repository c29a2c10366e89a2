"""The ASGI application: what stands in front of every handler, in the order of W4."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from opdata.api.admission import Lease
from opdata.api.body import read_body
from opdata.api.context import Call, Services
from opdata.api.endpoint import BASE_ALIAS, BASE_PATH, Endpoint
from opdata.api.errors import Headers, error_reply
from opdata.api.ops import ops_routes
from opdata.api.paths import Paths
from opdata.api.request_id import request_id
from opdata.clock import now_ms
from opdata.errors import (
    Busy,
    Forbidden,
    InternalError,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    RequestTimeout,
    Unavailable,
    WireError,
)
from opdata.logs import log
from opdata.model import ApiKey, Operator, Quota
from opdata.storage.base import Taken
from opdata.storage.work import Reply

_EVERY_ANSWER: Final = (
    (b"content-type", b"application/json"),
    # A browser takes it for nothing else, and nobody on the way keeps what may be a person or a key.
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
_STOPPED: Final = {
    False: "The server is stopping; nothing was written. Try again later.",
    True: "The server is stopping, and whether this was done is not known. Repeat it with its Idempotency-Key.",
}


class App:
    """Routes requests by the endpoint table and answers every one of them in the envelope (W2)."""

    def __init__(self, services: Services, endpoints: Sequence[Endpoint]) -> None:
        self._paths = _paths(services, endpoints)
        self._others = Router(
            routes=ops_routes(services, endpoints),
            redirect_slashes=False,
            default=_Unrouted(services),
        )
        self.door = services.door
        """What the connections share that bring requests here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request; paths are matched as they were sent, so an id may hold `%2F` (W9)."""
        path = scope.get("raw_path") or scope["path"].encode()
        path = scope["path"] = path.partition(b"?")[0].decode("ascii", "replace")
        found = self._paths.find(path)
        if found is None:
            await self._others(scope, receive, send)
        else:
            endpoints, scope["path_params"] = found
            await endpoints(scope, receive, send)


class PathEndpoint:
    """All the endpoints of one path, by method."""

    def __init__(self, services: Services, methods: Mapping[str, Endpoint]) -> None:
        self._services = services
        self._methods = dict(methods)
        self._allowed = tuple(methods)
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = self._methods.get(scope["method"])
        exchange = _Exchange(self._services, scope, endpoint.name if endpoint else "unrouted")
        if endpoint is None:
            await exchange.refuse(send, MethodNotAllowed(self._allowed))
        else:
            await exchange.serve(endpoint, receive, send)


class _Unrouted:
    """Paths that are not in the table."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await _Exchange(self._services, scope, "unrouted").refuse(send, NotFound("No such path"))


class _Exchange:
    """One request and its answer."""

    _handling = False

    def __init__(self, services: Services, scope: Scope, name: str) -> None:
        self._services = services
        self._scope = scope
        self._name = name
        self._started = time.perf_counter()
        # Of several of one name the first counts, unless they make a list.
        self._headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(scope["headers"])
        }
        if "prefer" in self._headers:
            values = [value for name, value in scope["headers"] if name == b"prefer"]
            self._headers["prefer"] = b", ".join(values).decode("latin-1")
        self._request_id = request_id(self._headers.get("x-request-id"))
        self._key: ApiKey | None = None
        self._operator: Operator | None = None
        self._answer_headers: Headers = []

    async def serve(self, endpoint: Endpoint, receive: Receive, send: Send) -> None:
        """Authenticate, read, limit, wait for a turn, handle and answer (W4)."""
        try:
            reply = await self._handle(endpoint, receive)
        except WireError as error:
            if isinstance(error, Unavailable) and not isinstance(error, Busy):
                # The client is told to come back; whoever runs the server is told why.
                log.warning(
                    "unavailable",
                    request_id=self._request_id,
                    endpoint=self._name,
                    reason=error.reason,
                )
            if isinstance(error, RequestTimeout):
                self._services.door.turned_away("body_timeout")
            await self.refuse(send, error)
        except ClientDisconnect:
            self._note(499)
        except asyncio.CancelledError:
            # The server stops and has waited as long as it would; the task ends with this answer.
            self._services.door.turned_away("stopping")
            await self.refuse(send, Unavailable(_STOPPED[self._handling]))
        except Exception:  # noqa: BLE001 - whatever it is, the client gets a 500 and the log the cause
            log.exception("request_failed", request_id=self._request_id, endpoint=self._name)
            message = f"Internal server error (request {self._request_id})"
            await self.refuse(send, InternalError(message))
        else:
            if reply.replayed:
                self._answer_headers.append(("idempotent-replayed", "true"))
            await self._send(send, reply)

    async def refuse(self, send: Send, error: WireError) -> None:
        """Answer an error."""
        reply, headers = error_reply(error)
        self._answer_headers += headers
        if "expect" in self._headers:
            # It may have been told so instead of to go on, and what it sends next is no body then.
            self._answer_headers.append(("connection", "close"))
        await self._send(send, reply)

    async def _handle(self, endpoint: Endpoint, receive: Receive) -> Reply:
        services = self._services
        key, operator = await services.authenticator.authenticate(
            self._headers.get("authorization")
        )
        self._key, self._operator = key, operator
        if key.scopes.isdisjoint(endpoint.scopes):
            raise Forbidden(endpoint.scopes)
        lease = services.buffers.lease(operator.operator_id)
        try:
            body = await self._read(endpoint, operator, receive, lease)
            await self._limit(endpoint, operator)
            base, path = _split_base(self._scope["path"])
            call = Call(
                services=services,
                key=key,
                operator=operator,
                method=endpoint.method,
                base=base,
                path=path,
                segments=_decoded(self._scope["path_params"]),
                query=self._scope["query_string"].decode("latin-1"),
                headers=self._headers,
                body=body,
            )
            weight = endpoint.weight(body)
            await services.admission.enter(operator.operator_id, weight)
            try:
                self._handling = True
                return await endpoint.handler(call)
            finally:
                services.admission.leave(operator.operator_id, weight)
        finally:
            lease.release()

    async def _read(
        self, endpoint: Endpoint, operator: Operator, receive: Receive, lease: Lease
    ) -> bytes:
        settings = self._services.settings
        try:
            return await read_body(
                self._headers,
                receive,
                max_bytes=settings.max_body_bytes,
                timeout_s=settings.receive_timeout_s,
                lease=lease,
            )
        except InvalidInput:
            # A broken compression shows while the body is read, and counts like any other bad body.
            await self._limit(endpoint, operator)
            raise

    async def _limit(self, endpoint: Endpoint, operator: Operator) -> None:
        """Take a request from the operator's quota (W60) and say what is left of it (W61)."""
        category = endpoint.category
        quota = operator.limits.get(category) or self._services.quotas[category]
        at_ms = now_ms()
        taken = await self._services.store.take(operator.operator_id, category, quota, at_ms)
        self._answer_headers += _limit_headers(category, quota, taken)
        if not taken.granted:
            wait_s = taken.retry_after_s
            raise RateLimited(category, math.ceil(wait_s), at_ms + math.ceil(wait_s * 1000))

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [
            *_EVERY_ANSWER,
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-request-id", self._request_id.encode()),
            *((name.encode(), value.encode()) for name, value in self._answer_headers),
            *((name.encode(), value.encode()) for name, value in reply.headers),
        ]
        # Counted before it is sent: whoever has the answer finds it in the metrics.
        self._note(reply.status)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _note(self, status: int) -> None:
        seconds = time.perf_counter() - self._started
        self._services.metrics.request(self._name, status, seconds)
        log.info(
            "request",
            endpoint=self._name,
            method=self._scope["method"],
            status=status,
            ms=round(seconds * 1000, 2),
            operator=self._operator.name if self._operator else None,
            key=self._key.key_id if self._key else None,
            request_id=self._request_id,
        )


def _paths(services: Services, endpoints: Sequence[Endpoint]) -> Paths[PathEndpoint]:
    paths: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        for base in ("",) if endpoint.at_root else (BASE_PATH, BASE_ALIAS):
            paths.setdefault(base + endpoint.path, {})[endpoint.method] = endpoint
    return Paths({path: PathEndpoint(services, methods) for path, methods in paths.items()})


def _split_base(path: str) -> tuple[str, str]:
    """The path's base and the rest, so that the alias and the base path share idempotency records."""
    for base in (BASE_PATH, BASE_ALIAS):
        if path.startswith(base + "/"):
            return base, path[len(base) :]
    return "", path


def _decoded(segments: Mapping[str, str]) -> dict[str, str]:
    """Percent-decoded path parameters. Raises `NotFound` for bytes that are not UTF-8."""
    try:
        return {name: unquote(text, errors="strict") for name, text in segments.items()}
    except UnicodeDecodeError:
        message = "No such path: it does not decode to UTF-8"
        raise NotFound(message) from None


def _limit_headers(category: str, quota: Quota, taken: Taken) -> Headers:
    reset_s = max(1, math.ceil(taken.reset_s))
    return [
        ("ratelimit-policy", f'"{category}";q={quota.requests};w={quota.window_s}'),
        ("ratelimit", f'"{category}";r={taken.remaining};t={reset_s}'),
    ]
