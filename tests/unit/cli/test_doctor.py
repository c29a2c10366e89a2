"""`opdata doctor`."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from opdata.cli import doctor
from opdata.master_keys import MASTER_KEY_FILE
from tests.support.postgres import drop_database, migrated_database, postgres_server, run_sql
from tests.unit.cli.conftest import Run, connected


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def on_a_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine serves is no matter of these tests."""
    monkeypatch.setenv("OPDATA_PORT", "0")


def findings(run: Run, *flags: str) -> dict[str, dict[str, Any]]:
    """The findings by check; the exit code agrees with them."""
    ran = run("doctor", "--json", *flags)
    checks = ran.json["checks"]
    failed = any(each["status"] == "failed" for each in checks)
    assert ran.json["ok"] is not failed
    assert ran.code == int(failed)
    assert all(each["remedy"] for each in checks if each["status"] == "failed")
    return {each["check"]: each for each in checks}


def test_nothing_is_wrong_before_the_first_start(run: Run, tmp_path: Path) -> None:
    found = findings(run)

    assert {name: each["status"] for name, each in found.items()} == {
        "python": "ok",
        "sqlite": "ok",
        "data directory": "skipped",
        "free space": "ok",
        "database": "skipped",
        "master key": "skipped",
        "clock": "ok",
        "address": "ok",
    }
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_wrong_with_a_fresh_installation(run: Run, database: Path) -> None:
    ran = run("doctor")

    assert ran.code == 0
    marks = {line.partition(":")[0] for line in ran.out.splitlines()}
    assert marks == {
        f"✓ {check}"
        for check in (
            *("python", "sqlite", "data directory", "free space", "master key", "schema"),
            *("database", "clock", "address"),
        )
    }


def test_a_failed_check_says_what_to_do(run: Run, database: Path) -> None:
    (database.parent / MASTER_KEY_FILE).chmod(0o644)

    ran = run("doctor")
    assert ran.code == 1
    assert "✗ master key" in ran.out
    assert f"  → chmod 600 opdata-data/{MASTER_KEY_FILE}\n" in ran.out
    assert ran.out.endswith("1 of 9 checks failed.\n")


def test_a_lost_master_key_is_told_from_one_that_was_never_made(run: Run, database: Path) -> None:
    (database.parent / MASTER_KEY_FILE).unlink()

    found = findings(run)["master key"]
    assert found["status"] == "failed"
    assert "backup" in found["remedy"]


def test_a_wrong_master_key_is_found_wherever_it_comes_from(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (database.parent / MASTER_KEY_FILE).read_text().strip()
    monkeypatch.setenv("OPDATA_MASTER_KEY", key)
    assert findings(run)["master key"]["status"] == "ok"

    wrong = "0" * 64
    monkeypatch.setenv("OPDATA_MASTER_KEY", wrong)
    found = findings(run)["master key"]
    assert found["status"] == "failed"
    assert "OPDATA_MASTER_KEY" in found["message"]
    assert wrong not in str(found)


def test_a_malformed_master_key_is_not_printed(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_MASTER_KEY", "hunter2")

    ran = run("doctor")
    assert ran.code == 1
    assert "hunter2" not in ran.out + ran.err


def test_pending_migrations_are_found(run: Run, database: Path) -> None:
    with connected(database) as connection:
        connection.execute("DELETE FROM migrations")

    assert findings(run)["database"]["remedy"] == "Run: opdata db migrate"


def test_a_damaged_database_is_found(run: Run, database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    database.write_bytes(content)

    assert findings(run)["database"]["status"] == "failed"


def test_a_locked_database_is_found(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_BUSY_TIMEOUT_S", "0.1")
    with connected(database) as holder:
        holder.pragma("locking_mode", "exclusive")
        holder.execute("BEGIN EXCLUSIVE")
        found = findings(run)["database"]
        holder.execute("ROLLBACK")
    assert found["status"] == "failed"
    assert "locked" in found["message"]


def test_a_data_directory_that_is_a_file_is_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert findings(run, "--data-dir", "file")["data directory"]["status"] == "failed"
    assert findings(run, "--data-dir", "file/below")["data directory"]["status"] == "failed"


def test_a_database_beside_the_data_directory_has_its_own_directory_checked(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()

    found = findings(run, "--db", "sqlite:///disk/opdata.db")
    assert found["database directory"]["status"] == "ok"
    assert found["data directory"]["status"] == "skipped"


def test_a_full_disk_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 10, 10))

    found = findings(run)["free space"]
    assert found["status"] == "failed"
    assert "10 bytes free" in found["message"]


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A migrated database on a server, named by the environment."""
    url = migrated_database(postgres_server(18).url)
    monkeypatch.setenv("OPDATA_DB", url)
    yield url
    drop_database(url)


def test_a_server_is_looked_over_as_a_file_is(run: Run, postgres: str) -> None:
    found = findings(run)

    assert {name: each["status"] for name, each in found.items()} == {
        "python": "ok",
        "data directory": "skipped",
        "free space": "ok",
        "master key": "skipped",
        "schema": "ok",
        "database": "ok",
        "clock": "ok",
        "address": "ok",
    }
    assert "postgresql 18." in found["database"]["message"]


def test_what_is_wrong_with_a_server_is_found(run: Run, postgres: str) -> None:
    run_sql(postgres, "ALTER TABLE opdata.states SET UNLOGGED")
    name = urlsplit(postgres).path.strip("/")
    run_sql(postgres, f"ALTER DATABASE {name} SET synchronous_commit = off")

    problems = findings(run)["database"]["message"].split("; ")

    assert [problem.partition(":")[0] for problem in problems] == [
        "synchronous_commit is off in this database",
        "opdata.states is unlogged",
    ]


def test_a_clock_apart_from_the_servers_is_found(
    run: Run, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 5)

    assert findings(run)["clock"]["status"] == "failed"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://opdata:canary@127.0.0.1:1/opdata", "Cannot reach postgresql://opdata@127."),
        ("postgresql://opdata:canary@{server}/nonesuch", 'database "nonesuch" does not exist'),
        ("postgresql://opdata:canary@{server}/", "A PostgreSQL URL reads postgresql://"),
    ],
)
def test_a_server_that_cannot_be_opened_is_a_finding_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    server = f"127.0.0.1:{postgres_server(18).port}"
    monkeypatch.setenv("OPDATA_DB", url.format(server=server))

    found = findings(run)["database"]

    assert found["status"] == "failed"
    assert words in found["message"]
    assert "canary" not in str(found)


def test_a_sqlite_that_corrupts_databases_is_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MIN_SQLITE", "99.10.1")

    assert "99.10.1" in findings(run)["sqlite"]["remedy"]


def test_a_clock_behind_the_last_write_is_found(run: Run, database: Path) -> None:
    tomorrow_s = time.time() + 86_400
    os.utime(database, (tomorrow_s, tomorrow_s))

    found = findings(run)["clock"]
    assert found["status"] == "failed"
    assert "last written" in found["message"]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port taken by something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Healthy(BaseHTTPRequestHandler):
    """Answers like a server's /healthz."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def healthy_port() -> Iterator[int]:
    """A port on which /healthz is answered."""
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_port_that_something_else_has_taken_is_found(
    run: Run, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_ANSWER_WITHIN_S", 0.1)

    assert findings(run, "--port", str(silent_port))["address"]["status"] == "failed"


def test_a_running_server_is_no_problem(run: Run, healthy_port: int) -> None:
    found = findings(run, "--port", str(healthy_port))["address"]

    assert found["status"] == "ok"
    assert "answers" in found["message"]


def test_an_address_of_another_machine_is_found(run: Run) -> None:
    found = findings(run, "--host", "192.0.2.1")["address"]

    assert found["status"] == "failed"
    assert "--host" in found["remedy"]


def test_settings_that_cannot_be_read_are_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "opdata.toml").write_text("port = 99999\n")

    ran = run("doctor", "--port", "99999")
    assert (ran.code, ran.out) == (2, "")
    assert "port" in ran.err
