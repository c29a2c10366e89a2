from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from opdata.config import Settings
from opdata.logs import configure_logging, log

_FAILING = """
import sys
from opdata.config import Settings
from opdata.logs import configure_logging, log

configure_logging(Settings(log_format=sys.argv[1]))

def handle(personal):
    raise RuntimeError("no such table")

try:
    handle("canary-" + "of-alice")
except RuntimeError:
    log.exception("request_failed", request_id="r1")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_logged_failure_shows_where_it_happened_and_no_local_value(log_format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAILING, log_format], capture_output=True, text=True, check=True
    )

    assert "no such table" in done.stderr
    assert "handle" in done.stderr
    assert "request_failed" in done.stderr
    assert "canary-of-alice" not in done.stderr


def configured(log_format: Literal["json", "console"], log_level: str = "info") -> None:
    configure_logging(Settings(log_format=log_format, log_level=log_level))  # type: ignore[arg-type] # one of the four


def test_a_line_for_machines_has_the_fields_the_event_the_level_and_the_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configured("json")

    log.warning("nonce_budget", operator="zoë", sealed=3, limit=None)

    written = capsys.readouterr()
    line = json.loads(written.err)
    assert datetime.now(UTC) - datetime.fromisoformat(line.pop("timestamp")) < timedelta(minutes=1)
    assert line == {
        "operator": "zoë",
        "sealed": 3,
        "limit": None,
        "event": "nonce_budget",
        "level": "warning",
    }
    assert written.out == ""


def test_what_is_less_severe_than_asked_for_is_not_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configured("json", "warning")

    log.info("request")
    log.error("seal_broken")
    logging.getLogger("a.library").info("not this")

    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "seal_broken"
    ]


def test_what_a_library_logs_looks_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    configured("json")

    try:
        raise OSError(24, "Too many open files")
    except OSError:
        logging.getLogger("asyncio").exception("accept of %s failed", "a socket")

    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"]) == ("error", "accept of a socket failed")
    assert line["exception"].endswith("OSError: [Errno 24] Too many open files")


def test_a_terminal_is_given_no_control_characters_of_a_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configured("console")

    log.info("retention", operator="o\x1b[2Jx\nforged=1")

    [line] = capsys.readouterr().err.splitlines()
    assert "retention" in line
    assert "'o\\x1b[2Jx\\nforged=1'" in line
    assert "\x1b[2J" not in line


def test_a_line_that_cannot_be_written_is_lost_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configured("json")
    # Unbuffered below, so that closing it has nothing left to fail with.
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    monkeypatch.setattr(sys, "stderr", full)
    with pytest.raises(OSError, match="No space left"):
        full.write("x")

    log.info("request")
    full.close()
    log.info("request")
