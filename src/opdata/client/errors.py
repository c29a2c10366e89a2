"""What can go wrong between a client and a server, told apart by what the caller can do."""

from __future__ import annotations

import httpx2


class ClientError(Exception):
    """A request did not get the answer it wanted."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unreachable(ClientError):
    """Patience ran out: no connection, or nothing but 429, 503 and the like for too long."""


class Refused(ClientError):
    """The server answered with an error that the same request would meet again.

    `replayed` marks the stored answer of an earlier request with the same key (W41).
    """

    def __init__(self, status: int, code: str, message: str, *, replayed: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.replayed = replayed

    @property
    def changed_nothing(self) -> bool:
        """Whether the server says that it did nothing: its own 4xx."""
        return bool(self.code) and httpx2.codes.is_client_error(self.status)


class Unauthorized(Refused):
    """The key is missing, malformed, unknown or revoked (W3)."""


class TooLarge(Refused):
    """The body is over the server's limit; less of it may pass."""
