"""A server for the examples to run against: its store does not matter to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import RunningServer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server process, new for each module."""
    running = RunningServer(tmp_path_factory.mktemp("server") / "data").start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def variables(example_server: RunningServer) -> dict[str, str]:
    """The environment variables with which a client finds the server, and a key."""
    return {"OPDATA_URL": example_server.url, "OPDATA_API_KEY": example_server.new_key()}
