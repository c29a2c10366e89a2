"""`python -m opdata.demo` as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

DEMO = [sys.executable, "-m", "opdata.demo", "--players", "200"]
URL = re.compile(r"API docs +(http://127\.0\.0\.1:\d+)/docs")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The demo with --once, where another server's settings lie about and would harm it."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "opdata.toml").write_text('data_dir = "/nowhere"\nlimit_batch = "1/60s"\n')
    return subprocess.run(
        [*DEMO, "--once"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OPDATA_DB": "sqlite:////nowhere/opdata.db", "OPDATA_PORT": "1"},
        cwd=folder,
        timeout=120,
    )


def test_it_ends_with_0(once: subprocess.CompletedProcess[str]) -> None:
    assert once.returncode == 0, once.stdout + once.stderr


@pytest.mark.parametrize(
    "result",
    [
        r"  205 rows in [\d.]+ s, [\d,]+ rows/s: 200 accepted, 5 refused",
        r"rows/s: [\d,]+ accepted, 10 refused, 3 of the accepted sent twice and kept once",
        r"entities +4 VALIDATION_FAILED +Missing required field: \"email\" \(rows ",
        r"events +5 NOT_FOUND +Entity not found",
        r"events +1 DUPLICATE_CONFLICT",
        r"states +3 VALIDATION_FAILED +Missing required field: \"value\"",
        r'"type": "batch_ingest_entities",\n +"status": "completed"',
        r'"email": "[a-z.]+\d+@example\.(com|net|org)"',
        r"game_activity +\{.*\"bet_amount\": \d+\.\d\d,",
        r'balance +\{"amount": \d+\.\d\d, "currency": "[A-Z]{3}"\}',
        r'"email": "\[encrypted\]"',
        r"occurs in none of the server's \d+ files",
        r"API docs +http://127\.0\.0\.1:\d+/docs",
        r"export OPDATA_API_KEY=oh_live_[0-9a-f]{64}\ncurl -X POST http://127\.0\.0\.1:\d+/",
        r"The server has stopped",
    ],
)
def test_it_shows(once: subprocess.CompletedProcess[str], result: str) -> None:
    assert re.search(result, once.stdout), once.stdout


def test_its_output_is_plain_text_when_nobody_looks(
    once: subprocess.CompletedProcess[str],
) -> None:
    assert "\x1b" not in once.stdout + once.stderr


def test_its_server_has_stopped(once: subprocess.CompletedProcess[str]) -> None:
    url = shown_url(once.stdout)
    key = re.search(r"oh_live_[0-9a-f]{64}", once.stdout)
    assert key
    try:
        answer = httpx2.get(
            f"{url}/operator-data-api/settings", headers={"Authorization": f"Bearer {key[0]}"}
        )
    except httpx2.ConnectError:
        return
    # Somebody else may have got the port by now; the demo's key is not theirs.
    assert answer.status_code != 200


def test_its_curl_command_works_until_ctrl_c_stops_the_server(tmp_path: Path) -> None:
    with running_demo(tmp_path) as (demo, server, shown):
        pasted = shown[shown.index("export OPDATA_API_KEY=") :].partition("\n\n")[0]
        answer = subprocess.run(
            ["bash", "-euc", pasted], capture_output=True, text=True, check=True, timeout=60
        )
        assert '"succeeded":1,"failed":0' in answer.stdout
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=60) == 0
        assert not server.is_running()


def test_a_kill_stops_its_server_too(tmp_path: Path) -> None:
    with running_demo(tmp_path) as (demo, server, _):
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(timeout=60) == 128 + signal.SIGTERM
        assert not server.is_running()


def test_a_server_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with running_demo(tmp_path) as (demo, server, _):
        server.kill()
        assert demo.wait(timeout=60) == 1
        assert demo.stderr is not None
        said = demo.stderr.read()
    assert "The demo failed. The server ended by itself with code -9" in said
    assert '"event": "request"' in said


@contextmanager
def running_demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process, str]]:
    """A demo that has shown everything, its server, and what it showed; stopped afterwards."""
    demo = subprocess.Popen(
        DEMO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert demo.stdout is not None
    assert demo.stderr is not None
    shown = ""
    try:
        for line in demo.stdout:
            shown += line
            if "until you press Ctrl-C" in line:
                break
        else:
            raise AssertionError(shown + demo.stderr.read())
        (server,) = psutil.Process(demo.pid).children()
        yield demo, server, shown
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(timeout=60)
        demo.stdout.close()
        demo.stderr.close()


def shown_url(shown: str) -> str:
    found = URL.search(shown)
    assert found, shown
    return found[1]
