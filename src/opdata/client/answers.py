"""What an HTTP response says: the success it holds, or the exception it becomes. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx2
import msgspec
from msgspec import Raw, Struct

from opdata.client.errors import (
    BY_CODE,
    ForeignAnswer,
    InternalError,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TooLarge,
    Unreachable,
)
from opdata.client.retry import MAX_INTERNAL_ERRORS, WaitReason, parse_retry_after_s, wait_reason

_NOTHING_DONE = frozenset({429, 503})
_NEVER_LEFT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.WriteError,
)
"""Failures of a request that did not leave, or not to its end: nobody can have carried it out."""
FAILURES = (httpx2.TransportError, httpx2.DecodingError)
"""What the HTTP library raises when there is no answer, or none that can be read."""


class Answer(Struct, frozen=True):
    """A success: the `data` of the envelope (W2), still encoded.

    `replayed` marks the stored answer of an earlier request with the same key (W41); `unsure` that
    an earlier attempt of this very call may have been the one that was executed.
    """

    data: bytes
    replayed: bool
    unsure: bool
    request_id: str | None = None
    status: int = 200


class Trouble(Struct, frozen=True):
    """Why an attempt has to be repeated."""

    reason: WaitReason
    message: str
    retry_after_s: float | None = None
    response: httpx2.Response | None = None


class _ErrorBody(Struct):
    code: str
    message: str


class _Envelope(Struct):
    success: bool
    data: Raw = Raw()
    error: _ErrorBody | None = None
    resetAt: datetime | None = None  # noqa: N815 - as it stands on the wire


_envelopes = msgspec.json.Decoder(_Envelope)


class Exchange:
    """The attempts of one request: what each of them means, and what all of them came to."""

    def __init__(self, url: str, *, idempotency_key: str | None, writes: bool) -> None:
        self._url = url
        self._idempotency_key = idempotency_key
        self._writes = writes
        self._internal_errors = 0
        self.unsure = False
        """Whether an attempt that was not answered may have been executed."""

    def failed(self, error: Exception, *, cut_off: bool = False) -> Trouble:
        """An attempt that got no answer; `cut_off` when the other side stopped taking it before its end."""
        self.unsure = self.unsure or not (cut_off or isinstance(error, _NEVER_LEFT))
        cause = str(error) or type(error).__name__
        return Trouble("unreachable", f"{self._url} cannot be reached: {cause}")

    def answered(self, response: httpx2.Response) -> Answer | Trouble:
        """An attempt that was answered. Raises the `Refused` of an answer that is final."""
        status = response.status_code
        retry_after_s = parse_retry_after_s(response.headers.get("Retry-After"))
        self._internal_errors += status == httpx2.codes.INTERNAL_SERVER_ERROR
        reason = wait_reason(status, retry_after_s)
        if reason is None or self._internal_errors > MAX_INTERNAL_ERRORS:
            return self._settle(response)
        # A 429 comes before anything is executed (W4), and a 503 wrote nothing.
        self.unsure = self.unsure or status not in _NOTHING_DONE
        message = f"{self._url} keeps answering {_describe(response)}"
        return Trouble(reason, message, retry_after_s, response)

    def exhausted(self, trouble: Trouble) -> Unreachable:
        """The exception of a request that nobody will repeat any more."""
        response = trouble.response
        context = self._context(response)
        if self.unsure and self._writes:
            again = "look before repeating it"
            if self._idempotency_key is not None:
                again = "repeat it under the idempotency_key of this error"
            message = f"{trouble.message}. The write may have been carried out: {again}"
            unknown = OutcomeUnknown(message, **context | {"outcome_unknown": True})
            unknown.trouble = trouble.message
            return unknown
        envelope = None if response is None else _open(response)
        if response is not None and envelope is not None and envelope.error is not None:
            kind = BY_CODE.get(envelope.error.code, Refused)
            if issubclass(kind, Unreachable):
                status = response.status_code
                error = kind(status, envelope.error.code, trouble.message, **context)
                if isinstance(error, RateLimited):
                    error.reset_at = envelope.resetAt
                return error
        return Unreachable(trouble.message, **context)

    def _settle(self, response: httpx2.Response) -> Answer:
        status = response.status_code
        replayed = response.headers.get("Idempotent-Replayed", "").lower() == "true"
        envelope = _open(response)
        if (
            response.is_success
            and envelope is not None
            and envelope.success
            and bytes(envelope.data)
        ):
            return Answer(
                bytes(envelope.data), replayed, self.unsure, _request_id(response), status
            )
        # An answer to this attempt says nothing of an earlier one, unless it is that one's.
        is_unknown = self._writes and self.unsure and not replayed
        context = self._context(response) | {"outcome_unknown": is_unknown}
        if envelope is None or envelope.error is None:
            foreign = f"{self._url} answered HTTP {status}, but not as an Operator Data API does"
            if status == httpx2.codes.CONTENT_TOO_LARGE:
                # A proxy with a limit of its own: its word counts as the server's would.
                raise TooLarge(status, "PAYLOAD_TOO_LARGE", foreign, **context)
            # Whether a server behind it got the request, such an answer does not say.
            raise ForeignAnswer(status, "", foreign, **context | {"outcome_unknown": self._writes})
        kind = BY_CODE.get(envelope.error.code, Refused)
        if kind is InternalError:
            context["outcome_unknown"] = self._writes
        raise kind(
            status, envelope.error.code, envelope.error.message, replayed=replayed, **context
        )

    def _context(self, response: httpx2.Response | None) -> dict[str, Any]:
        return {
            "request_id": None if response is None else _request_id(response),
            "idempotency_key": self._idempotency_key,
        }


def _open(response: httpx2.Response) -> _Envelope | None:
    try:
        return _envelopes.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _request_id(response: httpx2.Response) -> str | None:
    found: str | None = response.headers.get("X-Request-Id")
    return found


def _describe(response: httpx2.Response) -> str:
    envelope = _open(response)
    if envelope is None or envelope.error is None:
        return f"HTTP {response.status_code}"
    return f"{response.status_code} {envelope.error.code}: {envelope.error.message}"
