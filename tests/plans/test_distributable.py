"""The rules that let a database be distributed by operator, held by reading its schema and the SQL.

docs/scaling.md has each rule and its reason; a database in use is held to the same by `opdata db check`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opdata.storage import open_store
from opdata.storage.postgres.connection import SQL
from opdata.storage.postgres.distribution import DISTRIBUTED, ON_EVERY_NODE
from opdata.storage.postgres.schema import TABLES, known_migrations, statements
from tests.support.postgres import drop_database, migrated_database, postgres_server, run_sql

SOURCE = Path(__file__).parents[2] / "src" / "opdata" / "storage" / "postgres"
ACROSS_OPERATORS = {
    "jobs_of_all",
    "operator_named",
    "operators",
    "last_operator",
    "operators_with_expired_records",
    "authenticate",
    "touch_keys",
    "vacuum_entities",
    "sweep_entities",
    "purge_marks",
    "newest_master_key_in_use",
    "data_keys_of_all",
    "audited_operators",
    "queued_operators",
    "queued_count",
}
"""Statements on tenant tables that are about no single operator; each says why in queries.sql."""

TENANT_TABLE = re.compile(rf"opdata\.({'|'.join(TABLES)})\b")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    made = migrated_database(postgres_server(18).url)
    yield made
    drop_database(made)


def migration_statements() -> list[str]:
    found = [one for migration in known_migrations() for one in statements(migration.sql)]
    assert len(found) > len(TABLES)
    return [re.sub(r"--.*", "", one) for one in found]


def test_every_table_belongs_to_tenants_or_to_the_installation(url: str) -> None:
    rows = run_sql(
        url, "SELECT tablename FROM pg_tables WHERE schemaname = 'opdata' ORDER BY tablename"
    )
    assert {name for (name,) in rows} == {*TABLES, "master_keys", "migrations"}
    assert {*DISTRIBUTED, *ON_EVERY_NODE} == set(TABLES)


def test_nothing_of_ours_is_in_another_schema(url: str) -> None:
    rows = run_sql(
        url,
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname NOT IN ('opdata', 'pg_catalog', 'information_schema', 'pg_toast')",
    )
    assert rows == []


def test_operator_id_comes_first_in_every_key_and_has_one_type(url: str) -> None:
    keys = run_sql(
        url,
        "SELECT t.relname, c.relname, pg_get_indexdef(i.indexrelid, 1, true)"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
        " WHERE t.relnamespace = 'opdata'::regnamespace AND i.indisunique",
    )
    tenants = [(index, first) for table, index, first in keys if table in TABLES]
    assert len(tenants) == len(TABLES)
    assert {first for _, first in tenants} == {"operator_id"}
    columns = run_sql(
        url,
        "SELECT table_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'opdata' AND column_name = 'operator_id'",
    )
    assert {name for name, _, _ in columns} == set(TABLES)
    assert {(kind, nullable) for _, kind, nullable in columns} == {("bigint", "NO")}


def test_no_table_has_triggers_foreign_keys_or_is_unlogged(url: str) -> None:
    triggers = run_sql(
        url,
        "SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE c.relnamespace = 'opdata'::regnamespace",
    )
    assert triggers == []
    kept = run_sql(
        url,
        "SELECT DISTINCT relpersistence::text FROM pg_class"
        " WHERE relnamespace = 'opdata'::regnamespace",
    )
    assert kept == [("p",)]


@pytest.mark.parametrize(
    ("breaks", "problem"),
    [
        (
            "CREATE UNIQUE INDEX global_id ON opdata.entities (entity_id)",
            "key opdata.global_id does not begin with operator_id",
        ),
        ("ALTER TABLE opdata.states SET UNLOGGED", "opdata.states is unlogged: a crash empties it"),
        (
            "ALTER TABLE opdata.jobs ALTER COLUMN operator_id TYPE INTEGER",
            "opdata.jobs.operator_id is not BIGINT NOT NULL",
        ),
        (
            """CREATE TRIGGER stamp BEFORE UPDATE ON opdata.events
            FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()""",
            "opdata.events has trigger stamp",
        ),
    ],
)
def test_a_database_that_breaks_a_rule_is_reported(breaks: str, problem: str) -> None:
    url = migrated_database(postgres_server(18).url)
    try:
        assert asyncio.run(problems_of(url)) == []
        run_sql(url, breaks)
        assert asyncio.run(problems_of(url)) == [problem]
    finally:
        drop_database(url)


async def problems_of(url: str) -> list[str]:
    store = await open_store(url, migrate=False)
    try:
        return list((await store.report()).problems)
    finally:
        await store.close()


def test_migrations_are_statements_one_by_one_in_our_schema() -> None:
    for statement in migration_statements():
        assert ";" not in statement, "one statement an execute"
        changed = re.match(
            r"\s*(?:CREATE (?:TABLE|SEQUENCE|(?:UNIQUE )?INDEX \w+ ON)|ALTER TABLE|UPDATE|INSERT INTO)\s+(\S+)",
            statement,
        )
        assert changed, statement
        assert changed[1].startswith("opdata."), statement


def test_migrations_use_nothing_that_a_distributed_table_cannot_have() -> None:
    for statement in migration_statements():
        assert not re.search(
            r"\b(TRIGGER|UNLOGGED|REFERENCES|SERIAL|BIGSERIAL|IDENTITY|EXCLUDE|INHERITS)\b",
            statement,
        ), statement


@pytest.mark.parametrize("name", SQL)
def test_a_statement_names_its_operator_or_says_why_it_cannot(name: str) -> None:
    if not TENANT_TABLE.search(SQL[name]):
        return
    names_one = re.search(
        r"\boperator_id = \$1|\(\s*operator_id,[^()]*\)\s*VALUES \(\$1", SQL[name]
    )
    assert bool(names_one) is (name not in ACROSS_OPERATORS), name


def test_the_exceptions_are_statements_there_are() -> None:
    assert SQL.keys() >= ACROSS_OPERATORS


@pytest.mark.parametrize("name", [name for name, sql in SQL.items() if " FROM opdata." in sql])
def test_a_join_of_tenant_tables_includes_operator_id(name: str) -> None:
    joined = TENANT_TABLE.findall(SQL[name])
    if len(set(joined)) > 1 and SQL[name].lstrip().startswith("SELECT"):
        assert re.search(r"operator_id = \w+\.operator_id", SQL[name]), name


@pytest.mark.parametrize("name", [name for name, sql in SQL.items() if "DO UPDATE" in sql])
def test_a_conflict_update_computes_with_columns_only(name: str) -> None:
    update = SQL[name].partition("DO UPDATE")[2].partition("RETURNING")[0]
    assert "$" not in update, "no bind parameter"
    assert not re.search(
        r"\b(now|clock_timestamp|statement_timestamp|random|nextval|current_\w+)\b", update
    )
    functions = set(re.findall(r"(\w+)\(", update)) - {"SET"}
    assert functions <= {"greatest", "least"}, "immutable"


@pytest.mark.parametrize("name", [name for name, sql in SQL.items() if "INSERT INTO" in sql])
def test_an_insert_from_a_list_takes_operator_id_from_a_row(name: str) -> None:
    if "unnest(" in SQL[name]:
        assert re.search(
            r"SELECT\s+o\.operator_id.*FROM opdata\.operators AS o\b.*WHERE o\.operator_id = \$1",
            SQL[name],
            re.DOTALL,
        )


def test_no_statement_merges_skips_locks_or_names_a_constraint() -> None:
    for name, sql in SQL.items():
        assert not re.search(r"\b(MERGE|SKIP LOCKED|ON CONSTRAINT)\b", sql), name


def test_the_code_never_tells_errors_apart_by_the_names_of_constraints() -> None:
    for path in SOURCE.rglob("*.py"):
        assert "constraint_name" not in path.read_text(), path


@pytest.mark.parametrize("name", [name for name, sql in SQL.items() if "RETURNING" in sql])
def test_what_a_statement_returns_is_columns(name: str) -> None:
    """A node answers it, which knows no sequence and may compute nothing that changes."""
    returned = SQL[name].partition("RETURNING")[2]
    assert "(" not in returned, returned
