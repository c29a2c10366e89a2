"""Directories, standard input and Excel."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import xlsxwriter

from opdata.loader.errors import LoadError
from opdata.loader.kinds import ENTITIES, EVENTS
from opdata.loader.selection import Selection
from opdata.loader.source import Source
from tests.unit.loader.conftest import ReadItems, Run
from tests.unit.loader.fake_api import FakeApi

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Give = Callable[[bytes], None]

PLAYER = '{"entityType":"x","externalId":"007","data":{"n":2.50}}'
CSV = b"id,n\n007,2.50\n"
NDJSON = b'{"id":"007","n":2.50}\n'


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Give]:
    """Make standard input these bytes."""
    with ExitStack() as files:

        def put(content: bytes) -> None:
            path = tmp_path / ".given"
            path.write_bytes(content)
            monkeypatch.setattr(sys, "stdin", files.enter_context(path.open()))

        yield put


def write_sheet(path: str, *rows: list[Any], name: str = "Sheet1", more: str | None = None) -> None:
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd"}) as book:
        sheet = book.add_worksheet(name)
        for at, row in enumerate(rows):
            for column, cell in enumerate(row):
                if isinstance(cell, str):
                    sheet.write_string(at, column, cell)
                elif cell is not None:
                    sheet.write(at, column, cell)
        if more is not None:
            book.add_worksheet(more)


def test_a_directory_is_its_files_of_a_known_format_by_name(items: ReadItems) -> None:
    Path("in/deeper").mkdir(parents=True)
    Path("in/b.csv").write_text("id\n2\n")
    Path("in/a.csv.gz").write_bytes(gzip.compress(b"id\n1\n", mtime=0))
    for other in ("in/README.md", "in/.hidden.csv", "in/deeper/c.csv"):
        Path(other).write_text("id\n9\n")
    assert [item.partition('"externalId":')[2] for item in items("entities", "in")] == [
        '"1","data":{}}',
        '"2","data":{}}',
    ]


def test_a_directory_of_two_formats_needs_one_named(items: ReadItems) -> None:
    Path("in").mkdir()
    Path("in/a.csv").write_bytes(CSV)
    Path("in/b.ndjson").write_bytes(NDJSON)
    with pytest.raises(LoadError, match="one load reads one format, not csv and ndjson"):
        items("entities", "in")
    assert items("entities", "in", format="ndjson") == [PLAYER]


def test_a_format_can_be_given_where_the_name_does_not_say_it(items: ReadItems) -> None:
    Path("export.txt").write_bytes(CSV)
    assert items("entities", "export.txt", format="csv") == [PLAYER]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
@pytest.mark.parametrize(
    ("format_", "content"),
    [
        ("csv", CSV),
        ("tsv", b"id\tn\n007\t2.50\n"),
        ("ndjson", NDJSON),
        ("json", b'[{"id": "007",\n "n": 2.50}]'),
    ],
)
def test_standard_input_is_read_compressed_or_not(
    items: ReadItems, give: Give, compress: Callable[[bytes], bytes], format_: str, content: bytes
) -> None:
    give(compress(content))
    assert items("entities", "-", format=format_) == [PLAYER]


def test_standard_input_is_mapped_like_a_file(items: ReadItems, give: Give) -> None:
    sql = 'SELECT id AS "externalId", CAST(n AS DECIMAL(9, 2)) AS n FROM source'
    give(CSV)
    assert items("entities", "-", format="csv", sql=sql) == [PLAYER]
    give(NDJSON)
    assert items("entities", "-", format="ndjson", sql=sql) == [PLAYER]


def test_parquet_and_excel_on_standard_input_tell_their_format(
    items: ReadItems, give: Give
) -> None:
    duckdb.sql("COPY (SELECT '007' AS id, 2.50::DECIMAL(9,2) AS n) TO 'a.parquet'")
    give(Path("a.parquet").read_bytes())
    assert items("entities", "-") == [PLAYER]
    write_sheet("a.xlsx", ["id", "n"], ["007", 2.5])
    give(Path("a.xlsx").read_bytes())
    assert items("entities", "-") == ['{"entityType":"x","externalId":"007","data":{"n":2.5}}']


def test_what_standard_input_does_not_say_must_be_given(items: ReadItems, give: Give) -> None:
    give(CSV)
    with pytest.raises(LoadError, match="does not say its format: give --format"):
        items("entities", "-")
    with pytest.raises(LoadError, match="loaded by itself"):
        items("entities", "-", "-", format="csv")


def test_lines_of_standard_input_come_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "wb") as feed:
        monkeypatch.setattr(sys, "stdin", stdin)
        feed.write(b'\xef\xbb\xbf{"id": 1}\n\n' + b'{"id": 2}\n' * 999)
        feed.flush()
        with Source(Selection(ENTITIES, ["-"], None, "x", format="ndjson")) as source:
            blocks = source.blocks()
            assert [id_ for _, id_ in next(blocks)][:2] == ["1", "2"]
            feed.write(b'{"id": 3}')
            feed.close()
            assert [id_ for block in blocks for _, id_ in block] == ["3"]


def test_a_wait_for_more_of_standard_input_can_be_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "wb") as feed:
        monkeypatch.setattr(sys, "stdin", stdin)
        feed.write(b'{"id": 1}\n' * 1_000)
        feed.flush()
        with Source(Selection(ENTITIES, ["-"], None, "x", format="ndjson")) as source:
            blocks = source.blocks()
            next(blocks)
            waking = threading.Timer(0.05, source.interrupt)
            waking.start()
            with pytest.raises(LoadError, match="interrupted"):
                next(blocks)
            waking.join()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"id":"1"}\n["secret"]\n', "row 2 is not a JSON object"),
        (b'{"id":"1"}\n{"id":"\xff"}\n', "line 2 of standard input is not UTF-8"),
        (gzip.compress(NDJSON * 9, mtime=0)[:-9], "compressed data ends or breaks"),
        (zstd.compress(NDJSON * 9)[:-9], "compressed data ends or breaks"),
        (b'{"name":"secret"}\n', "none of the 1 columns is named externalId"),
    ],
)
def test_what_is_wrong_with_standard_input_is_said(
    items: ReadItems, give: Give, content: bytes, problem: str
) -> None:
    give(content)
    with pytest.raises(LoadError, match=problem) as caught:
        items("entities", "-", format="ndjson")
    assert "secret" not in str(caught.value)


def test_empty_standard_input_is_no_items(items: ReadItems, give: Give) -> None:
    give(b"")
    assert items("entities", "-", format="ndjson") == []
    with pytest.raises(LoadError, match="is empty: a CSV begins with a header"):
        items("entities", "-", format="csv")


def test_cells_of_a_sheet_keep_the_types_they_have(items: ReadItems) -> None:
    write_sheet(
        "a.xlsx",
        ["id", "stake", "whole", "vip", "joined", "note", "digits"],
        ["007", 1839.2800000000002, 12345, True, date(2024, 1, 2), 'Žofie "😀"\n', "4412345678901234567890"],
        [8, 0.5, None, False, None, None, "1"],
    )  # fmt: skip
    assert items("entities", "a.xlsx") == [
        (
            '{"entityType":"x","externalId":"007","data":{"stake":1839.28,"whole":12345,"vip":true,'
            '"joined":"2024-01-02","note":"Žofie \\"😀\\"\\n","digits":"4412345678901234567890"}}'
        ),
        '{"entityType":"x","externalId":"8","data":{"stake":0.5,"vip":false,"digits":"1"}}',
    ]


def test_moments_of_a_sheet_become_rfc_3339(items: ReadItems) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None)
    write_sheet("a.xlsx", ["id", "occurredAt"], ["1", moment], ["2", "2024-01-02T03:04:05+02:00"])
    with xlsxwriter.Workbook("a.xlsx") as book:
        sheet = book.add_worksheet()
        stamp = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        sheet.write_row(0, 0, ["id", "occurredAt"])
        sheet.write(1, 0, "1")
        sheet.write_datetime(1, 1, moment, stamp)
        sheet.write_row(2, 0, ["2", "2024-01-02T03:04:05+02:00"])
    assert items("events", "a.xlsx") == [
        '{"eventType":"x","externalId":"1","occurredAt":"2024-01-02T03:04:05Z","data":{}}',
        '{"eventType":"x","externalId":"2","occurredAt":"2024-01-02T03:04:05+02:00","data":{}}',
    ]


def test_the_header_is_the_first_row_that_holds_anything(items: ReadItems) -> None:
    write_sheet("a.xlsx", [None], [None, "id", None, "n"], [], [None, "1", 5, 6], [None])
    assert items("entities", "a.xlsx") == [
        '{"entityType":"x","externalId":"1","data":{"column1":5,"n":6}}'
    ]


def test_two_columns_of_a_sheet_with_one_name_are_refused(items: ReadItems) -> None:
    write_sheet("a.xlsx", ["id", "n", "N"], ["1", 6, 7])
    with pytest.raises(LoadError, match="the columns 2 and 3 have the same name"):
        items("entities", "a.xlsx")


def test_a_sheet_is_chosen_by_name(items: ReadItems) -> None:
    write_sheet("a.xlsx", ["id"], ["1"], name="Players 2024", more="Empty")
    expected = ['{"entityType":"x","externalId":"1","data":{}}']
    assert items("entities", "a.xlsx") == expected
    assert items("entities", "a.xlsx", sheet="Players 2024") == expected
    with pytest.raises(LoadError, match="no sheet Plyers; it has Players 2024, Empty"):
        items("entities", "a.xlsx", sheet="Plyers")
    with pytest.raises(LoadError, match="the sheet is empty"):
        items("entities", "a.xlsx", sheet="Empty")
    Path("a.csv").write_bytes(CSV)
    with pytest.raises(LoadError, match="--sheet is of Excel files"):
        items("entities", "a.csv", sheet="x")


def test_sheets_are_mapped_with_sql_and_read_one_after_the_other(items: ReadItems) -> None:
    write_sheet("a.xlsx", ["id", "n"], ["007", 1], ["008", None])
    write_sheet("b.xlsx", ["n", "id"], [3, "009"])
    sql = 'SELECT id AS "externalId", n + 1 AS n FROM source WHERE n > 0'
    assert items("entities", "a.xlsx", "b.xlsx", sql=sql) == [
        '{"entityType":"x","externalId":"007","data":{"n":2}}',
        '{"entityType":"x","externalId":"009","data":{"n":4}}',
    ]
    assert [item.partition('"data":')[2] for item in items("entities", "a.xlsx", "b.xlsx")] == [
        '{"n":1}}', "{}}", '{"n":3}}',
    ]  # fmt: skip


def test_what_is_no_workbook_is_refused(items: ReadItems) -> None:
    Path("a.xlsx").write_bytes(b"secret")
    with pytest.raises(LoadError, match=r"a\.xlsx cannot be read as Excel") as caught:
        items("entities", "a.xlsx")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "ndjson", "xlsx"])
def test_rows_are_told_by_their_file_when_there_are_several(suffix: str) -> None:
    for name, rows in {"a": 2, "b": 0, "c": 3}.items():
        path = f"{name}.{suffix}"
        if suffix == "xlsx":
            write_sheet(path, ["id"], *[[str(number)] for number in range(rows)])
        else:
            options = {"csv": ", HEADER", "ndjson": ", FORMAT json"}.get(suffix, "")
            kind = {"csv": "csv", "parquet": "parquet"}.get(suffix)
            chosen = f"FORMAT {kind}{options}" if kind else "FORMAT json"
            duckdb.sql(f"COPY (SELECT range AS id FROM range({rows})) TO '{path}' ({chosen})")
    files = [f"{name}.{suffix}" for name in "abc"]
    with Source(Selection(EVENTS, files, None, "x")) as source:
        assert sum(len(block) for block in source.blocks()) == 5
        assert [source.label(row) for row in (1, 2, 3, 5)] == [
            f"a.{suffix}:1", f"a.{suffix}:2", f"c.{suffix}:1", f"c.{suffix}:3",
        ]  # fmt: skip
    with Source(Selection(EVENTS, files[:1], None, "x")) as source:
        assert sum(len(block) for block in source.blocks()) == 2
        assert source.label(2) == "2"


def test_a_ragged_row_is_told_by_file_and_line(items: ReadItems) -> None:
    Path("a.csv").write_text("id,n\n1,2\n")
    Path("b.csv").write_text("id,n\n1,2\n2,3,secret\n")
    with pytest.raises(LoadError, match=r"b\.csv line 3: Expected Number of Columns: 2") as caught:
        items("entities", "a.csv", "b.csv")
    assert "secret" not in str(caught.value)


def test_text_that_is_not_utf_8_is_told_by_file_and_line(items: ReadItems) -> None:
    Path("a.csv").write_bytes(b"id,n\n1,caf\xe9\n")
    with pytest.raises(LoadError, match=r"a\.csv line 2: .*not utf-8"):
        items("entities", "a.csv")


def test_files_that_spell_a_column_in_two_ways_agree(items: ReadItems) -> None:
    Path("a.csv").write_text("id,Stake\n1,2\n")
    Path("b.csv").write_text("ID,stake\n2,003\n")
    assert items("entities", "a.csv", "b.csv") == [
        '{"entityType":"x","externalId":"1","data":{"Stake":"2"}}',
        '{"entityType":"x","externalId":"2","data":{"Stake":"003"}}',
    ]


@pytest.mark.parametrize("name", ["x[1]*.csv", "o'neil.csv", "é b.csv", "sub/../sub/a.csv"])
def test_every_file_counts_for_the_types_whatever_its_name_is(items: ReadItems, name: str) -> None:
    Path("sub").mkdir()
    Path("a.csv").write_text("id,n\n1,7\n")
    Path(name).write_text("id,n\n2,007\n")
    assert [item.partition('"data":')[2] for item in items("entities", "a.csv", name)] == [
        '{"n":"7"}}',
        '{"n":"007"}}',
    ]


def test_the_column_of_the_id_can_be_chosen(items: ReadItems) -> None:
    Path("a.csv").write_text("id,UserID\n1,007\n")
    assert items("entities", "a.csv", id_column="UserID") == [
        '{"entityType":"x","externalId":"007","data":{"id":1}}'
    ]
    assert items("entities", "a.csv", id_column="userid", sql="SELECT * FROM source") == [
        '{"entityType":"x","externalId":"007","data":{"id":1}}'
    ]
    Path("a.ndjson").write_text('{"id":1,"UserID":7}\n')
    assert items("entities", "a.ndjson", id_column="UserID") == [
        '{"entityType":"x","externalId":"7","data":{"id":1}}'
    ]
    with pytest.raises(LoadError, match="none of the 2 columns is named as --id-column says"):
        items("entities", "a.csv", id_column="secret")


def test_a_lone_dash_on_the_command_line_is_standard_input(
    api: FakeApi, load: Run, give: Give
) -> None:
    give(CSV)
    assert load("entities", "-", "--format", "csv", "--entity-type", "x").code == 0
    assert [request.body.decode() for request in api.received] == [f"[{PLAYER}]"]
