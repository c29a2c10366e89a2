"""One export as every kind of source: whichever is loaded, the store holds the same.

The export is made here in the shape of a bookmaker's: ids with leading zeros, numbers with many digits,
dates, `NULL` as text, empty cells.
"""

from __future__ import annotations

import gzip
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
import xlsxwriter

from opdata.cli import main
from tests.support.postgres import drop_database, new_database, postgres_server, run_sql
from tests.support.running import RunningServer

PLAYERS = 300
MAKE = {
    "players": f"""
        SELECT printf('%07d', i) AS id, printf('p%d@example.com', i) AS email, 'MT' AS country,
            'EUR' AS currency, 'active' AS status, DATE '2005-02-01' + i::INTEGER AS registered,
            CASE WHEN i % 3 = 0 THEN 'NULL' WHEN i % 3 = 1 THEN 'Žofie "😀"' END AS note,
            CASE WHEN i % 2 = 0 THEN i END AS level
        FROM range({PLAYERS}) AS t(i)
    """,
    "bets": f"""
        SELECT printf('%07d', i) AS external_id, 'bet-' || i AS "idempotencyKey",
            TIMESTAMP '2005-02-01 10:00:00' + INTERVAL (i) HOUR AS occurred_at,
            i % 7 AS game_id, (i * 4 + 1) / 8 AS bet_amount
        FROM range({PLAYERS}) AS t(i)
    """,
}
POSTGRES_TYPES = {"DOUBLE": "DOUBLE PRECISION"}

Arguments = list[str]


@pytest.fixture(scope="module")
def export() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of the export."""
    with duckdb.connect() as connection:
        for name, select in MAKE.items():
            connection.execute(f"CREATE TABLE {name} AS {select}")
        yield connection


@pytest.fixture(scope="module")
def postgres(export: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """A PostgreSQL database with the export in it; its URL."""
    url = new_database(postgres_server(18).url)
    for name in MAKE:
        table = export.table(name)
        columns = ", ".join(
            f'"{column}" {POSTGRES_TYPES.get(str(type_), str(type_))}'
            for column, type_ in zip(table.columns, table.types, strict=True)
        )
        run_sql(url, f"CREATE TABLE {name} ({columns})")
        values = ", ".join(f"({', '.join(map(sql_literal, row))})" for row in table.fetchall())
        run_sql(url, f"INSERT INTO {name} VALUES {values}")
    yield url
    drop_database(url)


def sql_literal(value: object) -> str:
    if value is None or isinstance(value, bool | int | float):
        return "NULL" if value is None else str(value)
    return "'" + str(value).replace("'", "''") + "'"


def as_csv(export: duckdb.DuckDBPyConnection, name: str) -> Arguments:
    export.execute(f"COPY {name} TO '{name}.csv' (HEADER)")
    Path(f"{name}.csv.gz").write_bytes(gzip.compress(Path(f"{name}.csv").read_bytes()))
    return [f"{name}.csv.gz"]


def as_directory_of_parquet(export: duckdb.DuckDBPyConnection, name: str) -> Arguments:
    Path(name).mkdir()
    for part, where in {"1": "< 100", "2": ">= 100"}.items():
        export.execute(f"COPY (FROM {name} WHERE rowid {where}) TO '{name}/{part}.parquet'")
    return [name]


def as_ndjson(export: duckdb.DuckDBPyConnection, name: str) -> Arguments:
    export.execute(f"COPY {name} TO '{name}.ndjson' (FORMAT json)")
    return [f"{name}.ndjson"]


def as_excel(export: duckdb.DuckDBPyConnection, name: str) -> Arguments:
    table = export.table(name)
    with xlsxwriter.Workbook(f"{name}.xlsx") as book:
        sheet = book.add_worksheet("Data")
        formats = {
            "DATE": book.add_format({"num_format": "yyyy-mm-dd"}),
            "TIMESTAMP": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
        }
        sheet.write_row(0, 0, table.columns)
        for at, row in enumerate(table.fetchall(), 1):
            for column, (value, type_) in enumerate(zip(row, table.types, strict=True)):
                if isinstance(value, str):
                    sheet.write_string(at, column, value)
                elif value is not None:
                    sheet.write(at, column, value, formats.get(str(type_)))
    return [f"{name}.xlsx", "--sheet", "Data"]


def as_sqlite(export: duckdb.DuckDBPyConnection, name: str) -> Arguments:
    table = export.table(name)
    rows = [[str(v) if hasattr(v, "year") else v for v in row] for row in table.fetchall()]
    with closing(sqlite3.connect("export.db")) as connection:
        columns = ", ".join(f'"{column}"' for column in table.columns)
        connection.execute(f"CREATE TABLE {name} ({columns})")
        connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        connection.commit()
    return [name, "--from", "export.db"]


def as_duckdb(export: duckdb.DuckDBPyConnection, name: str) -> Arguments:
    export.execute("ATTACH 'export.duckdb' AS file")
    export.execute(f"CREATE TABLE file.{name} AS FROM {name}")
    export.execute("DETACH file")
    return [name, "--from", "duckdb:///export.duckdb"]


WRITERS: list[Callable[[duckdb.DuckDBPyConnection, str], Arguments]] = [
    as_directory_of_parquet, as_ndjson, as_excel, as_sqlite, as_duckdb,
]  # fmt: skip


@pytest.fixture
def opdata(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run `opdata load` against the server, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    key = server.client().headers["authorization"].removeprefix("Bearer ")
    monkeypatch.setenv("OPDATA_URL", server.url)
    monkeypatch.setenv("OPDATA_API_KEY", key)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def load(*arguments: str) -> int:
        return main(["load", *arguments])

    return load


def test_every_source_of_an_export_stores_the_same(
    server: RunningServer,
    opdata: Callable[..., int],
    export: duckdb.DuckDBPyConnection,
    postgres: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(players: Arguments, bets: Arguments) -> None:
        assert opdata("entities", "--entity-type", "player", *players) == 0
        assert opdata("events", "--event-type", "game_activity", *bets) == 0

    def stored() -> list[list[tuple[object, ...]]]:
        return [
            sorted(server.stored.rows(f"SELECT * FROM {table}"), key=repr)
            for table in ("entities", "events")
        ]

    load(as_csv(export, "players"), as_csv(export, "bets"))
    before = stored()
    assert [len(rows) for rows in before] == [PLAYERS, PLAYERS]
    client = server.client()
    assert client.get("/entities/0000007").json()["data"]["data"] == {
        "email": "p7@example.com", "country": "MT", "currency": "EUR", "status": "active",
        "registered": "2005-02-08", "note": 'Žofie "😀"',
    }  # fmt: skip
    (bet,) = client.get("/entities/0000007/events").json()["data"]["items"]
    assert bet["occurred_at"] == "2005-02-01T17:00:00.000Z"
    assert bet["data"] == {"game_id": 0, "bet_amount": 3.625}

    # An entity that is the same is not written again (nor is its time of change), an event that
    # is the same under its key is no second one, and one that is not would be refused.
    for write in WRITERS:
        load(write(export, "players"), write(export, "bets"))
        assert stored() == before, write.__name__
    monkeypatch.setenv("OPDATA_LOAD_FROM", postgres)
    load(["players"], ["bets"])
    assert stored() == before
    monkeypatch.delenv("OPDATA_LOAD_FROM")
    for name, arguments in {"players": ["entities"], "bets": ["events"]}.items():
        typed = ["--entity-type=player"] if name == "players" else ["--event-type=game_activity"]
        with Path(f"{name}.csv.gz").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert opdata(*arguments, "-", "--format", "csv", *typed) == 0
    assert stored() == before
