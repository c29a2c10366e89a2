"""One HTTP request to the API, repeated until it is answered for good or patience runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import httpx2
import msgspec
from msgspec import Raw, Struct

from opdata.client.errors import Refused, TooLarge, Unauthorized, Unreachable
from opdata.client.retry import (
    MAX_INTERNAL_ERRORS,
    Backoff,
    Patience,
    WaitReason,
    parse_retry_after_s,
    wait_reason,
)

BASE_PATH = "/operator-data-api"
_TIMEOUT = httpx2.Timeout(connect=5.0, read=60.0, write=60.0, pool=None)
_NOTHING_DONE = frozenset({429, 503})

OnWait = Callable[[WaitReason, float], None]
"""Called before every wait, with its reason and its seconds."""


class Answer(Struct, frozen=True):
    """A success: the `data` of the envelope (W2), still encoded.

    `replayed` marks the stored answer of an earlier request with the same key (W41); `unsure` that
    an earlier attempt of this very call may have been the one that was executed.
    """

    data: bytes
    replayed: bool
    unsure: bool


class _ErrorBody(Struct):
    code: str
    message: str


class _Envelope(Struct):
    success: bool
    data: Raw = Raw()
    error: _ErrorBody | None = None


_envelopes = msgspec.json.Decoder(_Envelope)


class AsyncTransport:
    """A connection pool to one server with one key. Use as an async context manager.

    `url` is the server's root; the base path (W1) is added. A call may repeat its request whenever
    the server can tell the repetition: the caller gives an `Idempotency-Key` where that matters.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        backoff: Backoff | None = None,
        on_wait: OnWait | None = None,
        connections: int = 10,
    ) -> None:
        self.url = url
        self._patience = Patience(backoff or Backoff())
        self._on_wait = on_wait or _ignore
        self._client = httpx2.AsyncClient(
            base_url=url.rstrip("/") + BASE_PATH,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "opdata-client"},
            timeout=_TIMEOUT,
            limits=httpx2.Limits(max_connections=connections),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        params: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Post a JSON body. Raises `Unauthorized`, `TooLarge`, `Refused` or `Unreachable`."""
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        attempt = 0
        internal_errors = 0
        unsure = False
        while True:
            attempt += 1
            retry_after_s = None
            try:
                response = await self._client.post(
                    path, content=body, params=params, headers=headers
                )
            except httpx2.TransportError as error:
                reason: WaitReason = "unreachable"
                trouble = f"{self.url} cannot be reached: {str(error) or type(error).__name__}"
                # A request that never left cannot have been executed.
                unsure = unsure or not isinstance(error, httpx2.ConnectError)
            else:
                self._patience.heard()
                status = response.status_code
                internal_errors += status == httpx2.codes.INTERNAL_SERVER_ERROR
                transient = wait_reason(status)
                if transient is None or internal_errors > MAX_INTERNAL_ERRORS:
                    return self._settle(response, unsure=unsure)
                reason = transient
                trouble = f"{self.url} keeps answering {_describe(response)}"
                retry_after_s = parse_retry_after_s(response.headers.get("Retry-After"))
                # A 429 comes before anything is executed (W4), and a 503 wrote nothing.
                unsure = unsure or status not in _NOTHING_DONE
            delay_s = self._patience.delay_s(attempt, retry_after_s)
            if delay_s is None:
                raise Unreachable(trouble)
            self._on_wait(reason, delay_s)
            await asyncio.sleep(delay_s)

    def _settle(self, response: httpx2.Response, *, unsure: bool) -> Answer:
        replayed = response.headers.get("Idempotent-Replayed", "").lower() == "true"
        envelope = _open(response)
        if (
            response.is_success
            and envelope is not None
            and envelope.success
            and bytes(envelope.data)
        ):
            self._patience.progressed()
            return Answer(bytes(envelope.data), replayed, unsure)
        status = response.status_code
        if envelope is None or envelope.error is None:
            foreign = f"{self.url} answered HTTP {status}, but not as an Operator Data API does"
            raise Refused(status, "", foreign)
        code, message = envelope.error.code, envelope.error.message
        if status == httpx2.codes.UNAUTHORIZED:
            raise Unauthorized(status, code, message)
        if status == httpx2.codes.CONTENT_TOO_LARGE:
            raise TooLarge(status, code, message)
        raise Refused(status, code, message, replayed=replayed)


def _open(response: httpx2.Response) -> _Envelope | None:
    try:
        return _envelopes.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _describe(response: httpx2.Response) -> str:
    envelope = _open(response)
    if envelope is None or envelope.error is None:
        return f"HTTP {response.status_code}"
    return f"{response.status_code} {envelope.error.code}: {envelope.error.message}"


def _ignore(reason: WaitReason, seconds: float) -> None:
    """Nobody wants to know."""
