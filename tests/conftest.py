"""Fixtures shared by all suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.api import Api, serving_api
from tests.support.running import RunningServer


@pytest.fixture
async def apis(tmp_path: Path) -> AsyncIterator[tuple[Api, Api]]:
    """Two operators' views of a server in this process, quotas out of the way."""
    async with serving_api(tmp_path / "data") as pair:
        yield pair


@pytest.fixture
def api(apis: tuple[Api, Api]) -> Api:
    """Our operator's view."""
    return apis[0]


@pytest.fixture
def other_api(apis: tuple[Api, Api]) -> Api:
    """Another operator's view of the same server."""
    return apis[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real server process, shared by a module's tests."""
    running = RunningServer(tmp_path_factory.mktemp("server") / "data").start()
    yield running
    assert running.stop() == 0
