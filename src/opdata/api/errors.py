"""One code, one status: the errors of WIRE.md §2 as HTTP answers."""

from __future__ import annotations

import math
from typing import Final

from opdata.errors import (
    IdempotencyInFlight,
    MethodNotAllowed,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    WireError,
)
from opdata.model import ItemCode, ItemError
from opdata.storage.work import Reply
from opdata.wire import encode

STATUS: Final[dict[str, int]] = {
    "INVALID_INPUT": 400,
    "TEMPLATE_NOT_CONFIGURED": 400,
    "VALIDATION_FAILED": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "CONFLICT": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "IDEMPOTENCY_KEY_REUSED": 422,
    "RATE_LIMITED": 429,
    "INTERNAL_ERROR": 500,
    "UNAVAILABLE": 503,
}

ACCEPTED_ENCODINGS: Final = "gzip, zstd"

_ITEM_CODES: Final[dict[ItemCode, str]] = {
    "VALIDATION_FAILED": "VALIDATION_FAILED",
    "NOT_FOUND": "NOT_FOUND",
    "DUPLICATE_CONFLICT": "CONFLICT",
}

Headers = list[tuple[str, str]]


def error_reply(error: WireError) -> tuple[Reply, Headers]:
    """The answer to an error, and the headers that belong to it."""
    reset_at_ms = error.reset_at_ms if isinstance(error, RateLimited) else None
    body = encode.failure(error.code, error.message, reset_at_ms)
    return Reply(STATUS[error.code], body), _headers(error)


def item_reply(error: ItemError) -> Reply:
    """The answer of a single-item endpoint to an item that was refused."""
    code = _ITEM_CODES[error.code]
    return Reply(STATUS[code], encode.failure(code, error.message))


def _headers(error: WireError) -> Headers:
    match error:
        case Unauthorized():
            return [("www-authenticate", "Bearer")]
        case MethodNotAllowed(allowed=allowed):
            return [("allow", ", ".join(allowed))]
        case RequestTimeout():
            return [("connection", "close")]  # what else is to come of it is not waited for
        case UnsupportedMediaType():
            return [("accept-encoding", ACCEPTED_ENCODINGS)]
        case RateLimited() | Unavailable() | IdempotencyInFlight():
            return [("retry-after", str(max(1, math.ceil(error.retry_after_s))))]
        case _:
            return []
