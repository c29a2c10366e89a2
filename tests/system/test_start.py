"""Starts that go well together, and starts that are refused with nothing touched."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.support.api import player
from tests.support.ports import free_port
from tests.support.running import OPDATA, RunningServer
from tests.system import starting
from tests.system.conftest import Serve


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that has stored a player and has stopped."""
    server = RunningServer(tmp_path_factory.mktemp("sealed") / "data").start()
    with closing(server.client()) as client:
        client.post("/batch/entities", json=[player("p1")]).raise_for_status()
    assert server.stop() == 0
    return server.data_dir


@pytest.fixture
def data_dir(sealed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = tmp_path / "data"
    subprocess.run(["cp", "-a", str(sealed), str(copy)], check=True)
    return copy


def _contents(folder: Path) -> dict[str, str]:
    """A digest of every file that keeps something: an empty log and its index keep nothing."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if not path.name.endswith("-shm") and path.stat().st_size
    }


def _refused(data_dir: Path, *, port: int | None = None, **env: str) -> str:
    """Try to start; what was said. The start must fail with exit code 2 and touch nothing."""
    before = _contents(data_dir)
    done = subprocess.run(
        [OPDATA, "serve", "--data-dir", str(data_dir), "--port", str(port or free_port())],
        capture_output=True,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert _contents(data_dir) == before
    return done.stderr


def test_a_database_of_a_newer_version_is_refused_untouched(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "opdata.db")) as connection:
        connection.execute("INSERT INTO migrations VALUES ('9999_from_the_future.sql', 0)")
        connection.commit()
    said = _refused(data_dir)
    assert "9999_from_the_future.sql" in said
    assert "newer" in said


def test_a_wrong_master_key_is_refused_untouched(data_dir: Path) -> None:
    """W49."""
    said = _refused(data_dir, OPDATA_MASTER_KEY="ab" * 32)
    assert "master key" in said
    assert "ab" * 32 not in said


def test_a_wrong_key_file_is_refused_untouched(data_dir: Path) -> None:
    """W49."""
    (data_dir / "master.key").write_text("cd" * 32)
    assert "cd" * 32 not in _refused(data_dir)


def test_a_missing_master_key_is_refused_and_no_new_one_made(data_dir: Path) -> None:
    """W49: a new one would open nothing of what is there."""
    (data_dir / "master.key").unlink()
    assert "master key" in _refused(data_dir)
    assert not (data_dir / "master.key").exists()


@pytest.mark.parametrize("text", ["", "not hex", "ab" * 31, "ab" * 33])
def test_a_malformed_key_file_is_refused_untouched(data_dir: Path, text: str) -> None:
    (data_dir / "master.key").write_text(text)
    assert "64 hex digits" in _refused(data_dir)


def test_a_key_file_that_others_may_read_is_refused_untouched(data_dir: Path) -> None:
    (data_dir / "master.key").chmod(0o644)
    assert "chmod 600" in _refused(data_dir)


def test_the_key_may_come_from_the_environment_alone(data_dir: Path, serve_as_told: Serve) -> None:
    """W49."""
    key = (data_dir / "master.key").read_text().strip()
    (data_dir / "master.key").unlink()
    server = serve_as_told(data_dir=data_dir, env={"OPDATA_MASTER_KEY": key})
    with closing(server.client()) as client:
        found = client.get("/entities/p1").json()["data"]
        assert found["data"] == player("p1")["data"]
    assert server.stop() == 0
    assert not (data_dir / "master.key").exists()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path, journal: str) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    connection = sqlite3.connect(data_dir / "opdata.db")
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE accounts (name TEXT)")
    connection.execute("INSERT INTO accounts VALUES ('theirs')")
    connection.commit()
    connection.close()
    assert "another program" in _refused(data_dir)


@pytest.mark.parametrize(
    "content", [b"just some text\n" * 100, b"SQLite format 3\0" + b"\xff" * 999]
)
def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "opdata.db").write_bytes(content)
    assert "nothing was touched" in _refused(data_dir)


def test_an_address_in_use_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = _refused(tmp_path / "data", port=port)
    assert str(port) in said
    assert list((tmp_path / "data").iterdir()) == []


def _assert_made_once(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "opdata.db")) as connection:
        assert connection.execute("SELECT name FROM operators").fetchall() == [("default",)]
        assert connection.execute("SELECT count(*) FROM master_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_four_servers_started_at_once_on_an_empty_directory_all_serve(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ports = [free_port() for _ in range(4)]
    log = (tmp_path / "log").open("ab")
    processes = [
        subprocess.Popen(
            [OPDATA, "serve", "--data-dir", str(data_dir), "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        for port in ports
    ]
    try:
        deadline = time.monotonic() + 60
        waiting = list(zip(ports, processes, strict=True))
        while waiting:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            port, process = waiting[0]
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                    waiting.pop(0)
            except httpx2.TransportError:
                time.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(30) for process in processes]
        log.close()
    assert codes == [0, 0, 0, 0]
    _assert_made_once(data_dir)


def test_processes_that_make_a_directory_ready_at_the_same_moment_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    """Many times over, and started together: here a race would show."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.system.starting"])
    for number in range(12):
        data_dir = tmp_path / f"data{number}"
        barrier = processes.Barrier(4)
        started = [
            processes.Process(target=starting.initialise, args=(str(data_dir), barrier))
            for _ in range(4)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(60)
        assert [process.exitcode for process in started] == [0, 0, 0, 0], number
        _assert_made_once(data_dir)
