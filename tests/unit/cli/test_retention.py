"""`opdata retention`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opdata.clock import now_ms
from tests.support.archives import DAY_MS, archive_files
from tests.unit.cli.conftest import Run, connected, rows_of
from tests.unit.cli.test_backup import add

OURS = ("--operator", "default")
HEADINGS = ["OPERATOR", "KIND", "MONTH", "ARCHIVE", "DELETE", "SIZE", "HELD", "JUST", "RECORDED"]
POLICY = '{"entity_events": {"hot_days": 90, "archive_days": 365}}'


@pytest.fixture
def filled(database: Path) -> Path:
    """Two players with an event for the archive and one past it, a policy, and a second operator without."""
    add(database, "a", "b")
    with connected(database) as connection:
        connection.execute("UPDATE operators SET retention_policy = ?", (POLICY,))
        numbers = connection.execute("SELECT operator_id, entity_no FROM entities").fetchall()
        for owner, number in numbers:
            for age in (100, 400):
                at_ms = now_ms() - age * DAY_MS
                connection.execute(
                    "INSERT INTO events (operator_id, entity_no, event_id, event_type, data,"
                    " occurred_at_ms, recorded_at_ms) VALUES (?, ?, randomblob(16), 'session', '{}', ?, ?)",
                    (owner, number, at_ms, at_ms),
                )
    return database


def folder(database: Path) -> Path:
    return database.parent / "archive"


def test_a_preview_counts_and_changes_nothing(run: Run, filled: Path) -> None:
    [found] = run("retention", "preview", *OURS, "--json").json
    [kind] = found["kinds"]
    assert (kind["kind"], kind["setting"]) == ("events", "retentionPolicy")
    months = kind["months"]
    assert [each["archive"] for each in months] == [0, 2]
    assert [each["delete"] for each in months] == [2, 0]
    assert sum(each["sizeBytes"] for each in months) == 8
    assert found["lastRunAt"] is None
    table = run("retention", "preview").out.splitlines()
    assert table[0].split() == HEADINGS
    assert len(table) == 3
    assert rows_of(filled, "SELECT count(*) FROM events") == [(4,)]
    assert not folder(filled).exists()


def test_what_is_held_is_counted_as_such(run: Run, filled: Path) -> None:
    assert run("holds", "place", "a", *OURS, "--reason", "case 7").code == 0
    [found] = run("retention", "preview", "--json").json
    [kind] = found["kinds"]
    assert [each["held"] for each in kind["months"]] == [1, 1]
    ran = run("retention", "run")
    assert (
        ran.out
        == "Operator default: 1 events archived, 1 events deleted, 2 events held back by legal holds.\n"
    )
    assert rows_of(filled, "SELECT count(*) FROM events") == [(2,)]


def test_a_run_does_it_and_says_what_it_did(run: Run, filled: Path) -> None:
    ran = run("retention", "run", *OURS, "--json")
    assert ran.code == 0, ran.err
    [report] = ran.json
    assert (report["archived"], report["deleted"]) == ({"events": 2}, {"events": 2})
    assert (report["problems"], report["stopped"]) == ([], False)
    assert len(archive_files(folder(filled))) == 1
    assert run("retention", "run").out == "Operator default: nothing to do.\n"
    assert run("retention", "preview").err == "No row of the live tables is past its time.\n"
    [found] = run("retention", "preview", "--json").json
    assert found["lastRunAt"].endswith("Z")
    assert (found["archive"]["files"], found["archive"]["rows"]) == (1, 2)


def test_files_go_where_archive_dir_says(run: Run, filled: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert run("retention", "run", "--archive-dir", str(elsewhere)).code == 0
    assert len(archive_files(elsewhere)) == 1
    assert not folder(filled).exists()
    assert run("retention", "verify", "--archive-dir", str(elsewhere)).code == 0
    assert run("retention", "verify").code == 1


def test_verify_names_what_is_missing_was_changed_or_is_not_known(run: Run, filled: Path) -> None:
    run("retention", "run")
    assert "✓ 1 files, 2 rows" in run("retention", "verify").out
    [name] = archive_files(folder(filled))
    file = folder(filled) / name
    content = file.read_bytes()
    file.with_name("other.parquet").write_bytes(b"")
    file.write_bytes(content[:-1])
    ran = run("retention", "verify", "--json")
    assert ran.code == 1
    changed, unknown = ran.json["problems"]
    assert f"{name} is not what was written" in changed
    assert unknown.endswith("other.parquet is in no manifest of this database")
    file.unlink()
    assert f"✗ {name}: No such file" in run("retention", "verify").out


def test_another_run_that_is_under_way_is_told_by_the_exit_code(run: Run, filled: Path) -> None:
    with connected(filled) as connection:
        connection.execute(
            "INSERT INTO retention_leases SELECT operator_id, 'somebody', 0, ?, NULL FROM operators",
            (now_ms() + 60_000,),
        )
    ran = run("retention", "run")
    assert ran.code == 4
    assert "Another run is carrying out this operator's retention" in ran.err
    assert rows_of(filled, "SELECT count(*) FROM events") == [(4,)]


def test_an_operator_without_retention_is_said_to_keep_everything(run: Run, database: Path) -> None:
    ran = run("retention", "preview")
    assert ran.err == "Operator default has no retention: everything is kept.\n"
    assert run("retention", "run", "--operator", "no").code == 2


def test_neither_a_server_nor_this_command_loads_duckdb_before_it_has_a_file_to_write() -> None:
    code = "import sys, opdata.server, opdata.cli.retention; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
