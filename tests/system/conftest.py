"""Servers that a test starts, none of which outlives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.running import RunningServer

Serve = Callable[..., RunningServer]
"""Starts a server on a data directory, the test's own `data` unless one is given, with flags."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[RunningServer] = []

    def start(
        *flags: str, data_dir: Path = tmp_path / "data", env: dict[str, str] | None = None
    ) -> RunningServer:
        server = RunningServer(data_dir, *flags, env=env)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        with suppress(AssertionError):  # it has been stopped, as a test that succeeds does
            server.kill()
