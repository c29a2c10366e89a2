"""A line to PostgreSQL that fails: a TCP proxy that cuts, halves, swallows and holds up what it carries."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal, NamedTuple

_PIECE: Final = 65_536
_COMMIT: Final = b"COMMIT"

Way = Literal["cut", "half", "answer lost", "black hole"]
WAYS: Final[tuple[Way, ...]] = ("cut", "half", "answer lost", "black hole")


class LineFault(NamedTuple):
    """What becomes of the next piece that a server sends, or of the next one with a COMMIT in it.

    `cut`: it is not sent. `half`: half of it is. `answer lost`: it is sent, and no answer comes back.
    `black hole`: nothing is, and the line stays open for `held_s` as if it were well.
    """

    way: Way
    at_commit: bool
    held_s: float = 0.0


class _Call:
    """A connection and the one it is carried on to; what closes one closes both."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.deaf = False

    def hang_up(self) -> None:
        for end in (self.near, self.far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.near.close()
        self.far.close()


class FaultyLine:
    """Carries connections to a port on loopback, and does what `fail` says to one of them."""

    def __init__(self, port: int) -> None:
        self.met: Counter[str] = Counter()
        """Faults that a connection has met, by their way."""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._fault: LineFault | None = None
        self._calls: list[_Call] = []
        self._stopped = threading.Event()

    @contextmanager
    def up(self) -> Iterator[FaultyLine]:
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for call in self._calls:
                call.hang_up()
            thread.join()
            for call in self._calls:
                call.close()

    def fail(self, fault: LineFault) -> None:
        """Do this to the next connection that sends something, or that commits."""
        with self._lock:
            self._fault = fault

    def is_waiting(self) -> bool:
        """Whether no connection has met the fault yet."""
        with self._lock:
            return self._fault is not None

    def _accept(self) -> None:
        pumps = []
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    near.close()
                    continue
                call = _Call(near, far)
                self._calls.append(call)
                for job in (self._to_the_database, self._back):
                    pumps.append(threading.Thread(target=job, args=(call,)))
                    pumps[-1].start()
        for pump in pumps:
            pump.join()

    def _to_the_database(self, call: _Call) -> None:
        with suppress(OSError):
            while piece := call.near.recv(_PIECE):
                fault = self._met_by(piece)
                if fault is None:
                    call.far.sendall(piece)
                    continue
                if fault.way == "half":
                    call.far.sendall(piece[: len(piece) // 2])
                elif fault.way == "answer lost":
                    call.deaf = True
                    call.far.sendall(piece)
                    continue  # until there is an answer to lose
                elif fault.way == "black hole":
                    self._stopped.wait(fault.held_s)
                break
        call.hang_up()

    def _back(self, call: _Call) -> None:
        with suppress(OSError):
            while piece := call.far.recv(_PIECE):
                if call.deaf:
                    break
                call.near.sendall(piece)
        call.hang_up()

    def _met_by(self, piece: bytes) -> LineFault | None:
        with self._lock:
            fault = self._fault
            if fault is None or (fault.at_commit and _COMMIT not in piece):
                return None
            self._fault = None
            self.met[fault.way] += 1
            return fault


def wait_until_met(line: FaultyLine, timeout_s: float) -> None:
    """Until a connection has met the fault."""
    deadline = time.monotonic() + timeout_s
    while line.is_waiting():
        assert time.monotonic() < deadline
        time.sleep(0.002)
