"""Servers for faults to be injected into, the counts of repetitions, and the report of `make torture`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.counts import COUNTS, Counts
from tests.faults.results import PROPERTY, RESULTS, Row, Tally, merged, table, write_results
from tests.support.stored import STORES
from tests.system.conftest import Serve, serving

_rows: list[Row] = []
_outcomes: dict[str, pytest.TestReport] = {}


@pytest.fixture(scope="session")
def counts() -> Counts:
    return COUNTS


@pytest.fixture
def serve(tmp_path: Path, db: str) -> Iterator[Serve]:
    yield from serving(tmp_path / "data", db)


@pytest.fixture
def serve_as_told(tmp_path: Path) -> Iterator[Serve]:
    """The same on the embedded store, for what is about its file, unless another is named."""
    yield from serving(tmp_path / "data", "")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts what the test does, for the table; `mark.fault` names the fault."""
    [fault] = request.node.get_closest_marker("fault").args
    parameters: dict[str, Any] = getattr(getattr(request.node, "callspec", None), "params", {})
    store = next((one for one in STORES if one in parameters.values()), "")
    counted = Tally(fault, store)
    yield counted
    request.node.user_properties.append((PROPERTY, counted.row()))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _outcomes[report.nodeid] = report
    elif report.when == "teardown" and report.nodeid in _outcomes:
        called = _outcomes[report.nodeid]
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, dict):
                _rows.append(Row(value, called.outcome, called.duration))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS.is_long and _rows:
        rows = merged(_rows)
        write_results(rows)
        terminalreporter.section(f"torture, seed {COUNTS.seed}, also in {RESULTS}")
        for line in table(rows):
            terminalreporter.write_line(line)


def pytest_report_header() -> str | None:
    return f"torture: replay with make torture SEED={COUNTS.seed}" if COUNTS.is_long else None
