"""CSV and TSV without a mapping."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from opdata.loader.errors import LoadError
from tests.unit.loader.conftest import ReadItems

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def test_numbers_arrive_with_the_digits_they_have_in_the_file(items: ReadItems) -> None:
    Path("a.csv").write_text(
        "externalId,stake,paid,big\n1,1839.2800000000002,100.00,12345678901234567890.12\n2,-0.5,1e5,7\n"
    )
    assert items("entities", "a.csv") == [
        (
            '{"entityType":"x","externalId":"1","data":'
            '{"stake":1839.2800000000002,"paid":100.00,"big":12345678901234567890.12}}'
        ),
        '{"entityType":"x","externalId":"2","data":{"stake":-0.5,"paid":1e5,"big":7}}',
    ]


@pytest.mark.parametrize("cell", ["007", "+7", "1_000", "1,5", ".5", "5.", "NaN", "0x1F", " 7"])
def test_one_cell_that_is_no_json_number_makes_its_column_text(items: ReadItems, cell: str) -> None:
    Path("a.csv").write_text(f'externalId,phone\n1,44123\n2,"{cell}"\n')
    assert [item.partition('"data":')[2] for item in items("entities", "a.csv")] == [
        '{"phone":"44123"}}',
        f'{{"phone":"{cell}"}}}}',
    ]


def test_a_cell_far_down_decides_too(items: ReadItems) -> None:
    rows = "".join(f"{number},{number}\n" for number in range(30_000))
    Path("a.csv").write_text(f"externalId,code\n{rows}30000,007\n")
    found = items("entities", "a.csv")
    assert found[5] == '{"entityType":"x","externalId":"5","data":{"code":"5"}}'
    assert found[-1] == '{"entityType":"x","externalId":"30000","data":{"code":"007"}}'


@pytest.mark.parametrize(
    "external_id",
    ["007", "12345678901234567890123", "1e5", "1.0", "TRUE", "2024-01-01", "#1", " x"],
)
def test_an_id_is_sent_as_it_is_written(items: ReadItems, external_id: str) -> None:
    Path("a.csv").write_text(f"externalId,n\n{external_id},1\n8,2\n")
    assert items("entities", "a.csv")[0] == (
        f'{{"entityType":"x","externalId":"{external_id}","data":{{"n":1}}}}'
    )


def test_true_and_false_are_booleans_and_dates_stay_as_written(items: ReadItems) -> None:
    Path("a.csv").write_text("id,vip,joined\n1,true,2024-01-02\n2,False,02/01/2024\n")
    assert items("entities", "a.csv") == [
        '{"entityType":"x","externalId":"1","data":{"vip":true,"joined":"2024-01-02"}}',
        '{"entityType":"x","externalId":"2","data":{"vip":false,"joined":"02/01/2024"}}',
    ]


def test_empty_cells_are_absent_and_the_text_null_is_text(items: ReadItems) -> None:
    Path("a.csv").write_text('id,a,b,c\n1,,"",NULL\n')
    assert items("entities", "a.csv") == ['{"entityType":"x","externalId":"1","data":{"c":"NULL"}}']


def test_a_row_without_an_id_is_sent_for_the_server_to_refuse(items: ReadItems) -> None:
    Path("a.csv").write_text("id,a\n,1\n")
    assert items("entities", "a.csv") == ['{"entityType":"x","data":{"a":1}}']


def test_quotes_line_breaks_and_other_scripts_survive(items: ReadItems) -> None:
    Path("a.csv").write_bytes(
        '\ufeffid,note\r\n1,"he said ""no""\r\n\tand \\ left"\r\n2,Žofie 😀\r\n'.encode()
    )
    assert items("entities", "a.csv") == [
        r'{"entityType":"x","externalId":"1","data":{"note":"he said \"no\"\r\n\tand \\ left"}}',
        '{"entityType":"x","externalId":"2","data":{"note":"Žofie 😀"}}',
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "id;n\n1;2,5\n"), ("a.tsv", "id\tn\n1\t2,5\n"), ("a.csv", "id|n\n1|2,5\n")],
)
def test_the_header_tells_the_delimiter(items: ReadItems, name: str, text: str) -> None:
    Path(name).write_text(text)
    assert items("entities", name) == ['{"entityType":"x","externalId":"1","data":{"n":"2,5"}}']


def test_compressed_files_are_read(items: ReadItems) -> None:
    text = b"id,n\n1,2.50\n"
    Path("a.csv.gz").write_bytes(gzip.compress(text))
    Path("b.csv.zst").write_bytes(zstd.compress(text))
    expected = ['{"entityType":"x","externalId":"1","data":{"n":2.50}}']
    assert items("entities", "a.csv.gz") == expected
    assert items("entities", "b.csv.zst") == expected


def test_several_files_and_patterns_are_read_in_order_by_column_name(items: ReadItems) -> None:
    Path("2.csv").write_text("id,a\n3,c\n")
    Path("1.csv").write_text("a,id\nb,2\n")
    Path("first.csv").write_text("id;b\n1;x\n")
    assert items("entities", "first.csv", "?.csv", "1.csv") == [
        '{"entityType":"x","externalId":"1","data":{"b":"x"}}',
        '{"entityType":"x","externalId":"2","data":{"a":"b"}}',
        '{"entityType":"x","externalId":"3","data":{"a":"c"}}',
    ]


def test_a_file_name_with_pattern_characters_is_that_file(items: ReadItems) -> None:
    Path("x[1]*.csv").write_text("id\n1\n")
    Path("x1.csv").write_text("id\n2\n")
    assert items("entities", "x[1]*.csv") == ['{"entityType":"x","externalId":"1","data":{}}']


@pytest.mark.parametrize(
    "header",
    [
        "externalId,eventType,occurredAt,idempotencyKey",
        "EXTERNAL_ID,event_type,Occurred_At,idempotency_key",
        "id,eventtype,occurredat,idempotencykey",
    ],
)
def test_columns_named_as_members_go_there(items: ReadItems, header: str) -> None:
    Path("a.csv").write_text(f"{header},amount\n1,bonus,2024-01-02T03:04:05Z,00042,5\n")
    assert items("events", "a.csv", constant=None) == [
        (
            '{"externalId":"1","eventType":"bonus","idempotencyKey":"00042",'
            '"occurredAt":"2024-01-02T03:04:05Z","data":{"amount":5}}'
        )
    ]


def test_id_is_data_when_there_is_an_external_id(items: ReadItems) -> None:
    Path("a.csv").write_text("id,external_id\n1,2\n")
    assert items("entities", "a.csv") == ['{"entityType":"x","externalId":"2","data":{"id":1}}']


def test_a_constant_wins_over_a_column(items: ReadItems) -> None:
    Path("a.csv").write_text("id,entity_type,n\n1,game,2\n")
    assert items("entities", "a.csv", constant="player") == [
        '{"entityType":"player","externalId":"1","data":{"n":2}}'
    ]


@pytest.mark.parametrize(
    ("cell", "sent"),
    [
        ("2024-01-02", "2024-01-02T00:00:00Z"),
        ("2024-01-02 03:04:05", "2024-01-02T03:04:05Z"),
        ("2024-01-02T03:04:05.123", "2024-01-02T03:04:05.123Z"),
        ("2024-01-02T03:04:05+02:00", "2024-01-02T01:04:05Z"),
        ("yesterday", "yesterday"),
    ],
)
def test_moments_become_rfc_3339_in_utc(items: ReadItems, cell: str, sent: str) -> None:
    Path("a.csv").write_text(f"id,occurredAt\n1,{cell}\n")
    assert items("events", "a.csv") == [
        f'{{"eventType":"x","externalId":"1","occurredAt":"{sent}","data":{{}}}}'
    ]


def test_a_state_takes_its_value_column_or_an_object_of_all_others(items: ReadItems) -> None:
    Path("a.csv").write_text("id,stateKey,value\n1,risk_score,0.50\n")
    Path("b.csv").write_text("id,stateKey,amount,currency\n1,balance,250.00,GBP\n")
    assert items("states", "a.csv", constant=None) == [
        '{"externalId":"1","stateKey":"risk_score","value":0.50}'
    ]
    assert items("states", "b.csv", constant=None) == [
        '{"externalId":"1","stateKey":"balance","value":{"amount":250.00,"currency":"GBP"}}'
    ]


def test_a_value_column_leaves_no_place_for_others(items: ReadItems) -> None:
    Path("a.csv").write_text("id,stateKey,value,note\n1,risk_score,5,x\n")
    with pytest.raises(LoadError, match="the column value is the whole value of an item, and 1"):
        items("states", "a.csv", constant=None)


def test_a_header_without_rows_is_no_items(items: ReadItems) -> None:
    Path("a.csv").write_text("id,n\n")
    assert items("entities", "a.csv") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,n\n1,secret,x\n", "line 2: Expected Number of Columns: 2 Found: 3"),
        ("id,n\n1\n", "line 2: Expected Number of Columns: 2 Found: 1"),
        ('id,n\n1,"secret\n', "line 2: Value with unterminated quote found"),
        ('id,n\n1,"a \\"secret\\" b"\n', "line 2: Value with unterminated quote found"),
    ],
)
def test_irregular_rows_stop_the_load_without_showing_a_cell(
    items: ReadItems, text: str, problem: str
) -> None:
    Path("a.csv").write_text(text)
    with pytest.raises(LoadError) as caught:
        items("entities", "a.csv")
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_text_that_is_not_utf_8_stops_the_load(items: ReadItems) -> None:
    Path("a.csv").write_bytes(b"id,n\n1,secret\xff\n")
    with pytest.raises(LoadError, match="line 2: not utf-8 encoded"):
        items("entities", "a.csv")


def test_a_header_that_is_data_is_not_shown(items: ReadItems) -> None:
    Path("a.csv").write_text("17,alice@example.com\n18,bob@example.com\n")
    with pytest.raises(LoadError) as caught:
        items("entities", "a.csv")
    assert "alice" not in str(caught.value)
    with pytest.raises(LoadError) as caught:
        items("entities", "a.csv", sql="SELECT nope FROM source")
    assert 'column "nope" not found' in str(caught.value)
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nope.csv", "no such file: nope.csv"),
        ("*.nope", r"no such file: \*.nope"),
        ("folder", "folder holds no files whose names say a format"),
        ("a.txt", "does not say the format"),
        ("a.db", "is a database: give it as --from a.db"),
        ("a.parquet.gz", "Parquet compresses inside"),
        ("empty.csv", "is empty: a CSV begins with a header"),
        ("*.[ct]sv", "one load reads one format, not csv and tsv"),
    ],
)
def test_what_cannot_be_a_source_is_refused(items: ReadItems, name: str, problem: str) -> None:
    Path("folder").mkdir()
    for each in ("a.txt", "a.db", "a.parquet.gz", "empty.csv", "a.tsv"):
        Path(each).touch()
    with pytest.raises(LoadError, match=problem):
        items("entities", name)


@pytest.mark.parametrize("header", ["id,status,status", "id,secret, Secret "])
def test_two_columns_with_one_name_are_told_by_their_places(items: ReadItems, header: str) -> None:
    Path("a.csv").write_text(f"{header}\n1,active,closed\n")
    with pytest.raises(LoadError, match="the columns 2 and 3 have the same name") as caught:
        items("entities", "a.csv")
    assert "secret" not in str(caught.value).lower()
