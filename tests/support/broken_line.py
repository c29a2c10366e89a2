"""A line to a server that breaks: a TCP proxy whose connections end in the middle of answers."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 65_536


class BrokenLine:
    """Forwards to a port on loopback. Each connection carries some bytes of answers, then breaks.

    How many is drawn from `seed`, up to `most_bytes`: an answer may be lost whole, in part, or not.
    """

    def __init__(self, port: int, *, most_bytes: int, seed: int) -> None:
        self._port = port
        self._most_bytes = most_bytes
        self._chance = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.broken = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def up(self) -> Iterator[BrokenLine]:
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in self._open:
                each.close()

    def _accept(self) -> None:
        pumps = []
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                budget = self._chance.randrange(self._most_bytes)
                for job in ((client, server, None), (server, client, budget)):
                    pumps.append(threading.Thread(target=self._pump, args=job))
                    pumps[-1].start()
        for pump in pumps:
            pump.join()

    def _pump(self, source: socket.socket, target: socket.socket, budget: int | None) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                target.sendall(piece if budget is None else piece[:budget])
                if budget is not None:
                    budget -= len(piece)
                    if budget < 0:
                        self.broken += 1
                        break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
