"""The exception tree. A class's docstring is its default message; HTTP is no concern of this page.

`WireError`s are answered to clients under their stable `code` (WIRE.md §2); `StartupError`s stop a
command before it has touched anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class OpdataError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)

    @property
    def reason(self) -> str:
        """For the log of whoever runs the server: what has caused it, else what it says."""
        cause = self.__cause__
        return self.message if cause is None else f"{type(cause).__name__}: {cause}"


class StartupError(OpdataError):
    """The command cannot start."""


class ConfigError(StartupError):
    """A setting is not valid."""


class DatabaseTooNew(StartupError):
    """The database was written by a newer opdata."""


class DatabaseNotMigrated(StartupError):
    """The database lacks migrations that this opdata needs."""


class MasterKeyMissing(StartupError):
    """The database holds sealed data and no master key was found."""


class MasterKeyMismatch(StartupError):
    """The master key is not the one this database was sealed with."""


class SealBroken(OpdataError):
    """A sealed record failed its authentication: it was edited, truncated or moved."""


class WireError(OpdataError):
    """An answer to a client. `code` is stable; `retryable` says whether the same request may succeed later."""

    code: ClassVar[str]
    retryable: ClassVar[bool] = False


class InvalidInput(WireError):
    """The request is malformed."""

    code = "INVALID_INPUT"


class TemplateNotConfigured(WireError):
    """No template is set: call PUT /settings with a templateId first."""

    code = "TEMPLATE_NOT_CONFIGURED"


class ValidationFailed(WireError):
    """The item does not fit the template."""

    code = "VALIDATION_FAILED"


class Unauthorized(WireError):
    """Missing or invalid API key"""

    code = "UNAUTHORIZED"


class Forbidden(WireError):
    """The API key does not have the scope that this needs."""

    code = "FORBIDDEN"

    def __init__(self, scopes: Iterable[str]) -> None:
        """`scopes`: any of them would have done (W11)."""
        super().__init__(f"This needs an API key with the scope {' or '.join(scopes)}")


class NotFound(WireError):
    """Not found"""

    code = "NOT_FOUND"


class MethodNotAllowed(WireError):
    """Method not allowed"""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"Method not allowed; this path answers {', '.join(allowed)}")
        self.allowed = allowed


class RequestTimeout(WireError):
    """The request did not arrive in time; nothing was done."""

    code = "REQUEST_TIMEOUT"
    retryable = True


class Conflict(WireError):
    """The request conflicts with the present state."""

    code = "CONFLICT"


class IdempotencyInFlight(Conflict):
    """A request with this Idempotency-Key is still in flight."""

    retryable = True
    retry_after_s = 1


class PayloadTooLarge(WireError):
    """The body is too large."""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(WireError):
    """The Content-Encoding is not supported; send identity, gzip or zstd."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class IdempotencyKeyReused(WireError):
    """This Idempotency-Key was used with a different request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class RateLimited(WireError):
    """Rate limit exceeded"""

    code = "RATE_LIMITED"
    retryable = True

    def __init__(self, category: str, retry_after_s: int, reset_at_ms: int) -> None:
        super().__init__(f"Rate limit exceeded for {category}")
        self.retry_after_s = retry_after_s
        self.reset_at_ms = reset_at_ms


class InternalError(WireError):
    """Internal server error"""

    code = "INTERNAL_ERROR"


class Unavailable(WireError):
    """The store cannot take the request now; nothing was written. Try again later."""

    code = "UNAVAILABLE"
    retryable = True

    def __init__(self, message: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Unavailable):
    """The server is busy. Nothing was written; try again later."""
