"""Migrations of the server store: whole or not at all, whoever applies them and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest

from opdata.errors import DatabaseNotMigrated, DatabaseTooNew, StartupError, Unavailable
from opdata.storage import migrate_store, open_store
from opdata.storage.postgres.schema import known_migrations, statements
from tests.support.postgres import drop_database, new_database, postgres_server, run_sql

NAMES = [migration.name for migration in known_migrations()]


@pytest.fixture
def url() -> Iterator[str]:
    made = new_database(postgres_server(18).url)
    yield made
    drop_database(made)


def relations(url: str) -> int:
    [(count,)] = run_sql(
        url, "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('opdata')"
    )
    return int(count)


def schema(url: str) -> list[tuple[object, ...]]:
    """Every column there is, and the migrations that are said to have been applied."""
    columns = run_sql(
        url,
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'opdata' ORDER BY 1, 2",
    )
    return columns and columns + run_sql(url, "SELECT name FROM opdata.migrations ORDER BY 1")


async def test_a_migration_that_is_cut_off_anywhere_leaves_nothing_of_itself(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `kill -9` at every statement: the connection ends, and the server undoes what it began."""
    whole: list[list[tuple[object, ...]]] = [[]]
    for count in range(1, len(NAMES) + 1):
        with monkeypatch.context() as older:
            known = Mock(return_value=known_migrations()[:count])
            older.setattr("opdata.storage.postgres.schema.known_migrations", known)
            await migrate_store(url)
        whole.append(schema(url))
    run_sql(url, "DROP SCHEMA opdata CASCADE")
    execute = asyncpg.Connection.execute
    steps = 0
    cut_at = 0

    async def cut(connection: Any, query: str, *args: Any, **rest: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == cut_at:
            connection.terminate()
            raise ConnectionResetError("cut")
        return await execute(connection, query, *args, **rest)

    monkeypatch.setattr(asyncpg.Connection, "execute", cut)
    while True:
        steps, cut_at = 0, cut_at + 1
        try:
            await migrate_store(url)
        except Unavailable:
            left = schema(url)
            assert left in whole[:-1], f"cut at statement {cut_at}"
            if left:
                run_sql(url, "DROP SCHEMA opdata CASCADE")
        else:
            break
    assert cut_at > sum(len(statements(each.sql)) for each in known_migrations())
    assert schema(url) == whole[-1]
    assert await migrate_store(url) == []


async def test_many_migrate_at_once_and_each_migration_is_applied_once(url: str) -> None:
    applied = await asyncio.gather(*(migrate_store(url) for _ in range(8)))
    assert sorted(name for names in applied for name in names) == NAMES
    assert run_sql(url, "SELECT name FROM opdata.migrations") == [(name,) for name in NAMES]


async def test_a_dry_run_names_what_is_pending_and_touches_nothing(url: str) -> None:
    assert await migrate_store(url, dry_run=True) == NAMES
    assert relations(url) == 0
    await migrate_store(url)
    assert await migrate_store(url, dry_run=True) == []


async def test_a_database_that_is_not_migrated_does_not_open_by_itself(url: str) -> None:
    with pytest.raises(DatabaseNotMigrated, match="opdata db migrate"):
        await open_store(url, migrate=False)
    assert relations(url) == 0


async def test_a_database_of_a_newer_opdata_is_left_alone(url: str) -> None:
    await migrate_store(url)
    run_sql(url, "INSERT INTO opdata.migrations VALUES ('9999_later.sql', 1)")
    for migrate in (True, False):
        with pytest.raises(DatabaseTooNew, match=r"9999_later\.sql"):
            await open_store(url, migrate=migrate)


async def test_a_schema_of_another_program_is_left_alone(url: str) -> None:
    run_sql(url, "CREATE SCHEMA opdata")
    run_sql(url, "CREATE TABLE opdata.theirs (n INTEGER)")
    for refused in (migrate_store(url), open_store(url)):
        with pytest.raises(StartupError, match="another program"):
            await refused
    assert relations(url) == 1


async def test_an_empty_schema_that_was_made_for_us_is_used(url: str) -> None:
    """Where the role may not create one in this database."""
    run_sql(url, "CREATE SCHEMA opdata")
    assert await migrate_store(url) == NAMES


async def test_a_standby_takes_no_writes_and_is_not_ready(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate_store(url)
    store = await open_store(url)
    fetchval = asyncpg.Connection.fetchval

    async def in_recovery(connection: Any, query: str, *args: Any, **rest: Any) -> Any:
        if query == "SELECT pg_is_in_recovery()":
            return True
        return await fetchval(connection, query, *args, **rest)

    monkeypatch.setattr(asyncpg.Connection, "fetchval", in_recovery)
    with pytest.raises(Unavailable, match="standby"):
        await store.ping()
    await store.close()


async def test_a_database_in_another_encoding_is_refused() -> None:
    server = postgres_server(18)
    name = "opdata_test_latin"
    run_sql(
        server.url,
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    )
    latin = server.url_of(name)
    try:
        with pytest.raises(StartupError, match="encoding is LATIN1"):
            await open_store(latin)
        assert relations(latin) == 0
    finally:
        drop_database(latin)
