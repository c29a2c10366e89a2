"""docs/performance.md shows what the benchmark printed, and says why where a target is missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chart import chart
from benchmarks.checks import checks
from benchmarks.page import CHART, LATEST, PAGE, rewritten

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> Any:
    """Those that are committed."""
    return json.loads((ROOT / LATEST).read_text())


def test_the_tables_are_those_of_the_committed_results(results: Any) -> None:
    page = (ROOT / PAGE).read_text()

    assert page.count("<!-- table: ") == page.count("<!-- end -->")
    assert rewritten(page, results) == page, "run: python -m benchmarks.page"


def test_the_chart_is_that_of_the_committed_results(results: Any) -> None:
    assert chart(results) == (ROOT / CHART).read_text(), "run: python -m benchmarks.page"


def test_the_committed_results_are_of_a_full_run(results: Any) -> None:
    assert results["machine"]["run"] == "full"


def test_a_target_that_is_missed_has_its_reason_and_no_other_has_one(results: Any) -> None:
    page = (ROOT / PAGE).read_text()
    reasons = page.partition("### What is missed, and why\n")[2].partition("\n## ")[0]
    explained = [line for line in reasons.splitlines() if line.startswith("- **")]

    missed = [one.target for one in checks(results) if not one.met]
    assert [line[4:].partition(":** ")[0] for line in explained] == missed
