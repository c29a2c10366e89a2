"""What is shown while a load goes on."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from opdata.loader.kinds import EVENTS
from opdata.loader.outcome import Outcome
from opdata.loader.progress import Bar, Lines, display_for
from opdata.loader.rejects import Refusal
from opdata.loader.report import Report


@pytest.fixture
def report() -> Report:
    made = Report(EVENTS)
    made.read = 4_000
    made.at_a_time = 5
    refusal = Refusal(7, "NOT_FOUND", "no such entity", b'{"data":"secret"}')
    made.acknowledged(Outcome(succeeded=2_999, refusals=[refusal]))
    made.waits_for("rate limited")
    return made


def test_a_log_gets_plain_lines(report: Report) -> None:
    log = io.StringIO()
    with Lines(Console(file=log, width=200), total=12_000) as lines:
        lines.show(report)
    said = log.getvalue()
    assert re.fullmatch(
        r"events: 3,000 of 12,000 rows, [\d,]+ rows/s, 0:\d\d left, 2,999 accepted, 1 refused, "
        r"5 at a time, rate limited \(1\), waiting \(rate limited\)\n",
        said,
    ), said


def test_nothing_is_logged_before_there_is_something_to_tell() -> None:
    log = io.StringIO()
    with Lines(Console(file=log), total=None) as lines:
        lines.show(Report(EVENTS))
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar_that_leaves_no_trace(report: Report) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=160, color_system=None)
    with Bar(console, total=12_000) as bar:
        bar.show(report)
    assert " 3000/12000" in terminal.getvalue()
    assert "1 refused, 5 at a time, rate limited (1), waiting" in terminal.getvalue()
    assert "secret" not in terminal.getvalue()


def test_a_pipe_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(display_for(5), Lines)


def test_waiting_ends_when_something_gets_through(report: Report) -> None:
    report.acknowledged(Outcome(succeeded=1))
    assert report.waiting is None


def test_a_flood_of_different_causes_is_kept_short(report: Report) -> None:
    refusals = [Refusal(row, "NOT_FOUND", f"cause {row}", b"{}") for row in range(10, 500)]
    report.acknowledged(Outcome(refusals=refusals))
    failures = report.summary(None).failures
    assert len(failures) == 101
    assert failures[0].message == "(various other causes)"
    assert sum(failure.count for failure in failures) == 491
