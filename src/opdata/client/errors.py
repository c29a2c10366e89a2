"""What can go wrong between a client and a server: one class for each code of the wire contract.

`retryable` says whether the same call may succeed later. `outcome_unknown` says that the server may
have carried out the write all the same: repeat it with `idempotency_key`, and nothing is done twice.
No message holds a value of `data`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

import httpx2

if TYPE_CHECKING:
    from opdata.client.queued import QueuedBatches
    from opdata.client.records import Job
    from opdata.client.results import BatchResult


class ClientError(Exception):
    """A call did not get the answer it wanted. The root of everything a client raises by itself."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        """The server's log has the request under it (W8); None when nothing was answered."""
        self.idempotency_key = idempotency_key
        """What the write was sent under, to repeat the call with; None for a read."""
        self.outcome_unknown = outcome_unknown
        self.partial: BatchResult[Any] | None = None
        """What had been acknowledged when a batch call stopped; None for other calls."""
        self.queued: QueuedBatches[Any] | None = None
        """What had been queued when a call that queues batches stopped; None for other calls."""

    def __reduce__(self) -> tuple[Callable[..., ClientError], tuple[Any, ...]]:
        # Worker processes hand errors back pickled, and the arguments differ from class to class.
        return _restore, (type(self), self.message, self.__dict__)


class Unreachable(ClientError):
    """Patience ran out: no connection, or nothing but 429, 503 and the like for too long."""

    retryable = True


class OutcomeUnknown(Unreachable):
    """Patience ran out, and the server may have carried out the write whose answer never came."""

    trouble: str = ""
    """What kept the answer away, without the advice that the message ends with."""


class Refused(ClientError):
    """The server answered with an error.

    `replayed` marks the stored answer of an earlier request with the same key (W41).
    """

    def __init__(
        self, status: int, code: str, message: str, *, replayed: bool = False, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.code = code
        self.replayed = replayed

    @property
    def changed_nothing(self) -> bool:
        """Whether the server says that it did nothing: its own 4xx, and no attempt that was lost."""
        is_its_own = bool(self.code) and httpx2.codes.is_client_error(self.status)
        return is_its_own and not self.outcome_unknown


class ForeignAnswer(Refused):
    """What answered is not this API: another program, or a proxy. `code` is empty."""


class InvalidInput(Refused):
    """400: the request is malformed."""


class TemplateNotConfigured(Refused):
    """400: the operator has no template yet; see `update_settings`."""


class ValidationFailed(Refused):
    """400: the item of a single-item write does not fit the template."""


class Unauthorized(Refused):
    """401: the key is missing, malformed, unknown, revoked or expired, or its operator suspended (W3)."""


class Forbidden(Refused):
    """403: the key lacks the scope that the call needs; the message names it (W11)."""


class NotFound(Refused):
    """404: no such entity, state, job, key or path."""


class MethodNotAllowed(Refused):
    """405: the path does not answer this method."""


class RequestTimedOut(Refused, Unreachable):
    """408: the server waited too long for the request, again and again. Nothing was done."""


class Conflict(Refused):
    """409: an event's key belongs to another event (W42), or the last active key would be revoked."""


class TooLarge(Refused):
    """413: the body is over the server's limit; less of it may pass."""


class UnsupportedMediaType(Refused):
    """415: the server does not read this content coding."""


class IdempotencyKeyReused(Refused):
    """422: the key was used with another body. Nothing was done."""


class RateLimited(Refused, Unreachable):
    """429: the quota of a category was used up for as long as the call would wait. Nothing was done."""

    reset_at: datetime | None = None
    """When the whole quota is there again."""


class InternalError(Refused):
    """500: a fault of the server, several times in a row."""

    retryable = True


class Unavailable(Refused, Unreachable):
    """503: the store could not take the request for as long as the call would wait."""


class ItemsRefused(ClientError):
    """Items of a batch call were refused; `result` has them. Only `raise_for_errors` raises it."""

    def __init__(self, message: str, result: BatchResult[Any]) -> None:
        super().__init__(message)
        self.result = result


class JobFailed(ClientError):
    """A job ended as `failed` or `cancelled`; `job` is its record."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class JobNotDone(ClientError, TimeoutError):
    """A job was still at work when `wait_for_job` stopped waiting; `job` is its last record."""

    retryable = True

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


BY_CODE: Final[dict[str, type[Refused]]] = {
    "INVALID_INPUT": InvalidInput,
    "TEMPLATE_NOT_CONFIGURED": TemplateNotConfigured,
    "VALIDATION_FAILED": ValidationFailed,
    "UNAUTHORIZED": Unauthorized,
    "FORBIDDEN": Forbidden,
    "NOT_FOUND": NotFound,
    "METHOD_NOT_ALLOWED": MethodNotAllowed,
    "REQUEST_TIMEOUT": RequestTimedOut,
    "CONFLICT": Conflict,
    "PAYLOAD_TOO_LARGE": TooLarge,
    "UNSUPPORTED_MEDIA_TYPE": UnsupportedMediaType,
    "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReused,
    "RATE_LIMITED": RateLimited,
    "INTERNAL_ERROR": InternalError,
    "UNAVAILABLE": Unavailable,
}
"""The exception of each code. A code from a newer server is a plain `Refused`."""


def _restore(kind: type[ClientError], message: str, state: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error
