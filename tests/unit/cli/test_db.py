"""`opdata db`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opdata.storage.postgres.schema import known_migrations
from opdata.storage.sqlite.schema import known_names
from tests.support.postgres import drop_database, new_database, postgres_server, run_sql
from tests.unit.cli.conftest import Run, connected, rows_of


def test_migrate_creates_the_database_and_says_what_it_applied(run: Run, tmp_path: Path) -> None:
    ran = run("db", "migrate")

    assert ran.out == "".join(f"applied {name}\n" for name in known_names())
    rows = rows_of(tmp_path / "opdata-data" / "opdata.db", "SELECT name FROM migrations")
    assert [name for (name,) in rows] == known_names()


def test_migrating_twice_changes_nothing(run: Run) -> None:
    run("db", "migrate")

    assert run("db", "migrate") == (0, "", "The schema is up to date.\n")
    assert run("db", "migrate", "--json").json == {"applied": []}


def test_a_dry_run_names_what_is_pending_and_touches_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("db", "migrate", "--dry-run")

    assert ran.out == "".join(f"pending {name}\n" for name in known_names())
    assert run("db", "migrate", "--dry-run", "--json").json == {"pending": list(known_names())}
    assert list(tmp_path.iterdir()) == []


def test_check_finds_nothing_wrong_with_a_fresh_database(run: Run, database: Path) -> None:
    ran = run("db", "check")
    assert ran.code == 0
    assert "✓ No problems found." in ran.out

    report = run("db", "check", "--json").json
    assert report["ok"] is True
    assert report["problems"] == report["pending"] == []
    assert report["rows"]["operators"] == 1
    assert report["sizeBytes"] >= database.stat().st_size


def test_check_reports_a_missing_database_and_creates_none(run: Run, tmp_path: Path) -> None:
    ran = run("db", "check")

    assert ran.code == 1
    assert "✗ There is no database" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_check_reports_pending_migrations(run: Run, database: Path) -> None:
    with connected(database) as connection:
        connection.execute("DELETE FROM migrations")

    ran = run("db", "check", "--json")
    assert ran.code == 1
    assert known_names()[0] in ran.json["problems"][0]
    assert "opdata db migrate" in ran.json["problems"][0]


def test_check_reports_damage(run: Run, database: Path) -> None:
    database.write_bytes(b"not a database at all" * 1000)

    ran = run("db", "check")
    assert ran.code == 1
    assert "✗" in ran.out
    assert "Traceback" not in ran.err


def test_another_programs_database_is_left_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with connected(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()

    ran = run("db", "migrate", "--db", "sqlite:///other.db")
    assert ran.code == 2
    assert path.read_bytes() == before


def test_a_url_that_no_store_knows_is_a_usage_error(run: Run) -> None:
    for command in ("check", "migrate"):
        ran = run("db", command, "--db", "mysql://localhost/opdata")
        assert ran.code == 2
        assert ran.err.startswith("opdata: ")


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database on a server, named by the environment."""
    url = new_database(postgres_server(18).url)
    monkeypatch.setenv("OPDATA_DB", url)
    yield url
    drop_database(url)


def test_a_server_is_migrated_and_a_dry_run_only_tells(run: Run, postgres: str) -> None:
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'opdata'"

    names = [migration.name for migration in known_migrations()]
    assert run("db", "migrate", "--dry-run", "--json").json == {"pending": names}
    assert run_sql(postgres, schemas) == [(0,)]
    assert run("db", "migrate", "--json").json == {"applied": names}
    assert run("db", "migrate", "--json").json == {"applied": []}
    checked = run("db", "check", "--json")
    assert (checked.code, checked.json["ok"], checked.json["distributed"]) == (0, True, None)
    assert checked.json["store"] == "postgresql"


def test_a_server_without_citus_is_left_as_it_is(run: Run, postgres: str) -> None:
    run("db", "migrate")

    refused = run("db", "distribute")

    assert refused.code == 2
    assert "This server has no Citus extension" in refused.err
    assert "Nothing was changed" in refused.err
    assert run("db", "check").code == 0


def test_a_file_is_not_distributed(run: Run) -> None:
    run("db", "migrate")

    refused = run("db", "distribute")

    assert refused.code == 2
    assert "one file on one machine" in refused.err
    assert "opdata copy" in refused.err
