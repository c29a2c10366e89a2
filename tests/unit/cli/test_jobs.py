"""`opdata jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run, add_job

REFUSED = {
    "index": 1,
    "externalId": "player_\x1b[31m002",
    "code": "VALIDATION_FAILED",
    "message": 'Missing required field: "email"',
}
PARTLY: dict[str, Any] = {"succeeded": 1, "failed": 1, "errors": [REFUSED]}
WHOLLY: dict[str, Any] = {"succeeded": 2, "failed": 0, "errors": []}


@pytest.fixture
def jobs(run: Run, database: Path) -> tuple[str, str, str]:
    """The ids of three jobs, oldest first; the last one is another operator's."""
    run("operators", "create", "acme")
    return (
        add_job(database, 1, PARTLY, at_ms=1_775_476_800_000, kind="batch_ingest_entities"),
        add_job(database, 1, WHOLLY, at_ms=1_775_476_801_500, kind="batch_ingest_events"),
        add_job(database, 2, WHOLLY, at_ms=1_775_476_802_000, kind="batch_ingest_events"),
    )


def test_jobs_are_listed_newest_first(run: Run, jobs: tuple[str, str, str]) -> None:
    lines = run("jobs", "list").out.splitlines()

    assert [line.split()[0] for line in lines] == ["ID", *reversed(jobs)]
    assert lines[3].split() == [
        *(jobs[0], "default", "batch_ingest_entities", "completed", "100", "%", "1", "1"),
        "2026-04-06T12:00:00Z",
    ]


def test_jobs_can_be_narrowed_down(run: Run, jobs: tuple[str, str, str]) -> None:
    def ids(*flags: str) -> list[str]:
        return [job["id"] for job in run("jobs", "list", "--json", *flags).json]

    assert ids("--operator", "default") == [jobs[1], jobs[0]]
    assert ids("--type", "batch_ingest_entities") == [jobs[0]]
    assert ids("--operator", "default", "--limit", "1") == [jobs[1]]
    assert ids("--status", "failed") == []


def test_a_job_as_json_reads_as_the_api_shows_it(run: Run, jobs: tuple[str, str, str]) -> None:
    assert run("jobs", "show", jobs[0], "--json").json == {
        "id": jobs[0],
        "operator": "default",
        "type": "batch_ingest_entities",
        "status": "completed",
        "progress": 100,
        "output": PARTLY,
        "error": None,
        "created_at": "2026-04-06T12:00:00.000Z",
        "completed_at": "2026-04-06T12:00:00.000Z",
    }


def test_a_shown_job_lists_the_items_it_refused(run: Run, jobs: tuple[str, str, str]) -> None:
    out = run("jobs", "show", jobs[0]).out

    assert "Failed     1\n" in out
    last = out.splitlines()[-1]
    assert last.split(maxsplit=3)[0::3] == ["1", 'Missing required field: "email"']
    assert "player_\\x1b[31m002" in last
    assert "\x1b" not in out


def test_a_job_is_found_whosever_it_is_and_only_with_its_operator_when_one_is_named(
    run: Run, jobs: tuple[str, str, str]
) -> None:
    assert run("jobs", "show", jobs[2], "--json").json["operator"] == "acme"
    ran = run("jobs", "show", jobs[2], "--operator", "default")
    assert ran.code == 2
    assert "Operator default has no job" in ran.err


def test_the_refused_items_of_a_large_batch_are_cut_off_with_a_hint(
    run: Run, database: Path
) -> None:
    output = {"succeeded": 0, "failed": 25, "errors": [REFUSED] * 25}
    job_id = add_job(database, 1, output, at_ms=0, kind="batch_ingest_entities")

    ran = run("jobs", "show", job_id)
    assert ran.out.count("VALIDATION_FAILED") == 20
    assert ran.err == "5 more refused items: --json shows them all.\n"


@pytest.mark.parametrize(
    "flags", [("--limit", "0"), ("--limit", "1001"), ("--status", "done"), ("--type", "load")]
)
def test_flags_out_of_range_are_usage_errors(
    run: Run, database: Path, flags: tuple[str, str]
) -> None:
    ran = run("jobs", "list", *flags)

    assert (ran.code, ran.out) == (2, "")
    assert flags[0] in ran.err


def test_no_jobs_is_an_empty_answer_and_no_error(run: Run, database: Path) -> None:
    assert run("jobs", "list") == (0, "", "No jobs.\n")
    assert run("jobs", "list", "--json").json == []


def test_jobs_with_long_outputs_are_listed_as_many_as_asked_for(run: Run, database: Path) -> None:
    errors = [{**REFUSED, "message": "x" * 3_000_000}]
    made = [
        add_job(database, 1, {**PARTLY, "errors": errors}, at_ms=at, kind="batch_ingest_entities")
        for at in range(7)
    ]

    listed = run("jobs", "list", "--json", "--limit", "6").json

    assert [job["id"] for job in listed] == made[:0:-1]
