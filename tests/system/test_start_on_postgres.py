"""Starts on a PostgreSQL database: many at once, and those that are refused with nothing touched."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2
import pytest

from tests.support.api import player
from tests.support.ports import free_port
from tests.support.postgres import drop_database, new_database, postgres_server, run_sql
from tests.support.running import OPDATA, RunningServer
from tests.support.stored import stored_at
from tests.system.conftest import Serve

SERVERS = 4
PASSWORD = "canary-pass-5f1e"


@pytest.fixture
def empty() -> Iterator[str]:
    """A database with nothing in it, not even the schema."""
    url = new_database(postgres_server(18).url)
    yield url
    drop_database(url)


def _serving(url: str, data_dir: Path, **env: str) -> subprocess.Popen[str]:
    data_dir.mkdir(exist_ok=True)
    return subprocess.Popen(
        [OPDATA, "serve", "--data-dir", str(data_dir), "--port", env.pop("PORT", str(free_port()))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OPDATA_DB": url, **env},
        text=True,
    )


def _refused(code: int, url: str, data_dir: Path, **env: str) -> str:
    """Try to start, which must fail with this code and make nothing; what was said."""
    process = _serving(url, data_dir, **env)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert PASSWORD not in said
    assert list(data_dir.iterdir()) == []
    return said


def _with_password(url: str, **parts: str) -> str:
    split = urlsplit(url)
    return urlunsplit(split._replace(netloc=f"opdata:{PASSWORD}@127.0.0.1:{split.port}", **parts))


def _contents(url: str) -> list[tuple[object, ...]]:
    """Every table, function and row count outside the system's own schemas."""
    tables = run_sql(
        url,
        "SELECT schemaname, relname, n_live_tup FROM pg_stat_user_tables ORDER BY 1, 2",
    )
    return [
        (*table, run_sql(url, f"SELECT count(*) FROM {table[0]}.{table[1]}")) for table in tables
    ]


def test_servers_that_start_at_once_on_an_empty_database_all_serve(
    empty: str, tmp_path: Path
) -> None:
    """The schema is applied once, and there is one first operator and one master key."""
    key = secrets.token_hex(32)
    ports = [free_port() for _ in range(SERVERS)]
    processes = [
        _serving(empty, tmp_path / str(port), PORT=str(port), OPDATA_MASTER_KEY=key)
        for port in ports
    ]
    try:
        deadline = time.monotonic() + 60
        waiting = list(zip(ports, processes, strict=True))
        while waiting:
            assert time.monotonic() < deadline
            port, process = waiting[0]
            assert process.poll() is None, process.communicate()
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                    waiting.pop(0)
            except httpx2.TransportError:
                time.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()
        ended = [(process.communicate(timeout=30)[0], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * SERVERS, ended
    stored = stored_at(empty)
    applied = stored.rows("SELECT name FROM migrations")
    assert len(applied) == len(set(applied)) >= 1
    assert stored.rows("SELECT name FROM operators") == [("default",)]
    assert stored.rows("SELECT count(*) FROM master_keys") == [(1,)]


def test_a_second_host_without_the_master_key_is_refused(empty: str, tmp_path: Path) -> None:
    """W49: it makes no key of its own, which would open nothing of what is there."""
    one, other = RunningServer(tmp_path / "one", db=empty).start(), tmp_path / "other"
    process = _serving(empty, other)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, "master key" in said) == (2, True), said
    assert stored_at(empty).rows("SELECT count(*) FROM master_keys") == [(1,)]
    assert not (other / "master.key").exists()
    assert one.stop() == 0


def test_a_schema_of_another_program_is_refused_untouched(empty: str, tmp_path: Path) -> None:
    run_sql(empty, "CREATE SCHEMA opdata")
    run_sql(empty, "CREATE TABLE opdata.entities (name TEXT)")
    run_sql(empty, "INSERT INTO opdata.entities VALUES ('theirs')")
    before = _contents(empty)
    said = _refused(2, empty, tmp_path / "data")
    assert "another program" in said
    assert "nothing was touched" in said
    assert _contents(empty) == before
    assert run_sql(empty, "SELECT name FROM opdata.entities") == [("theirs",)]


def test_tables_of_others_beside_the_schema_do_not_matter(empty: str, serve_as_told: Serve) -> None:
    run_sql(empty, "CREATE TABLE entities (name TEXT)")
    run_sql(empty, "INSERT INTO entities VALUES ('theirs')")
    server = serve_as_told(db=empty)
    with closing(server.client()) as client:
        client.post("/entities", json=player("ours")).raise_for_status()
    assert server.stop() == 0
    assert run_sql(empty, "SELECT name FROM public.entities") == [("theirs",)]
    assert run_sql(empty, "SELECT external_id FROM opdata.entities") == [("ours",)]


def test_a_database_of_a_newer_version_is_refused_untouched(
    empty: str, serve_as_told: Serve, tmp_path: Path
) -> None:
    assert serve_as_told(db=empty).stop() == 0
    stored_at(empty).change("INSERT INTO migrations VALUES ('9999_from_the_future.sql', 0)")
    before = _contents(empty)
    said = _refused(2, empty, tmp_path / "other")
    assert "9999_from_the_future.sql" in said
    assert "newer" in said
    assert _contents(empty) == before


def test_a_wrong_or_missing_master_key_is_refused_untouched(
    empty: str, serve_as_told: Serve, tmp_path: Path
) -> None:
    """W49."""
    right, wrong = secrets.token_hex(32), secrets.token_hex(32)
    server = serve_as_told(db=empty, env={"OPDATA_MASTER_KEY": right})
    with closing(server.client()) as client:
        client.post("/entities", json=player("p")).raise_for_status()
    assert server.stop() == 0
    before = _contents(empty)
    said = _refused(2, empty, tmp_path / "wrong", OPDATA_MASTER_KEY=wrong)
    assert "master key" in said
    assert wrong not in said
    assert "master key" in _refused(2, empty, tmp_path / "missing")
    assert _contents(empty) == before


def test_a_database_that_does_not_exist_is_refused_by_name(empty: str, tmp_path: Path) -> None:
    url = _with_password(empty, path="/opdata_nowhere")
    said = _refused(2, url, tmp_path / "data")
    assert '"opdata_nowhere" does not exist' in said
    assert len(said.splitlines()) == 1


def test_a_url_without_a_database_is_refused(empty: str, tmp_path: Path) -> None:
    said = _refused(2, _with_password(empty, path=""), tmp_path / "data")
    assert "postgresql://user@host:5432/database" in said


def test_a_server_that_is_down_is_unavailable(tmp_path: Path) -> None:
    port = free_port()
    url = f"postgresql://opdata:{PASSWORD}@127.0.0.1:{port}/opdata"
    said = _refused(4, url, tmp_path / "data", OPDATA_BUSY_TIMEOUT_S="1")
    assert str(port) in said
    assert len(said.splitlines()) == 1


def test_an_address_in_use_is_refused_before_anything_is_made(empty: str, tmp_path: Path) -> None:
    taken = httpx2.URL(postgres_server(18).url).port
    said = _refused(2, empty, tmp_path / "data", PORT=str(taken))
    assert str(taken) in said
    assert _contents(empty) == []


def test_the_password_of_the_url_is_shown_nowhere(
    empty: str, serve_as_told: Serve, tmp_path: Path
) -> None:
    url = _with_password(empty)
    server = serve_as_told(db=url)
    with closing(server.client()) as client:
        client.post("/entities", json=player("p")).raise_for_status()
        # A fault, whose traceback is logged.
        with stored_at(empty).failing_writes("entities"):
            assert client.post("/entities", json=player("q")).status_code == 500
        pages = [server.page(page).text for page in ("/metrics", "/readyz")]
    env = {**os.environ, "OPDATA_DB": url}
    for command in (["db", "check"], ["doctor"], ["operators", "list"], ["db", "migrate"]):
        done = subprocess.run(
            [OPDATA, *command, "--data-dir", str(server.data_dir)],
            capture_output=True,
            env=env,
            text=True,
            timeout=60,
            check=False,
        )
        pages += [done.stdout, done.stderr]
    assert server.stop() == 0
    assert "RaiseError" in server.log.read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    said = "\n".join([*pages, *(path.read_text(errors="replace") for path in files)])
    assert PASSWORD not in said
    # It is no matter of what it is asked for by: `trust` takes any.
    assert stored_at(empty).rows("SELECT external_id FROM entities") == [("p",)]
