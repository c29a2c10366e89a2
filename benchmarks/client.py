"""The thinnest HTTP client: a socket and prepared bytes, so that the server is what is measured."""

from __future__ import annotations

import socket
import time

_READ_BYTES = 1 << 16


class Connection:
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int, key: str) -> None:
        self._key = key
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method: str, path: str, body: bytes) -> tuple[float, bytes]:
        """Send; return seconds until the whole answer is there, and the answer's body."""
        head = (
            f"{method} /operator-data-api{path} HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        message = head.encode() + body
        started = time.perf_counter()
        self._socket.sendall(message)
        answer = self._answer()
        seconds = time.perf_counter() - started
        status, _, content = answer.partition(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:500].decode("utf-8", "replace"))
        return seconds, content

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _answer(self) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._socket.recv(_READ_BYTES)
        head = received[: received.index(b"\r\n\r\n")].lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        total = len(head) + 4 + length
        while len(received) < total:
            received += self._socket.recv(_READ_BYTES)
        return received
