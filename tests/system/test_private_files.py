"""Whatever a server and its commands make is for their own user alone, also where the umask would let others in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import player
from tests.system.conftest import Serve


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> dict[str, str]:
    """What others may read, write or enter below a folder, by name."""
    modes = {str(path.relative_to(folder)): path.lstat().st_mode for path in folder.rglob("*")}
    return {name: stat.filemode(mode) for name, mode in modes.items() if mode & 0o077}


@pytest.mark.usefixtures("open_umask")
def test_nothing_that_a_server_makes_is_open_to_others(
    tmp_path: Path, serve_as_told: Serve
) -> None:
    # A volume that was there before, and lets others look into it.
    (tmp_path / "data").mkdir(mode=0o755)
    (tmp_path / "tmp").mkdir()
    env = {"TMPDIR": str(tmp_path / "tmp"), **os.environ}
    server = serve_as_told("--workers", "2", env=env)
    client = server.client()
    client.post("/batch/entities", json=[player("p")]).raise_for_status()
    server.command("backup", "create")

    made = {path.name for path in server.data_dir.rglob("*")}
    assert {"opdata.db", "opdata.db-wal", "opdata.db-shm", "master.key", "metrics"} <= made
    assert any(name.startswith("opdata.db-limits") for name in made)
    assert any(name.startswith("opdata-") for name in made)
    assert any(name.endswith(".db") and name.startswith("counter") for name in made)
    assert open_to_others(server.data_dir) == {}
    assert open_to_others(tmp_path / "tmp") == {}
    assert server.stop() == 0
    assert open_to_others(server.data_dir) == {}
