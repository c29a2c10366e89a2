"""`opdata jobs`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opdata.cli import jobs as jobs_command
from tests.unit.cli.conftest import Run, add_job, connected, rows_of

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


@pytest.fixture
def change(database: Path) -> Callable[..., None]:
    """Make of a job what a server would that works it off."""

    def change_job(job_id: str, status: str, progress: int, output: Any = None) -> None:
        completed_at_ms = 1_775_476_800_000 if status in ("completed", "cancelled") else None
        with connected(database) as connection:
            connection.execute(
                "UPDATE jobs SET status = ?, progress = ?, output = ?, completed_at_ms = ? "
                "WHERE job_id = ?",
                (status, progress, output and json.dumps(output), completed_at_ms, job_id),
            )

    return change_job


def test_a_job_that_waits_has_no_counts_and_one_at_work_those_it_has_so_far(
    run: Run, jobs: tuple[str, str, str], change: Callable[..., None]
) -> None:
    change(jobs[0], "processing", 40, PARTLY)
    change(jobs[1], "queued", 0)

    of_status = {
        status: run("jobs", "list", "--status", status).out.splitlines()[1].split()[3:8]
        for status in ("queued", "processing")
    }
    assert of_status["queued"] == ["queued", "0", "%", "-", "-"]
    assert of_status["processing"] == ["processing", "40", "%", "1", "1"]

    shown = run("jobs", "show", jobs[0]).out
    assert "Status     processing, 40 %\n" in shown
    assert "Completed  -\n" in shown


def test_watching_a_job_shows_it_once_it_is_done(
    run: Run,
    jobs: tuple[str, str, str],
    change: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(jobs[1], "queued", 0)
    steps = iter([("processing", 50, WHOLLY), ("completed", 100, WHOLLY)])

    async def pause() -> None:
        change(jobs[1], *next(steps))

    monkeypatch.setattr(jobs_command, "_pause", pause)
    ran = run("jobs", "watch", jobs[1])

    assert (ran.code, ran.err) == (0, "")
    assert "Status     completed, 100 %\n" in ran.out
    assert ran.out.count("Status") == 1
    assert next(steps, None) is None


@pytest.mark.parametrize(
    ("status", "output", "code"),
    [("completed", WHOLLY, 0), ("completed", PARTLY, 1), ("cancelled", WHOLLY, 1)],
)
def test_how_a_job_ended_is_the_exit_code_of_watching_it(
    run: Run,
    jobs: tuple[str, str, str],
    change: Callable[..., None],
    status: str,
    output: Any,
    code: int,
) -> None:
    change(jobs[0], status, 100, output)

    ran = run("jobs", "watch", jobs[0], "--json")

    assert (ran.code, ran.json["status"], ran.json["output"]) == (code, status, output)


def test_who_stops_watching_does_not_stop_the_job(
    run: Run,
    database: Path,
    jobs: tuple[str, str, str],
    change: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(jobs[0], "processing", 40, PARTLY)

    async def pause() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs_command, "_pause", pause)
    ran = run("jobs", "watch", jobs[0])

    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "opdata: interrupted; the job goes on\n"
    assert rows_of(database, f"SELECT status FROM jobs WHERE job_id = '{jobs[0]}'") == [
        ("processing",)
    ]


def test_a_cancelled_job_says_what_it_had_written(
    run: Run, database: Path, jobs: tuple[str, str, str], change: Callable[..., None]
) -> None:
    change(jobs[0], "processing", 40, PARTLY)
    change(jobs[2], "queued", 0)

    begun = run("jobs", "cancel", jobs[0], "--operator", "default")
    unbegun = run("jobs", "cancel", jobs[2], "--json")

    assert begun == (
        0,
        f"Cancelled {jobs[0]} of operator default.\n",
        "Before that 1 items succeeded and 1 failed.\n",
    )
    assert (unbegun.json["status"], unbegun.json["operator"]) == ("cancelled", "acme")
    assert unbegun.json["completed_at"] is not None
    assert rows_of(
        database, "SELECT job_id, status, progress FROM jobs ORDER BY created_at_ms"
    ) == [
        (jobs[0], "cancelled", 40),
        (jobs[1], "completed", 100),
        (jobs[2], "cancelled", 0),
    ]


def test_a_job_that_is_done_cannot_be_cancelled(
    run: Run, database: Path, jobs: tuple[str, str, str], change: Callable[..., None]
) -> None:
    change(jobs[0], "cancelled", 40, PARTLY)
    before = rows_of(database, "SELECT * FROM jobs")

    for job_id in jobs[:2]:
        ran = run("jobs", "cancel", job_id)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("opdata: ")

    assert rows_of(database, "SELECT * FROM jobs") == before


def test_another_operators_job_is_not_cancelled(
    run: Run, database: Path, jobs: tuple[str, str, str], change: Callable[..., None]
) -> None:
    change(jobs[2], "queued", 0)
    assert run("jobs", "cancel", jobs[2], "--operator", "default").code == 2
    assert rows_of(database, "SELECT count(*) FROM jobs WHERE status = 'queued'") == [(1,)]


@pytest.mark.parametrize("command", ["show", "watch", "cancel"])
def test_an_unknown_job_is_a_usage_error(run: Run, database: Path, command: str) -> None:
    ran = run("jobs", command, "job_0000000000000000")
    assert (ran.code, ran.out) == (2, "")
    assert "opdata jobs list" in ran.err
