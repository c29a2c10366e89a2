"""Servers that a test starts, none of which outlives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.running import RunningServer

Serve = Callable[..., RunningServer]
"""Starts a server with flags, in the test's own data directory and on its own database unless others
are given."""


@pytest.fixture
def serve(tmp_path: Path, db: str) -> Iterator[Serve]:
    yield from serving(tmp_path / "data", db)


@pytest.fixture
def serve_as_told(tmp_path: Path) -> Iterator[Serve]:
    """The same on the embedded store, for what is about its file, unless another is named."""
    yield from serving(tmp_path / "data", "")


def serving(own_data_dir: Path, own_db: str) -> Iterator[Serve]:
    """Start servers until the test is over."""
    started: list[RunningServer] = []

    def start(
        *flags: str,
        data_dir: Path = own_data_dir,
        db: str = own_db,
        env: dict[str, str] | None = None,
    ) -> RunningServer:
        server = RunningServer(data_dir, *flags, db=db, env=env)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        with suppress(AssertionError):  # it has been stopped, as a test that succeeds does
            server.kill()
