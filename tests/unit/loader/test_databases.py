"""Tables of PostgreSQL, SQLite and DuckDB."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from opdata.cli import main
from opdata.loader.errors import LoadError
from opdata.loader.kinds import ENTITIES
from opdata.loader.selection import Selection
from opdata.loader.source import Source
from tests.support.postgres import drop_database, new_database, postgres_server, run_sql
from tests.unit.loader.conftest import ReadItems, Run
from tests.unit.loader.fake_api import FakeApi

TABLE = """
    CREATE TABLE players (
        id TEXT, big NUMERIC(30, 2), whole BIGINT, note TEXT, joined DATE,
        seen TIMESTAMPTZ, made TIMESTAMP, vip BOOLEAN, extra JSON, rate DOUBLE PRECISION
    )
"""
ROWS = (
    "INSERT INTO players VALUES "
    "('007', 12345678901234567890.10, 9007199254740993, 'Žofie \"😀\"\n', '2024-01-02', "
    "'2024-01-02 03:04:05.5+02', '2024-01-02 03:04:05', true, "
    '\'{"b": [1.50, null], "a": 100.00}\', 1839.2800000000002), '
    "('008', NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, 'NaN')"
)
ITEMS = [
    (
        '{"entityType":"x","externalId":"007","data":{"big":12345678901234567890.10,'
        '"whole":9007199254740993,"note":"Žofie \\"😀\\"\\n","joined":"2024-01-02",'
        '"seen":"2024-01-02T01:04:05.5Z","made":"2024-01-02T03:04:05","vip":true,'
        '"extra":{"b": [1.50, null], "a": 100.00},"rate":1839.2800000000002}}'
    ),
    '{"entityType":"x","externalId":"008","data":{"note":""}}',
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A database with one table; its URL."""
    url = new_database(postgres_server(18).url)
    run_sql(url, TABLE)
    run_sql(url, ROWS)
    yield url
    drop_database(url)


@pytest.fixture
def url(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `--from` takes for it, with the URL in a variable."""
    monkeypatch.setenv("CRM", postgres)
    return "$CRM"


def write_duckdb(path: str, *statements: str) -> None:
    with duckdb.connect(path) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in statements:
            connection.execute(statement)


def write_sqlite(path: str, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_postgresql_table_keeps_digits_text_and_moments(items: ReadItems, url: str) -> None:
    assert items("entities", "players", from_=url) == ITEMS
    assert items("entities", "public.players", from_=url) == ITEMS


def test_a_duckdb_table_keeps_digits_text_and_moments(items: ReadItems) -> None:
    write_duckdb("crm.duckdb", TABLE, ROWS)
    assert items("entities", "players", from_="crm.duckdb") == ITEMS
    assert items("entities", "main.players", from_="duckdb:///crm.duckdb") == ITEMS


def test_a_sqlite_table_keeps_what_sqlite_keeps(items: ReadItems) -> None:
    write_sqlite(
        "crm.db",
        "CREATE TABLE players (id TEXT, whole INTEGER, rate REAL, note TEXT, none TEXT)",
        "INSERT INTO players VALUES ('007', 9007199254740993, 1839.2800000000002, 'Žofie \"😀\"\n', NULL)",
    )
    expected = [
        (
            '{"entityType":"x","externalId":"007","data":{"whole":9007199254740993,'
            '"rate":1839.2800000000002,"note":"Žofie \\"😀\\"\\n"}}'
        )
    ]
    assert items("entities", "players", from_="crm.db") == expected
    assert items("entities", "players", from_="sqlite:///crm.db") == expected
    assert items("entities", "main.players", from_=f"sqlite:///{Path.cwd()}/crm.db") == expected


def test_a_statement_is_in_the_dialect_of_the_database(items: ReadItems, url: str) -> None:
    write_sqlite("crm.db", TABLE, ROWS)
    write_duckdb("crm.duckdb", TABLE, ROWS)
    statements = {
        url: "SELECT id, to_char(joined, 'FMMonth') AS month FROM players WHERE vip -- a remark",
        "crm.db": "SELECT id, strftime('January', joined) AS month FROM players WHERE vip;",
        "crm.duckdb": "SELECT id, strftime(joined, '%B') AS month FROM players WHERE vip",
    }
    for from_, sql in statements.items():
        assert items("entities", from_=from_, sql=sql) == [
            '{"entityType":"x","externalId":"007","data":{"month":"January"}}'
        ]


def test_several_tables_come_one_after_the_other(items: ReadItems, postgres: str, url: str) -> None:
    tables = (
        'CREATE TABLE "Odd ""name" (id TEXT, a INT)', "INSERT INTO \"Odd \"\"name\" VALUES ('1', 1)",
        "CREATE TABLE b (id TEXT, b INT)", "INSERT INTO b VALUES ('2', 2), ('3', NULL)",
    )  # fmt: skip
    for statement in tables:
        run_sql(postgres, statement)
    write_sqlite("crm.db", *tables)
    write_duckdb("crm.duckdb", *tables)
    for from_ in (url, "crm.db", "crm.duckdb"):
        selection = Selection(ENTITIES, ['Odd "name', "b"], None, "x", from_=from_)
        with Source(selection) as source:
            assert [id_ for block in source.blocks() for _, id_ in block] == ["1", "2", "3"]
            assert [source.label(row) for row in (1, 2, 3)] == ['Odd "name:1', "b:1", "b:2"]


def test_more_rows_than_are_fetched_at_a_time_come_in_order(items: ReadItems, url: str) -> None:
    write_sqlite("crm.db", "CREATE TABLE t (id TEXT)")
    write_duckdb("crm.duckdb", "CREATE TABLE t (id TEXT)")
    statements = {
        url: "SELECT n AS id FROM generate_series(1, 12000) AS g(n)",
        "crm.db": "WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c LIMIT 12000) SELECT id FROM c",
        "crm.duckdb": "SELECT range + 1 AS id FROM range(12000)",
    }
    for from_, sql in statements.items():
        found = items("entities", from_=from_, sql=sql)
        assert found == [
            f'{{"entityType":"x","externalId":"{n}","data":{{}}}}' for n in range(1, 12_001)
        ]


def test_an_empty_table_is_no_items(items: ReadItems, postgres: str, url: str) -> None:
    run_sql(postgres, "CREATE TABLE nobody (id TEXT)")
    write_sqlite("crm.db", "CREATE TABLE nobody (id TEXT)")
    write_duckdb("crm.duckdb", "CREATE TABLE nobody (id TEXT)")
    for from_ in (url, "crm.db", "crm.duckdb"):
        assert items("entities", "nobody", from_=from_) == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM players", 'column "nope" does not exist'),
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("SELECT $1::int AS id", "one SELECT, without parameters"),
        ("DROP TABLE players", "one SELECT, without parameters"),
        ("DELETE FROM players RETURNING id", "syntax error"),
        ("SELECT nextval('n') AS id", "cannot execute nextval"),
        ("SELECT id, 'a'::bytea AS photo FROM players", r"column photo is bytea.*encode\(photo"),
        ("SELECT id, note AS id FROM players", "several columns are named id"),
        ("SELECT note FROM players", "none of the 1 columns is named externalId"),
        ("SELECT note::int AS id FROM players", "InvalidTextRepresentationError.*withheld"),
    ],
)
def test_what_is_wrong_with_a_postgresql_statement_is_said(
    items: ReadItems, postgres: str, url: str, sql: str, problem: str
) -> None:
    run_sql(postgres, "CREATE SEQUENCE IF NOT EXISTS n")
    with pytest.raises(LoadError, match=problem) as caught:
        items("entities", from_=url, sql=sql)
    assert "Žofie" not in str(caught.value)
    assert run_sql(postgres, "SELECT count(*) FROM players") == [(2,)]


def test_a_table_that_is_not_there_is_named(items: ReadItems, url: str) -> None:
    write_sqlite("crm.db", "CREATE TABLE t (id TEXT)")
    write_duckdb("crm.duckdb", "CREATE TABLE t (id TEXT)")
    problems = {url: 'relation "sauce" does not exist', "crm.db": "no such table: sauce",
                "crm.duckdb": "sauce does not exist"}  # fmt: skip
    for from_, problem in problems.items():
        with pytest.raises(LoadError, match=problem):
            items("entities", "sauce", from_=from_)


def test_a_binary_column_of_sqlite_is_refused_by_name(items: ReadItems) -> None:
    write_sqlite(
        "crm.db", "CREATE TABLE t (id TEXT, photo BLOB)", "INSERT INTO t VALUES ('1', x'00ff')"
    )
    with pytest.raises(LoadError, match="row 1: the column photo is binary"):
        items("entities", "t", from_="crm.db")


def test_files_are_opened_read_only(items: ReadItems) -> None:
    write_sqlite("crm.db", "CREATE TABLE t (id TEXT)")
    with pytest.raises(LoadError, match="readonly database"):
        items("entities", from_="crm.db", sql="INSERT INTO t VALUES ('1') RETURNING id")
    write_duckdb("crm.duckdb", "CREATE TABLE t (id TEXT)")
    with pytest.raises(LoadError, match="takes one SELECT"):
        items("entities", from_="crm.duckdb", sql="INSERT INTO t VALUES ('1')")


def test_a_read_of_postgresql_can_be_interrupted(url: str) -> None:
    sql = "SELECT n AS id FROM generate_series(1, 1000) n UNION ALL SELECT 1 FROM pg_sleep(60)"
    with Source(Selection(ENTITIES, [], sql, "x", from_=url)) as source:
        blocks = source.blocks()
        next(blocks)
        waking = threading.Timer(0.1, source.interrupt)
        waking.start()
        with pytest.raises(LoadError, match="interrupted"):
            list(blocks)
        waking.join()


def test_a_connection_that_breaks_stops_the_load(postgres: str, url: str) -> None:
    sql = "SELECT n AS id FROM generate_series(1, 100000) n"
    with Source(Selection(ENTITIES, [], sql, "x", from_=url)) as source:
        blocks = source.blocks()
        next(blocks)
        run_sql(
            postgres,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        with pytest.raises(LoadError, match="the database cannot be read"):
            list(blocks)


def test_json_is_taken_from_text_columns_of_postgresql_and_not_from_json_strings(
    items: ReadItems, url: str
) -> None:
    data = '{"paid": 100.00}'
    sql = f"SELECT '1' AS id, '{data}' AS data"
    assert items("entities", from_=url, sql=sql) == [
        f'{{"entityType":"x","externalId":"1","data":{data}}}'
    ]
    sql = "SELECT '1' AS id, '\"{}\"'::jsonb AS value"
    assert items("states", from_=url, sql=sql) == ['{"stateKey":"x","externalId":"1","value":"{}"}']


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"from_": "$CRM_UNSET"}, "the environment variable CRM_UNSET is to hold"),
        ({"from_": "mysql://host/db"}, "--from takes postgresql://"),
        ({"from_": "crm.txt"}, "--from takes postgresql://"),
        ({"from_": "nope.db"}, "no such file: nope.db"),
        ({"from_": "sqlite:///nope.db"}, "no such file: nope.db"),
        ({"from_": "text.db"}, "not a database"),
        ({"from_": "text.duckdb"}, "text.duckdb cannot be opened"),
        ({"from_": "postgresql://127.0.0.1:1/nope"}, "the database cannot be reached"),
        ({"from_": "postgresql://nope.invalid/db"}, "reached: there is no host nope.invalid "),
        ({"from_": "$ODD"}, "the database's URL cannot be understood"),
        ({"from_": "postgresql://localhost:134857/db"}, "database's URL cannot be understood"),
        ({"from_": "text.db", "sql": "SELECT 1"}, "names of tables as SOURCE, or one --sql"),
        ({"from_": "text.db", "format": "csv"}, "--format is of files"),
    ],
)
def test_what_is_no_database_is_said(
    items: ReadItems, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], problem: str
) -> None:
    monkeypatch.setenv("ODD", "postgresql://user:secret@host:port/db")
    for name in ("text.db", "text.duckdb"):
        Path(name).write_text("secret" * 999)
    with pytest.raises(LoadError, match=problem) as caught:
        items("entities", "players", **options)
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_reached_is_told_from_a_wrong_option(
    api: FakeApi, load: Run
) -> None:
    Path("load.toml").write_text(
        '[[step]]\nkind = "entities"\nentity_type = "x"\nsources = ["players"]\n'
        'from = "postgresql://127.0.0.1:1/nope"\n'
    )
    for ran in (
        load("entities", "players", "--from", "postgresql://127.0.0.1:1/nope"),
        load("all", "load.toml"),
    ):
        assert ran.code == 4
        assert "the database cannot be reached" in ran.err
    arguments = ("--entity-type", "x", "--from", "postgresql://127.0.0.1:1/nope")
    assert main(["verify", "entities", "players", *arguments]) == 4
    assert api.received == []
