"""A server in memory, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opdata import Client
from opdata.testing import FakeServer


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    with fake.client() as client:
        yield client
