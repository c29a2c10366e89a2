"""Fixtures shared by all suites: what they serve is served on every store."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.api import Api, serving_copy
from tests.support.running import RunningServer
from tests.support.stored import STORES, database_of


def pytest_configure() -> None:
    # A shell ignores Ctrl-C for what it runs in the background, and so would all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A server that was set up in this process logs no further when its test has ended."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture(params=STORES)
def db(request: pytest.FixtureRequest) -> Iterator[str]:
    """The setting `db` that names an empty database, of each store in turn."""
    with database_of(request.param) as setting:
        yield setting


@pytest.fixture(params=STORES, scope="module")
def module_db(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same, for all tests of a module."""
    with database_of(request.param) as setting:
        yield setting


@pytest.fixture(params=STORES)
async def apis(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Api, Api]]:
    """Two operators' views of a server in this process, on each store in turn."""
    async with serving_copy(request.param, tmp_path / "data") as pair:
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
def server(tmp_path_factory: pytest.TempPathFactory, module_db: str) -> Iterator[RunningServer]:
    """A real server process, shared by a module's tests."""
    running = RunningServer(tmp_path_factory.mktemp("server") / "data", db=module_db).start()
    yield running
    assert running.stop() == 0
