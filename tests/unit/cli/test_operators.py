"""`opdata operators`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run, rows_of


def test_a_created_operator_is_stored_with_a_salt_of_its_own(run: Run, database: Path) -> None:
    assert run("operators", "create", "acme").code == 0
    assert run("operators", "create", "globex").code == 0

    rows = rows_of(database, "SELECT name, length(key_salt) FROM operators ORDER BY operator_id")
    assert rows == [("default", 32), ("acme", 32), ("globex", 32)]
    assert rows_of(database, "SELECT count(DISTINCT key_salt) FROM operators") == [(3,)]


def test_creating_an_operator_says_how_to_give_it_a_key(run: Run, database: Path) -> None:
    ran = run("operators", "create", "acme")

    assert ran.out == "Created operator acme.\n"
    assert ran.err == "Give it a key: opdata keys create --operator acme\n"


def test_a_hint_repeats_the_flags_that_point_at_the_database(run: Run, database: Path) -> None:
    ran = run("operators", "create", "acme", "--db", "sqlite:///opdata-data/opdata.db")

    assert ran.err.endswith("--operator acme --db sqlite:///opdata-data/opdata.db\n")


def test_a_name_that_is_taken_is_refused_with_exit_code_1(run: Run, database: Path) -> None:
    ran = run("operators", "create", "default")

    assert (ran.code, ran.out) == (1, "")
    assert "default" in ran.err
    assert rows_of(database, "SELECT count(*) FROM operators") == [(1,)]


@pytest.mark.parametrize("name", ["", " acme", "a\nb", "a\x1b[31m", "x" * 101])
def test_a_name_that_would_garble_a_terminal_is_a_usage_error(
    run: Run, database: Path, name: str
) -> None:
    ran = run("operators", "create", name)

    assert ran.code == 2
    assert "\x1b" not in ran.err
    assert rows_of(database, "SELECT count(*) FROM operators") == [(1,)]


def test_operators_are_listed_as_a_table_and_as_json(run: Run, database: Path) -> None:
    run("operators", "create", "acme")
    run("operators", "limits", "acme", "--set", "read=5/1s")

    table = run("operators", "list").out.splitlines()
    assert table[0].split() == ["NAME", "STATUS", "TEMPLATE", "RETENTION", "LIMITS", "CREATED"]
    assert [line.split()[0] for line in table[1:]] == ["default", "acme"]
    listed = run("operators", "list", "--json").json
    assert [each["name"] for each in listed] == ["default", "acme"]
    assert listed[1]["limits"] == {"read": "5/1s"}
    assert set(listed[0]) == {
        *("name", "templateId", "dataRetentionDays", "limits", "createdAt"),
        *("suspendedAt", "suspensionReason"),
    }


def test_setting_a_limit_keeps_the_others_and_clear_drops_them(run: Run, database: Path) -> None:
    def stored() -> str:
        return str(rows_of(database, "SELECT limits FROM operators")[0][0])

    run("operators", "limits", "default", "--set", "read=5/1s")
    run("operators", "limits", "default", "--set", "ingest:batch=6000/60s", "--set", "admin=7/60")
    assert stored() == (
        '{"read":{"requests":5,"window_s":1},"ingest:batch":{"requests":6000,"window_s":60},'
        '"admin":{"requests":7,"window_s":60}}'
    )

    run("operators", "limits", "default", "--clear", "--set", "read=9/1s")
    assert stored() == '{"read":{"requests":9,"window_s":1}}'

    run("operators", "limits", "default", "--clear")
    assert stored() == "{}"


def test_limits_shows_what_holds_and_who_set_it(run: Run, database: Path) -> None:
    ran = run("operators", "limits", "default", "--set", "read=5/1s")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[1:] == [
        ["ingest:batch", "1200/60s", "server"],
        ["ingest:write", "12000/60s", "server"],
        ["read", "5/1s", "operator"],
        ["admin", "300/60s", "server"],
    ]

    shown = run("operators", "limits", "default", "--json").json
    assert shown["limits"] == {"read": "5/1s"}
    assert shown["effective"]["admin"] == "300/60s"


@pytest.mark.parametrize("text", ["read", "read=fast", "reads=5/1s", "=5/1s", "read=0/1s"])
def test_a_limit_that_cannot_be_read_changes_nothing(run: Run, database: Path, text: str) -> None:
    ran = run("operators", "limits", "default", "--clear", "--set", text)

    assert ran.code == 2
    assert rows_of(database, "SELECT limits FROM operators") == [("{}",)]


def test_an_unknown_operator_is_a_usage_error_that_names_the_known_ones(
    run: Run, database: Path
) -> None:
    run("operators", "create", "acme")

    ran = run("operators", "limits", "acm")
    assert ran.code == 2
    assert ran.err == "opdata: No operator is named 'acm'; there is default, acme\n"


def test_many_operators_are_not_all_named_in_a_hint(run: Run, database: Path) -> None:
    for number in range(11):
        run("operators", "create", f"acme-{number}")

    ran = run("operators", "limits", "nobody")
    assert ran.err.endswith("opdata operators list shows the 12 there are\n")


def test_a_suspended_operator_is_shown_as_one_until_it_is_resumed(run: Run, database: Path) -> None:
    run("operators", "create", "acme")
    suspended = "SELECT name, suspended_at_ms IS NOT NULL, suspension_reason FROM operators"

    ran = run("operators", "suspend", "acme", "--reason", "licence ended")
    assert ran.code == 0
    assert ran.out.startswith("Operator acme is suspended since 2")
    assert "opdata operators resume acme" in ran.err
    assert rows_of(database, suspended) == [("default", 0, None), ("acme", 1, "licence ended")]
    statuses = [line.split()[:2] for line in run("operators", "list").out.splitlines()[1:]]
    assert statuses == [["default", "active"], ["acme", "suspended"]]

    again = run("operators", "suspend", "acme", "--json").json
    listed = run("operators", "list", "--json").json
    assert listed[1] == again
    assert again["suspensionReason"] == "licence ended"
    assert listed[0]["suspendedAt"] is listed[0]["suspensionReason"] is None

    assert run("operators", "resume", "acme").out == "Operator acme is active.\n"
    assert rows_of(database, suspended) == [("default", 0, None), ("acme", 0, None)]
    assert run("operators", "resume", "acme", "--json").json["suspendedAt"] is None


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_an_unknown_operator_is_neither_suspended_nor_resumed(
    run: Run, database: Path, command: str
) -> None:
    ran = run("operators", command, "acme")
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("reason", ["", "a\x1b[2J", "x" * 256])
def test_a_reason_that_would_garble_a_terminal_suspends_nobody(
    run: Run, database: Path, reason: str
) -> None:
    assert run("operators", "suspend", "default", "--reason", reason).code == 2
    assert rows_of(database, "SELECT suspended_at_ms FROM operators") == [(None,)]
