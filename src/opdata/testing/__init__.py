"""For tests of programs that use the client: a server in memory that can be told to misbehave."""

from __future__ import annotations

from opdata.testing.clock import VirtualTime
from opdata.testing.fake_server import FakeServer, Received

__all__ = ["FakeServer", "Received", "VirtualTime"]
