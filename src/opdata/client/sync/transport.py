# Made from opdata/client/transport.py by tools/generate_sync.py: edit that, then make sync-client.
"""One HTTP request to the API, repeated until it is answered for good or patience runs out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from opdata.client.answers import FAILURES, Answer, Exchange
from opdata.client.retry import Backoff, Deadline, Patience, WaitReason
from opdata.client.sync.io import (
    PIECE_BYTES,
    Clock,
    HttpClient,
    HttpTransport,
    SystemClock,
    in_pieces,
)
from opdata.client.trust import trusted

__all__ = ["BASE_PATH", "Answer", "OnWait", "Transport"]

BASE_PATH: Final = "/operator-data-api"
_AT_ROOT: Final = ("/api-keys", "/healthz", "/readyz")
_CONNECT_S: Final = 5.0
_LEAST_TIMEOUT_S: Final = 0.001
_EXTERNAL_ID: Final = re.compile(r"^/entities/[^/]+")
_log: Final = logging.getLogger("opdata.client")

OnWait = Callable[[WaitReason, float], None]
"""Called before every wait, with its reason and its seconds."""


class Transport:
    """A connection pool to one server with one key. Use as a context manager.

    `url` is the server's root; the base path (W1) is added. A call may repeat its request whenever
    the server can tell the repetition: the caller gives an `Idempotency-Key` where that matters.
    `timeout_s` bounds each wait of an attempt for the network.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        backoff: Backoff | None = None,
        on_wait: OnWait | None = None,
        connections: int = 10,
        timeout_s: float = 60.0,
        http: HttpTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.url = url
        self._clock: Clock = clock or SystemClock()
        self._timeout_s = timeout_s
        self._patience = Patience(backoff or Backoff(), self._clock.now_s)
        self._on_wait = on_wait or _ignore
        self._client = HttpClient(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "opdata-client"},
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
            transport=http,
            verify=trusted(),
        )

    def __enter__(self) -> Self:
        # Connections are made when they are needed: a client may be used before it is entered.
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def sleep(self, seconds: float) -> None:
        """Wait, by the clock of this transport."""
        self._clock.sleep(seconds)

    def deadline(self, within_s: float) -> Deadline:
        """The patience of one call that may take `within_s` seconds from now."""
        return Deadline(self._patience, within_s)

    def get(self, path: str, *, params: Mapping[str, str] | None = None) -> Answer:
        """Read. Raises as `request` does."""
        return self.request("GET", path, params=params)

    def post(
        self,
        path: str,
        body: bytes,
        *,
        params: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        content_encoding: str | None = None,
    ) -> Answer:
        """Post a JSON body, compressed already if `content_encoding` says so. See `request`."""
        return self.request(
            "POST",
            path,
            body,
            params=params,
            idempotency_key=idempotency_key,
            content_encoding=content_encoding,
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        content_encoding: str | None = None,
        prefer: str | None = None,
        patience: Patience | None = None,
        repeatable: bool = True,
    ) -> Answer:
        """Send until there is a final answer. Raises a subclass of `Refused`, or `Unreachable`.

        Without a `patience` of its own, the request shares that of all others. One that is not
        `repeatable` is sent again only when it cannot have been executed.
        """
        patience = patience or self._patience
        exchange = Exchange(self.url, idempotency_key=idempotency_key, writes=method != "GET")
        headers = _headers(body, idempotency_key, content_encoding, prefer)
        large = body if body is not None and len(body) > PIECE_BYTES else None
        if large is not None:
            headers["Content-Length"] = str(len(large))
        target = path if path.startswith(_AT_ROOT) else BASE_PATH + path
        shown = f"{method} {_EXTERNAL_ID.sub('/entities/{externalId}', path)}"
        attempt = 0
        while True:
            attempt += 1
            sent = _Sent()
            try:
                response = self._client.request(
                    method,
                    target,
                    content=body if large is None else in_pieces(large),
                    params=params,
                    headers=headers,
                    timeout=self._timeout(patience),
                    extensions={"trace": sent.trace},
                )
            except FAILURES as error:
                outcome = exchange.failed(error, cut_off=sent.is_cut_off)
                _log.debug("%s: attempt %d: %s", shown, attempt, type(error).__name__)
            else:
                patience.heard()
                _log.debug(
                    "%s: attempt %d: HTTP %d, request id %s",
                    *(shown, attempt, response.status_code, response.headers.get("X-Request-Id")),
                )
                settled = exchange.answered(response)
                if isinstance(settled, Answer):
                    patience.progressed()
                    return settled
                outcome = settled
            delay_s = patience.delay_s(attempt, outcome.retry_after_s)
            if delay_s is None or (exchange.unsure and not repeatable):
                raise exchange.exhausted(outcome)
            _log.warning(
                "%s: %s; attempt %d in %.2f s", shown, outcome.reason, attempt + 1, delay_s
            )
            self._on_wait(outcome.reason, delay_s)
            self._clock.sleep(delay_s)

    def is_up(self, path: str) -> bool:
        """Whether a probe at the root (such as /readyz) answers 200 now. Tries once, raises nothing."""
        try:
            response = self._client.get(path, timeout=_CONNECT_S)
        except FAILURES:
            return False
        return bool(response.status_code == httpx2.codes.OK)

    def _timeout(self, patience: Patience) -> httpx2.Timeout:
        left_s = patience.left_s()
        longest_s = self._timeout_s
        if left_s is not None:
            longest_s = max(_LEAST_TIMEOUT_S, min(longest_s, left_s))
        # Only a deadline bounds the wait for a free connection: it is no trouble of the server's.
        pool_s = None if left_s is None else longest_s
        return httpx2.Timeout(longest_s, connect=min(_CONNECT_S, longest_s), pool=pool_s)


class _Sent:
    """Whether a request went out to its end.

    The HTTP library keeps it to itself when the other side stops reading, because there may be an answer
    all the same, such as a 413. When there is none, this tells that nothing can have been carried out.
    """

    def __init__(self) -> None:
        self.is_cut_off = False

    def trace(self, step: str, details: Mapping[str, Any]) -> None:
        """Called by the HTTP library at each step of a request."""
        failure = details.get("exception")
        if ".send_request_" in step and type(failure).__name__ == "WriteError":
            self.is_cut_off = True


def _headers(
    body: bytes | None,
    idempotency_key: str | None,
    content_encoding: str | None,
    prefer: str | None,
) -> dict[str, str]:
    headers = {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    if content_encoding is not None:
        headers["Content-Encoding"] = content_encoding
    if prefer is not None:
        headers["Prefer"] = prefer
    return headers


def _ignore(reason: WaitReason, seconds: float) -> None:
    """Nobody wants to know."""
