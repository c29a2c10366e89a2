"""`--check`: nothing is written, and what is wrong is told by field and reason."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from opdata.loader.repeats import Repeats
from tests.unit.loader.conftest import Run
from tests.unit.loader.fake_api import FakeApi


def refuse(item: dict[str, Any]) -> tuple[str, str] | None:
    problems = [
        f'Missing required field: "{field}"'
        for field in ("email", "status")
        if field not in item["data"]
    ]
    if len(item.get("externalId", "")) > 5:
        problems.append(
            f'Field "externalId" must have 1 to 5 characters, not {len(item["externalId"])}'
        )
    return ("VALIDATION_FAILED", "; ".join(problems)) if problems else None


@pytest.fixture(autouse=True)
def rows() -> None:
    Path("a.csv").write_text(
        "id,email,status,score,level\n"
        "1,secret@example.com,active,,NULL\n"
        " 2,,active,,gold\n"
        "3,,,,NULL\n"
    )
    Path("b.csv").write_text(
        "id,email,status,score,level\n1,secret@example.com,,,\n1234567,secret@example.com,active,,N/A\n"
    )


def test_problems_are_told_by_field_and_reason_with_their_rows(api: FakeApi, load: Run) -> None:
    api.refuse = refuse
    ran = load("entities", "a.csv", "b.csv", "--entity-type", "player", "--check")
    assert ran.code == 1
    assert [request.params for request in api.received] == [{"dryRun": "true"}]
    first, _, *report = ran.out.splitlines()
    assert first == "entities: 5 rows read, 1 accepted, 4 refused"
    assert report == [
        "email: missing: 2 rows, 40 % (rows a.csv:2, a.csv:3)",
        "status: missing: 2 rows, 40 % (rows a.csv:3, b.csv:1)",
        "externalId: must have 1 to 5 characters: 1 row, 20 % (row b.csv:2)",
        "no reason to refuse, but have a look:",
        "  level: holds the text NULL: 2 rows, 40 % (rows a.csv:1, a.csv:3)",
        "  externalId: has spaces around it: 1 row, 20 % (row a.csv:2)",
        "  level: holds the text N/A: 1 row, 20 % (row b.csv:2)",
        "  externalId: repeats that of an earlier row, which it replaces: 1 row, 20 % (row b.csv:1)",
        "  score: is empty in every row",
        "dry run: nothing was written",
    ]
    assert "secret" not in ran.out + ran.err


def test_programs_get_the_report_as_json(api: FakeApi, load: Run) -> None:
    api.refuse = refuse
    ran = load("entities", "a.csv", "--entity-type", "player", "--dry-run", "--json")
    assert ran.summary["checked"]["problems"] == [
        {"field": "email", "reason": "missing", "count": 2, "rows": ["2", "3"]},
        {"field": "status", "reason": "missing", "count": 1, "rows": ["3"]},
    ]
    assert {"field": "score", "reason": "is empty in every row", "count": 0, "rows": []} in (
        ran.summary["checked"]["remarks"]
    )


def test_a_missing_field_that_is_spelled_otherwise_is_pointed_out(api: FakeApi, load: Run) -> None:
    api.refuse = refuse
    Path("c.csv").write_text("id,E-Mail,status\n1,secret@example.com,active\n")
    ran = load("entities", "c.csv", "--entity-type", "player", "--check")
    assert "email: missing (a column is named E-Mail): 1 row, 100 % (row 1)" in ran.out


def test_only_a_check_looks_at_rows(api: FakeApi, load: Run) -> None:
    ran = load("entities", "a.csv", "--entity-type", "player", "--json")
    assert ran.summary["checked"] is None


@pytest.mark.parametrize(
    ("kind", "rows", "repeated"),
    [
        (
            "events",
            [{"externalId": "1", "idempotencyKey": "k"}, {"externalId": "1"}, {"externalId": "1"},
             {"externalId": "2", "idempotencyKey": "k"}],
            ("idempotencyKey", ["4"]),
        ),
        (
            "states",
            [{"externalId": "1", "stateKey": "a", "value": 1}, {"externalId": "1", "stateKey": "b", "value": 1},
             {"externalId": "1", "stateKey": "a", "value": 2}],
            ("externalId", ["3"]),
        ),
    ],
)  # fmt: skip
def test_what_repeats_depends_on_the_kind(
    api: FakeApi, load: Run, kind: str, rows: list[Any], repeated: tuple[str, list[str]]
) -> None:
    Path("a.ndjson").write_text("\n".join(map(json.dumps, rows)))
    typed = ["--event-type", "bonus"] if kind == "events" else []
    (remark,) = load(kind, "a.ndjson", *typed, "--check", "--json").summary["checked"]["remarks"]
    assert (remark["field"], remark["rows"]) == repeated


def test_not_found_and_conflicts_name_the_member_they_are_about(api: FakeApi, load: Run) -> None:
    Path("a.ndjson").write_text('{"externalId":"1"}\n{"externalId":"2"}\n{"externalId":"3"}\n')
    answers = {
        "1": ("NOT_FOUND", "Entity not found"),
        "2": ("DUPLICATE_CONFLICT", "This idempotencyKey was used with a different event"),
        "3": ("VALIDATION_FAILED", 'Unknown event type "x" (known: bonus)'),
    }
    api.refuse = lambda item: answers[item["externalId"]]
    ran = load("events", "a.ndjson", "--event-type", "x", "--check", "--json")
    assert [each["field"] for each in ran.summary["checked"]["problems"]] == [
        "externalId", "idempotencyKey", "eventType",
    ]  # fmt: skip


def test_repeated_keys_are_found_among_many() -> None:
    repeats = Repeats()
    with closing(repeats):
        for row in range(1, 80_001):
            repeats.add(b"%d" % (row % 79_990), row)
        assert repeats.find(3) == (10, [79_991, 79_992, 79_993])
