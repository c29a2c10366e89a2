from __future__ import annotations

import subprocess
import sys

import pytest

_FAILING = """
import sys
import structlog
from opdata.config import Settings
from opdata.logs import configure_logging

configure_logging(Settings(log_format=sys.argv[1]))

def handle(personal):
    raise RuntimeError("no such table")

try:
    handle("canary-" + "of-alice")
except RuntimeError:
    structlog.get_logger().exception("request_failed", request_id="r1")
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
