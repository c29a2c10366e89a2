"""A column `data` or `value` whose cells hold JSON as text, as an export writes them."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
import xlsxwriter

from opdata.loader.errors import LoadError
from tests.unit.loader.conftest import ReadItems

DATA = '{"paid": 100.00, "big": 12345678901234567890.10, "note": "a,\\"b\\"\\né", "none": null}'

Rows = Sequence[Sequence[str | None]]


def write_csv(rows: Rows) -> dict[str, str]:
    with Path("a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return {"source": "a.csv"}


def write_parquet(rows: Rows) -> dict[str, str]:
    write_csv(rows)
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (FROM read_csv('a.csv', all_varchar = true, header = true)) TO 'a.parquet'"
        )
    return {"source": "a.parquet"}


def write_xlsx(rows: Rows) -> dict[str, str]:
    with xlsxwriter.Workbook("a.xlsx") as book:
        sheet = book.add_worksheet()
        for at, row in enumerate(rows):
            for column, cell in enumerate(row):
                if cell is not None:
                    sheet.write_string(at, column, cell)
    return {"source": "a.xlsx"}


def write_sqlite(rows: Rows) -> dict[str, str]:
    header, *body = rows
    with closing(sqlite3.connect("a.db")) as connection:
        connection.execute(f"CREATE TABLE t ({', '.join(map(str, header))})")
        connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(header))})", body)
        connection.commit()
    return {"source": "t", "from_": "a.db"}


Write = Callable[[Rows], dict[str, str]]
WRITERS = [write_csv, write_parquet, write_xlsx, write_sqlite]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__.removeprefix("write_"))
def write(request: pytest.FixtureRequest) -> Write:
    """Write a header and rows into a file or table of each kind that has no JSON of its own."""
    writer: Write = request.param
    return writer


def read(items: ReadItems, kind: str, written: dict[str, str]) -> list[str]:
    options = dict(written)
    return items(kind, options.pop("source"), constant=None, **options)


def test_objects_in_a_column_data_are_the_data_byte_for_byte(
    items: ReadItems, write: Write
) -> None:
    written = write(
        [["externalId", "entityType", "data"], ["007", "player", DATA], ["8", "player", "{}"]]
    )
    assert read(items, "entities", written) == [
        f'{{"entityType":"player","externalId":"007","data":{DATA}}}',
        '{"entityType":"player","externalId":"8","data":{}}',
    ]


def test_a_later_cell_that_is_no_object_is_left_to_the_server_to_refuse(
    items: ReadItems, write: Write
) -> None:
    rows = [["1", "player", '{"a": 1.0}']] * 1_000
    odd = ["secret", '{"a": NaN}', '{"a": 1', "[1]", "7"]
    written = write(
        [["externalId", "entityType", "data"], *rows, *(["2", "player", cell] for cell in odd)]
    )
    found = read(items, "entities", written)
    assert found[999] == '{"entityType":"player","externalId":"1","data":{"a": 1.0}}'
    assert [json.loads(item)["data"] for item in found[1_000:]] == odd


def test_first_cells_that_are_no_objects_make_data_a_field_like_any_other(
    items: ReadItems, write: Write
) -> None:
    written = write(
        [["externalId", "entityType", "data"], ["1", "player", "x"], ["2", "player", "{}"]]
    )
    assert [json.loads(item)["data"] for item in read(items, "entities", written)] == [
        {"data": "x"},
        {"data": "{}"},
    ]


def test_values_of_all_kinds_come_back_as_they_were(items: ReadItems, write: Write) -> None:
    values = ['{"amount": 250.00}', '"verified"', "0.50", "true", "[1.0, null]", '"{}"']
    written = write([["externalId", "stateKey", "value"], *(["1", "balance", v] for v in values)])
    assert [item.partition('"value":')[2][:-1] for item in read(items, "states", written)] == values


def test_a_later_value_that_is_not_json_stops_the_load(items: ReadItems, write: Write) -> None:
    rows = [["1", "balance", '{"a": 1.0}']] * 1_000
    written = write([["externalId", "stateKey", "value"], *rows, ["2", "balance", "secret"]])
    with pytest.raises(
        LoadError, match=r"row 1001: value is not JSON|in 1 others it is not"
    ) as caught:
        read(items, "states", written)
    assert "secret" not in str(caught.value)


def test_plain_values_stay_text(items: ReadItems, write: Write) -> None:
    written = write(
        [
            ["externalId", "stateKey", "value"],
            ["1", "kyc_status", "verified"],
            ["2", "kyc_status", "007"],
        ]
    )
    assert [json.loads(item)["value"] for item in read(items, "states", written)] == [
        "verified",
        "007",
    ]


def test_numbers_in_the_first_rows_do_not_hide_json_in_later_ones(items: ReadItems) -> None:
    rows = [["1", "risk_score", f"{n}.50"] for n in range(3_000)]
    written = write_csv(
        [["externalId", "stateKey", "value"], *rows, ["2", "kyc_status", '"verified"']]
    )
    found = read(items, "states", written)
    assert found[2].endswith('"value":2.50}')
    assert found[-1].endswith('"value":"verified"}')


def test_json_columns_of_parquet_are_taken_as_they_are(items: ReadItems) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT '1' AS externalId, 'player' AS entityType, ?::JSON AS data) TO 'a.parquet'",
            [DATA],
        )
    assert items("entities", "a.parquet", constant=None) == [
        f'{{"entityType":"player","externalId":"1","data":{DATA}}}'
    ]


def test_objects_stay_the_data_when_rows_are_chosen_with_sql(items: ReadItems) -> None:
    write_csv([["externalId", "data"], ["1", DATA], ["2", "{}"]])
    sql = "SELECT * FROM source WHERE externalId = 1"
    assert items("entities", "a.csv", sql=sql) == [
        f'{{"entityType":"x","externalId":"1","data":{DATA}}}'
    ]


def test_text_in_json_is_never_taken_for_json(items: ReadItems) -> None:
    Path("a.ndjson").write_text('{"externalId":"1","stateKey":"note","value":"{}"}\n')
    assert items("states", "a.ndjson", constant=None) == [
        '{"externalId":"1","stateKey":"note","value":"{}"}'
    ]
