"""What all connections of a worker share: their limits, whether it is stopping, and whom it turned away."""

from __future__ import annotations

from opdata.api.errors import STATUS, error_reply
from opdata.api.metrics import Metrics
from opdata.api.request_id import request_id
from opdata.errors import Busy, WireError
from opdata.logs import log


class Door:
    """The limits of a worker's connections."""

    def __init__(self, max_connections: int, receive_timeout_s: float, metrics: Metrics) -> None:
        self.max_connections = max_connections
        self.receive_timeout_s = receive_timeout_s
        self.stopping = False
        self.connections = 0
        self._metrics = metrics

    def require_open(self) -> None:
        """Raise `Busy` when the server is stopping."""
        if self.stopping:
            message = "The server is stopping"
            raise Busy(message)

    def turned_away(self, reason: str) -> None:
        """Count a request or connection that was not let through."""
        self._metrics.refused(reason)

    def refusal(self, error: WireError, reason: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for a request of which there is no more than its bytes (W2, W8)."""
        own_id = request_id(None)
        self.turned_away(reason)
        self._metrics.request("unrouted", STATUS[error.code], 0.0)
        log.info("refused", reason=reason, status=STATUS[error.code], request_id=own_id)
        reply, headers = error_reply(error)
        always = [
            ("content-type", "application/json"),
            ("content-length", str(len(reply.body))),
            ("x-request-id", own_id),
        ]
        return reply.status, [*always, *headers], reply.body
