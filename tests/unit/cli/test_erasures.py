"""`opdata erase`, `opdata erasures` and `opdata holds`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run, connected, rows_of
from tests.unit.cli.test_backup import add, live

OURS = ("--operator", "default")


def revive(database: Path, name: str) -> None:
    """As after a restore from a backup in which the entity is alive, and knows of no erasure."""
    with connected(database) as connection:
        connection.execute(
            "UPDATE entities SET deleted_at_ms = NULL, sealed = x'00' WHERE external_id = ?",
            (name,),
        )
        connection.execute("DELETE FROM erasure_ledger")


def ledger(path: str = "ledger.ndjson") -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_an_entity_is_erased_and_entered_in_the_ledger_with_the_reason(
    run: Run, database: Path
) -> None:
    add(database, "a", "b")
    ran = run("erase", "a", *OURS, "--reason", "DSR-114")
    assert (ran.code, ran.out) == (0, "Erased a of operator default.\n")
    assert live(database) == ["b"]
    sealed = rows_of(database, "SELECT sealed FROM entities WHERE external_id = 'a'")
    assert sealed == [(None,)]
    assert rows_of(database, "SELECT reason FROM erasure_ledger") == [("DSR-114",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a",), "opdata erase EXTERNAL_ID --operator NAME"),
        (OURS, "opdata erase EXTERNAL_ID --operator NAME"),
        (("no", *OURS), "Operator default has no entity 'no'"),
        (("a", "--operator", "no"), "No operator is named 'no'"),
        (("a", *OURS, "--reason", "asked by Ann Lee"), "must not name the person"),
        (("a", "--replay", "ledger.ndjson"), "--replay goes by the ledger alone"),
    ],
)
def test_what_names_nobody_to_erase_is_a_usage_error(
    run: Run, database: Path, arguments: tuple[str, ...], message: str
) -> None:
    add(database, "a")
    ran = run("erase", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert live(database) == ["a"]


def test_a_legal_hold_is_placed_listed_and_lifted(run: Run, database: Path) -> None:
    add(database, "a", "b")
    assert run("holds", "place", "a", *OURS, "--reason", "case 7").code == 0
    [held] = run("holds", "list", "--json").json
    assert held.pop("placedAt").endswith("Z")
    assert held == {"operator": "default", "externalId": "a", "reason": "case 7"}
    assert "case 7" in run("holds", "list", *OURS).out

    refused = run("erase", "a", *OURS)
    assert refused.code == 1
    assert "under legal hold and was not erased" in refused.err
    assert "case 7" not in refused.err
    assert live(database) == ["a", "b"]

    assert run("holds", "lift", "a", *OURS).code == 0
    assert run("holds", "lift", "a", *OURS).code == 2
    assert run("holds", "list").err == "No entity is under legal hold.\n"
    assert run("erase", "a", *OURS).code == 0
    assert run("holds", "place", "a", *OURS, "--reason", "case 7").code == 2
    assert run("holds", "place", "b", *OURS, "--reason", "two\nlines").code == 2


def test_the_ledger_lists_the_newest_first_and_tells_nobody_apart(run: Run, database: Path) -> None:
    add(database, "anna", "bert", "carl")
    for name in ("bert", "anna", "carl"):
        run("erase", name, *OURS, "--reason", f"no-{name[0]}")
    listed = run("erasures", "list", "--json").json
    times = [one["erasedAt"] for one in listed]
    assert times == sorted(times, reverse=True)
    assert {one["reason"] for one in listed} == {"no-a", "no-b", "no-c"}
    ran = run("erasures", "list", "--limit", "2", *OURS)
    assert len(ran.out.splitlines()) == 3
    assert "1 more" in ran.err
    for name in ("anna", "bert", "carl"):
        assert name not in ran.out + json.dumps(listed)


def test_an_exported_ledger_only_grows(run: Run, database: Path) -> None:
    add(database, "a", "b")
    run("erase", "a", *OURS)
    assert run("erasures", "export", "ledger.ndjson").out == "Added 1 erasures to ledger.ndjson.\n"
    assert Path("ledger.ndjson").stat().st_mode & 0o777 == 0o600
    first = ledger()
    # A database that was restored knows less.
    revive(database, "a")
    run("erase", "b", *OURS)
    assert run("erasures", "export", "ledger.ndjson", "--json").json["added"] == 1
    assert ledger()[:1] == first
    assert len(ledger()) == 2
    assert run("erasures", "export", "ledger.ndjson", "--json").json["added"] == 0
    assert sorted(path.name for path in Path().iterdir()) == ["ledger.ndjson", "opdata-data"]


def test_a_replay_erases_who_was_brought_back_and_nobody_who_came_back(
    run: Run, database: Path
) -> None:
    add(database, "a", "b", "c")
    run("erase", "a", *OURS, "--reason", "DSR-1")
    run("erase", "b", *OURS)
    run("erasures", "export", "ledger.ndjson")
    revive(database, "a")
    add(database, "b")

    for erased in (1, 0):
        done = run("erase", "--replay", "ledger.ndjson", "--json")
        assert (done.code, done.json["entries"], done.json["erased"]) == (0, 2, erased)
        assert live(database) == ["b", "c"]
    # The time and the reason are those of the erasure itself.
    assert run("erasures", "list", "--json").json[-1]["reason"] == "DSR-1"
    assert {one["erasedAt"] for one in run("erasures", "list", "--json").json} == {
        one["erasedAt"] for one in ledger()
    }


def test_a_replay_reports_who_is_under_a_legal_hold_and_erases_the_others(
    run: Run, database: Path
) -> None:
    add(database, "a", "b")
    for name in ("a", "b"):
        run("erase", name, *OURS)
    run("erasures", "export", "ledger.ndjson")
    for name in ("a", "b"):
        revive(database, name)
    run("holds", "place", "a", *OURS, "--reason", "case 7")

    ran = run("erase", "--replay", "ledger.ndjson", "--json")

    assert ran.code == 1
    assert ran.json["held"] == [{"operator": "default", "externalId": "a"}]
    assert "a of operator default is under legal hold and was not erased" in ran.err
    assert live(database) == ["a"]


def test_erasures_of_operators_that_are_not_here_are_counted(run: Run, database: Path) -> None:
    line = {"operator": "x", "entityId": "ent_0123456789abcdef", "erasedAt": "2026-04-06T12:00:00Z"}
    Path("ledger.ndjson").write_text(json.dumps(line) + "\n")
    done = run("erase", "--replay", "ledger.ndjson", "--json").json
    assert (done["entries"], done["ofUnknownOperators"], done["erased"]) == (1, 1, 0)
    assert rows_of(database, "SELECT count(*) FROM erasure_ledger") == [(0,)]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "{}",
        '{"operator":"default","entityId":"p1","erasedAt":"2026-04-06T12:00:00Z"}',
        '{"operator":"default","entityId":"ent_0123456789abcdef","erasedAt":"yesterday"}',
    ],
)
def test_a_file_that_is_no_ledger_is_refused_by_its_line(
    run: Run, database: Path, line: str
) -> None:
    good = (
        '{"operator":"default","entityId":"ent_0123456789abcdef","erasedAt":"2026-04-06T12:00:00Z"}'
    )
    Path("ledger.ndjson").write_text(f"{good}\n{line}\n")
    for command in (("erase", "--replay"), ("erasures", "export")):
        ran = run(*command, "ledger.ndjson")
        assert ran.code == 2
        assert "ledger.ndjson, line 2" in ran.err
    assert rows_of(database, "SELECT count(*) FROM erasure_ledger") == [(0,)]
    assert len(Path("ledger.ndjson").read_text().splitlines()) == 2
