"""`opdata copy`: what it takes, says and refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from opdata.cli.exits import INTERRUPTED
from opdata.storage import migrate_store
from opdata.storage.migrate import UNFINISHED_COPY
from opdata.storage.transfer import TABLES, Checksum
from tests.unit.cli.conftest import Run, connected, rows_of

TO = "sqlite:///new/opdata.db"
SECRET_URL = "postgresql://opdata:hunter2@127.0.0.1:1/opdata"


@pytest.fixture
def source(run: Run, database: Path) -> str:
    """The URL of an installation with a key."""
    run("keys", "create", "--operator", "default", "--label", "ci")
    return f"sqlite:///{database}"


@pytest.fixture
def unfinished(run: Run, source: str, tmp_path: Path) -> Path:
    """The file at `TO`, as a copy leaves it that was interrupted at its very end."""
    assert run("copy", "--from", source, "--to", TO).code == 0
    path = tmp_path / "new" / "opdata.db"
    with connected(path) as connection:
        connection.execute("INSERT INTO migrations VALUES (?, 0)", (UNFINISHED_COPY,))
    return path


def test_a_copy_says_what_it_copied_and_that_the_master_key_is_needed(
    run: Run, source: str, tmp_path: Path
) -> None:
    ran = run("copy", "--from", source, "--to", TO)

    assert ran.code == 0
    heading, *lines = ran.out.splitlines()
    assert heading.split() == ["TABLE", "ROWS", "COPIED", "CHECKSUM"]
    assert [line.split()[0] for line in lines] == [table.name for table in TABLES]
    assert lines[-1].split()[:3] == ["api_keys", "1", "1"]
    assert f"Copied into {TO}, and every row compared." in ran.err
    assert "The new server needs the same master key" in ran.err
    sql = "SELECT name FROM operators"
    assert rows_of(tmp_path / "new" / "opdata.db", sql) == [("default",)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["opdata.db"]
    assert (tmp_path / "new" / "opdata.db").stat().st_mode & 0o777 == 0o600
    assert run("db", "check", "--db", TO).code == 0


def test_json_has_both_sides_of_every_table(run: Run, source: str) -> None:
    summary = run("copy", "--from", source, "--to", TO, "--json").json

    assert (summary["ok"], summary["resumed"]) == (True, False)
    assert (summary["from"], summary["to"]) == (source, TO)
    assert [each["table"] for each in summary["tables"]] == [table.name for table in TABLES]
    keys = summary["tables"][-1]
    assert (keys["equal"], keys["copied"], keys["source"]["rows"]) == (True, 1, 1)
    assert keys["source"] == keys["target"]
    assert len(keys["source"]["checksum"]) == 32


def test_the_urls_may_stand_in_the_environment(
    run: Run, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_COPY_FROM", source)
    monkeypatch.setenv("OPDATA_COPY_TO", TO)

    assert run("copy").code == 0


def test_without_a_url_it_is_a_usage_error(run: Run, source: str) -> None:
    ran = run("copy", "--from", source)

    assert ran.code == 2
    assert "--to" in ran.err


def test_a_password_is_never_shown(run: Run, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPDATA_COPY_TO", SECRET_URL)
    assert "hunter2" not in run("copy", "--help").out
    for arguments in (("--from", source), ("--from", SECRET_URL, "--to", TO)):
        for flags in ((), ("--json",), ("--verify-only",)):
            ran = run("copy", *arguments, *flags)
            assert ran.code == 4
            assert "hunter2" not in ran.out + ran.err


@pytest.mark.parametrize("flags", [(), ("--verify-only",)])
def test_a_source_that_is_not_there_is_an_error_and_nothing_is_made(
    run: Run, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    ran = run("copy", "--from", "sqlite:///no.db", "--to", TO, *flags)

    assert ran.code == 2
    assert "There is no database at no.db" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_copied_onto_itself_by_another_name(
    run: Run, source: str, database: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.db").symlink_to(database)

    ran = run("copy", "--from", source, "--to", "sqlite:///link.db")
    assert ran.code == 2
    assert "the same database" in ran.err


def test_another_programs_file_is_left_alone(run: Run, source: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    path = tmp_path / "new" / "opdata.db"
    with connected(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()

    for arguments in (("--from", source, "--to", TO), ("--from", TO, "--to", source)):
        ran = run("copy", *arguments)
        assert ran.code == 2
        assert "of another program; nothing was touched" in ran.err
    assert path.read_bytes() == before


def test_a_migrated_and_empty_target_is_filled(run: Run, source: str) -> None:
    asyncio.run(migrate_store(TO))

    assert run("copy", "--from", source, "--to", TO).code == 0


def test_a_finished_copy_is_compared_and_not_written(run: Run, source: str) -> None:
    run("copy", "--from", source, "--to", TO)

    for flags in ((), ("--verify-only",)):
        ran = run("copy", "--from", source, "--to", TO, *flags)
        assert ran.code == 0
        assert "The two hold the same rows; nothing was written." in ran.err


def test_there_is_nothing_to_verify_in_an_empty_target(run: Run, source: str) -> None:
    ran = run("copy", "--from", source, "--to", TO, "--verify-only")

    assert ran.code == 2
    assert not Path("new").exists()


def test_an_unfinished_copy_is_completed(run: Run, source: str, unfinished: Path) -> None:
    with connected(unfinished) as connection:
        connection.execute("DELETE FROM api_keys")

    ran = run("copy", "--from", source, "--to", TO, "--json")
    assert ran.code == 0
    assert ran.json["resumed"] is True
    copied = {each["table"]: each["copied"] for each in ran.json["tables"]}
    assert copied == {**dict.fromkeys(copied, 0), "api_keys": 1}
    assert rows_of(unfinished, "SELECT label FROM api_keys") == [("ci",)]
    assert rows_of(unfinished, f"SELECT 1 FROM migrations WHERE name = '{UNFINISHED_COPY}'") == []


@pytest.mark.usefixtures("unfinished")
def test_an_unfinished_copy_is_of_no_use_to_any_other_command(run: Run, source: str) -> None:
    for command in (
        ("serve", "--db", TO),
        ("db", "migrate", "--db", TO),
        ("keys", "list", "--operator", "default", "--db", TO),
        ("copy", "--from", TO, "--to", "sqlite:///third.db"),
    ):
        ran = run(*command)
        assert ran.code == 2
        assert "is an unfinished copy: run the same opdata copy again" in ran.err
    assert run("copy", "--from", source, "--to", TO).code == 0


def test_an_unfinished_copy_of_something_else_is_refused(
    run: Run, source: str, unfinished: Path
) -> None:
    with connected(unfinished) as connection:
        connection.execute("UPDATE operators SET key_salt = randomblob(32)")
    before = rows_of(unfinished, "SELECT * FROM operators")

    ran = run("copy", "--from", source, "--to", TO)
    assert ran.code == 2
    assert "holds an unfinished copy of another installation" in ran.err
    assert rows_of(unfinished, "SELECT * FROM operators") == before


def test_an_unfinished_copy_of_another_schema_is_refused(
    run: Run, source: str, unfinished: Path
) -> None:
    with connected(unfinished) as connection:
        connection.execute("INSERT INTO migrations VALUES ('9999_later.sql', 0)")

    ran = run("copy", "--from", source, "--to", TO)
    assert ran.code == 2
    assert "another version of opdata" in ran.err


def test_a_source_that_somebody_else_writes_to_is_unavailable(
    run: Run, source: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_BUSY_TIMEOUT_S", "0.2")
    with connected(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ran = run("copy", "--from", source, "--to", TO)
        connection.execute("ROLLBACK")

    assert ran.code == 4
    assert "is being written to, or copied; nothing was done" in ran.err
    assert not Path("new").exists()


def test_nobody_else_gets_at_a_target_that_is_being_written(
    run: Run, source: str, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_BUSY_TIMEOUT_S", "0.2")
    with connected(unfinished) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM operators").fetchall()
        assert run("copy", "--from", source, "--to", TO).code == 4
    assert run("copy", "--from", source, "--to", TO).code == 0


def test_a_row_that_the_target_does_not_take_is_an_error(
    run: Run, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(migrate_store(TO))
    with connected(Path("new/opdata.db")) as connection:
        connection.execute(
            "CREATE TRIGGER fault BEFORE INSERT ON api_keys BEGIN SELECT RAISE(ABORT, 'x'); END"
        )

    ran = run("copy", "--from", source, "--to", TO)
    assert ran.code == 1
    assert "The target does not take the rows of api_keys" in ran.err


def test_a_target_that_ends_up_different_stays_unfinished(
    run: Run, source: str, tmp_path: Path
) -> None:
    asyncio.run(migrate_store(TO))
    path = tmp_path / "new" / "opdata.db"
    with connected(path) as connection:
        connection.execute(
            "CREATE TRIGGER fault AFTER INSERT ON api_keys"
            " BEGIN UPDATE api_keys SET label = 'x'; END"
        )

    for _ in range(2):
        ran = run("copy", "--from", source, "--to", TO)
        assert ran.code == 1
        assert "api_keys differs: 1 rows in the source, 1 in the target" in ran.err
        assert "The target stays marked as unfinished" in ran.err
    with connected(path) as connection:
        connection.execute("DROP TRIGGER fault")
    assert run("copy", "--from", source, "--to", TO).code == 0


def test_progress_is_a_line_now_and_then(
    run: Run, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opdata.cli.progress._LINE_EVERY_S", 0.0)

    ran = run("copy", "--from", source, "--to", TO)
    assert "copying operators: 1 of 1 rows\n" in ran.err
    assert "comparing api_keys: 2 of 2 rows\n" in ran.err


def test_ctrl_c_says_how_to_go_on(run: Run, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_lines: object, doing: str, _done: int, _total: int) -> None:
        if doing.endswith(" entities"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("opdata.cli.progress._Lines.tell", interrupt)
        ran = run("copy", "--from", source, "--to", TO)
    assert ran.code == INTERRUPTED
    assert ran.err == "opdata: interrupted; the same command goes on from there\n"
    assert run("copy", "--from", source, "--to", TO, "--json").json["resumed"] is True


def checksum(*rows: tuple[object, ...]) -> str:
    total = Checksum()
    for row in rows:
        total.add([row])
    return total.hex


def test_a_checksum_depends_on_every_value_and_not_on_the_order_of_rows() -> None:
    rows = [(1, "a", b"b", None), (2, "", b"", 0)]
    assert checksum(*rows) == checksum(*reversed(rows))
    different = [
        *((1, "a", "b"), (1, "ab", ""), (1, "", "ab"), (1, b"a", "b"), ("1", "a", "b")),
        *((1, "a", None), (1, "a", ""), (1, "a", b""), (1, "a"), (1, None, "a"), (-1, "a", "b")),
    ]
    assert len({checksum(row) for row in different}) == len(different)
    assert checksum((1,), (1,)) != checksum((1,))


def test_the_tables_of_the_copy_are_all_that_hold_data_of_an_installation(
    run: Run, source: str, database: Path
) -> None:
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    present = {name for (name,) in rows_of(database, sql)}
    # Who is carrying out retention is nothing of an installation's.
    assert present - {table.name for table in TABLES} == {"migrations", "retention_leases"}
    for table in TABLES:
        columns = rows_of(database, f"SELECT name FROM pragma_table_info('{table.name}')")
        assert {name for (name,) in columns} == set(table.columns)
