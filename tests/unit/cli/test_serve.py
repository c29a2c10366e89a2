"""`opdata serve`: its flags, its greeting, and where the first key is shown."""

from __future__ import annotations

import inspect
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from opdata.cli.serve import banner, serve
from opdata.cli.settings_flags import SECRETS, flag, meanings
from opdata.config import Settings
from opdata.server import FirstStart
from tests.unit.cli.conftest import Run, rows_of

OPDATA = str(Path(sys.executable).with_name("opdata"))
WITHIN_S = 30


def test_every_setting_is_a_flag_except_the_secrets() -> None:
    assert set(inspect.signature(serve).parameters) == set(Settings.__struct_fields__) - SECRETS


def test_no_setting_that_looks_like_a_secret_has_a_flag() -> None:
    looks_secret = re.compile("key|token|secret|password")

    assert {name for name in Settings.__struct_fields__ if looks_secret.search(name)} == SECRETS


def test_help_says_what_each_setting_means_and_its_default(run: Run) -> None:
    out = " ".join(run("serve", "--help").out.split())

    for name in set(Settings.__struct_fields__) - SECRETS:
        assert meanings()[name]
        assert f"{flag(name)} " in out
        assert meanings()[name].replace("`", "") in out
    assert "Default: 16777216." in out


def test_the_greeting_shows_a_first_key_once() -> None:
    key = "oh_live_" + "ab" * 32
    text = banner(Settings(), 8080, FirstStart("default", key))

    assert text.count(key) == 1
    assert "http://127.0.0.1:8080/docs" in text
    assert "curl -X PUT" in text


def test_later_greetings_say_how_to_get_a_key(tmp_path: Path) -> None:
    text = banner(Settings(data_dir="my data"), 8080, None)

    assert (
        f"opdata keys create --operator default --data-dir '{Path('my data').absolute()}'" in text
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80/docs"),
        ("::", "http://[::1]:80/docs"),
        ("api.example.com", "http://api.example.com:80/docs"),
    ],
)
def test_the_greeting_has_an_address_that_can_be_opened(host: str, url: str) -> None:
    assert url in banner(Settings(host=host), 80, None)


def test_without_a_terminal_a_first_start_makes_no_key_and_says_how_to_make_one(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [OPDATA, "serve", "--port", "0"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
        try:
            wait_for(lambda: b'"started"' in log.read_bytes())
        finally:
            server.terminate()
        assert server.wait(WITHIN_S) == 0
    text = log.read_text()
    assert "oh_live_" not in text
    assert "opdata keys create --operator default" in text
    assert all(line.startswith("{") for line in text.splitlines())
    database = tmp_path / "opdata-data" / "opdata.db"
    assert rows_of(database, "SELECT name FROM operators") == [("default",)]
    assert rows_of(database, "SELECT count(*) FROM api_keys") == [(0,)]


def test_on_a_terminal_the_first_key_is_shown_once_and_works(tmp_path: Path) -> None:
    terminal, inner = os.openpty()
    server = subprocess.Popen(
        [OPDATA, "serve", "--port", "0"], cwd=tmp_path, stdin=inner, stdout=inner, stderr=inner
    )
    os.close(inner)
    shown = b""

    def started() -> bool:
        nonlocal shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096)
        return b"started" in shown

    try:
        wait_for(started)
        text = shown.decode()
        (key,) = re.findall(r"oh_live_[0-9a-f]{64}", text)
        (url,) = re.findall(r"OPDATA_URL=(\S+)", text)
        request = urllib.request.Request(
            f"{url}/operator-data-api/templates", headers={"Authorization": f"Bearer {key}"}
        )
        wait_for(lambda: answers(request))
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(WITHIN_S)
        os.close(terminal)
    assert code == 0
    database = tmp_path / "opdata-data" / "opdata.db"
    assert rows_of(database, "SELECT label FROM api_keys") == [("first key",)]


def test_an_address_that_is_taken_is_told_before_anything_is_made(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("serve", "--port", str(taken.getsockname()[1]))

    assert ran.code == 2
    assert "Cannot listen" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_lost_master_key_stops_the_start_with_one_line(run: Run, database: Path) -> None:
    (database.parent / "master.key").unlink()

    ran = run("serve", "--port", "0")
    assert ran.code == 2
    assert "No master key" in ran.err
    assert "Traceback" not in ran.err
    assert not (database.parent / "master.key").exists()


def answers(request: urllib.request.Request) -> bool:
    """Whether the server takes connections yet, and then grants the request."""
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError:
        return False


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until it has happened."""
    deadline = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
