"""`--sql` and typed sources."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from opdata.loader.errors import LoadError
from tests.unit.loader.conftest import ReadItems

ID = "'1' AS \"externalId\""


@pytest.fixture(autouse=True)
def one_row() -> None:
    Path("a.csv").write_text("id,stake,joined\n007,1839.2800000000002,2024-01-02\n")


def data_of(items: ReadItems, columns: str) -> str:
    (item,) = items("entities", "a.csv", sql=f"SELECT {ID}, {columns} FROM source")
    return item.removeprefix('{"entityType":"x","externalId":"1","data":').removesuffix("}")


def test_result_columns_go_to_the_members_they_are_named_after(items: ReadItems) -> None:
    sql = """
        SELECT id AS externalid, 'bonus' AS "eventType", 'k-' || id AS "idempotencyKey",
               joined AS "occurredAt", stake * 2 AS double_stake, id AS id
        FROM source; -- a remark
    """
    assert items("events", "a.csv", sql=sql, constant=None) == [
        (
            '{"externalId":"007","eventType":"bonus","idempotencyKey":"k-007",'
            '"occurredAt":"2024-01-02T00:00:00Z","data":{"double_stake":3678.5600000000004,"id":"007"}}'
        )
    ]


def test_names_are_matched_to_the_letter_in_a_result(items: ReadItems) -> None:
    sql = 'SELECT id AS "externalId", joined AS occurred_at, id FROM source'
    assert items("events", "a.csv", sql=sql) == [
        '{"eventType":"x","externalId":"007","data":{"occurred_at":"2024-01-02","id":"007"}}'
    ]


def test_states_take_a_value_or_an_object_of_the_other_columns(items: ReadItems) -> None:
    assert items("states", "a.csv", sql=f"SELECT {ID}, stake AS value FROM source") == [
        '{"stateKey":"x","externalId":"1","value":1839.2800000000002}'
    ]
    sql = f"SELECT {ID}, joined AS \"observedAt\", stake AS amount, 'EUR' AS currency FROM source"
    assert items("states", "a.csv", sql=sql) == [
        (
            '{"stateKey":"x","externalId":"1","observedAt":"2024-01-02T00:00:00Z",'
            '"value":{"amount":1839.2800000000002,"currency":"EUR"}}'
        )
    ]


TYPED = {
    "100.00::DECIMAL(10,2)": "100.00",
    "12345678901234567890.12::DECIMAL(38,2)": "12345678901234567890.12",
    "0.1::DOUBLE + 0.2::DOUBLE": "0.30000000000000004",
    "100.00::DOUBLE": "100.0",
    "0.1::FLOAT": "0.1",
    "1e300::DOUBLE": "1e+300",
    "-0.0::DOUBLE": "-0.0",
    "170141183460469231731687303715884105727::HUGEINT": "170141183460469231731687303715884105727",
    "TRUE": "true",
    "'infinity'::DOUBLE": '"inf"',
    "DATE '2024-01-02'": '"2024-01-02"',
    "TIMESTAMP '2024-01-02 03:04:05.123456'": '"2024-01-02T03:04:05.123456"',
    "TIMESTAMPTZ '2024-01-02 03:04:05+02'": '"2024-01-02T01:04:05Z"',
    "TIMESTAMP_NS '2024-01-02 03:04:05.123456789'": '"2024-01-02T03:04:05.123456789"',
    '\'a"\\\' || chr(10)': '"a\\"\\\\\\n"',
    "'6F1E1B7E-51F3-4B4C-9F4E-2F1D9A3A4A11'": '"6F1E1B7E-51F3-4B4C-9F4E-2F1D9A3A4A11"',
    "[1.50::DECIMAL(4,2), NULL]": "[1.50,null]",
    "[]::INTEGER[]": "[]",
    "[1, 2]::INTEGER[2]": "[1,2]",
    "{'a': 1.50::DECIMAL(4,2), 'b': NULL, 'c': {'d': DATE '2024-01-02'}}": '{"a":1.50,"c":{"d":"2024-01-02"}}',
    "[{'a': [[1.10::DECIMAL(4,2)]]}]": '[{"a":[[1.10]]}]',
    "[{'a': 'nan'::DOUBLE}]": "[{}]",
    "MAP {'k': 1.10::DECIMAL(4,2)}": '{"k":1.10}',
    "MAP {7: {'a': [1]}}": '{"7":{"a":[1]}}',
    '\'{"a": null}\'::JSON': '{"a": null}',
    "'a'::ENUM('a', 'b')": '"a"',
}  # fmt: skip


def test_typed_values_become_json(items: ReadItems) -> None:
    columns = ", ".join(f"{expression} AS v{n}" for n, expression in enumerate(TYPED))
    members = (f'"v{n}":{json_text}' for n, json_text in enumerate(TYPED.values()))
    assert data_of(items, columns) == f"{{{','.join(members)}}}"


@pytest.mark.parametrize("expression", ["NULL", "NULL::INTEGER[]", "'nan'::DOUBLE", "'null'::JSON"])
def test_null_and_nan_are_absent(items: ReadItems, expression: str) -> None:
    assert data_of(items, f"{expression} AS v, 1 AS w") == '{"w":1}'


def test_a_struct_named_data_is_the_data(items: ReadItems) -> None:
    assert data_of(items, "{'a': stake} AS data") == '{"a":1839.2800000000002}'


def test_names_of_columns_may_hold_anything(items: ReadItems) -> None:
    assert data_of(items, """1 AS "it's a ""name"" {0}" """) == '{"it\'s a \\"name\\" {0}":1}'


def test_two_columns_of_one_name_are_refused(items: ReadItems) -> None:
    with pytest.raises(LoadError, match="several columns are named stake; use REPLACE or AS"):
        data_of(items, "*, stake * 2 AS Stake")


def test_whole_numbers_are_ids_with_the_digits_they_had(items: ReadItems) -> None:
    Path("b.csv").write_text("UserID,n\n1324354,1\n12345678901234567,2\n")
    sql = "SELECT UserID AS \"externalId\", 'u' || UserID AS tag, UserID + 1 AS next FROM source"
    assert items("entities", "b.csv", sql=sql) == [
        '{"entityType":"x","externalId":"1324354","data":{"tag":"u1324354","next":1324355}}',
        (
            '{"entityType":"x","externalId":"12345678901234567",'
            '"data":{"tag":"u12345678901234567","next":12345678901234568}}'
        ),
    ]


@pytest.mark.parametrize("odd", ["007", "1234567890123456789012", "+1", "n/a"])
def test_one_odd_id_far_down_makes_the_column_text_for_sql(items: ReadItems, odd: str) -> None:
    rows = "".join(f"{number}\n" for number in range(1, 30_000))
    Path("b.csv").write_text(f"UserID\n{rows}{odd}\n")
    sql = 'SELECT UserID AS "externalId", typeof(UserID) AS type FROM source'
    found = [json.loads(item) for item in items("entities", "b.csv", sql=sql)]
    assert found[0]["externalId"] == "1"
    assert found[-1] == {"entityType": "x", "externalId": odd, "data": {"type": "VARCHAR"}}


def test_csv_columns_have_the_types_that_hold_for_every_row(items: ReadItems) -> None:
    Path("b.csv").write_text(
        "i,d,b,day,moment,zoned,word,empty\n"
        "1,1.5,true,2024-01-02,2024-01-02 03:04:05,2024-01-02T03:04:05Z,x,\n"
        "2,2,false,2024-01-03,2024-01-03 03:04:05,2024-01-03T03:04:05+01:00,NULL,\n"
    )
    columns = ["i", "d", "b", "day", "moment", "zoned", "word"]
    types = ", ".join(f"typeof({name}) AS {name}" for name in columns)
    (item, _) = items("entities", "b.csv", sql=f'SELECT i AS "externalId", {types} FROM source')
    assert json.loads(item)["data"] == {
        "i": "BIGINT", "d": "DOUBLE", "b": "BOOLEAN", "day": "DATE", "moment": "TIMESTAMP",
        "zoned": "TIMESTAMP WITH TIME ZONE", "word": "VARCHAR",
    }  # fmt: skip


def test_rows_come_in_the_order_the_statement_asks_for(items: ReadItems) -> None:
    Path("b.csv").write_text("id\n" + "".join(f"{n * 7919 % 50_000}\n" for n in range(50_000)))
    sql = 'SELECT id AS "externalId" FROM source ORDER BY id'
    found = [json.loads(item)["externalId"] for item in items("entities", "b.csv", sql=sql)]
    assert found == [str(number) for number in range(50_000)]


def test_json_is_typed_by_all_its_rows(items: ReadItems) -> None:
    rows = ['{"id":1,"v":1}'] * 30_000 + ['{"id":"007","v":"x","late":{"a":2.5}}']
    Path("b.ndjson").write_text("\n".join(rows))
    sql = 'SELECT id AS "externalId", late.a AS a FROM source'
    found = items("entities", "b.ndjson", sql=sql)
    assert found[0] == '{"entityType":"x","externalId":"1","data":{}}'
    assert found[-1] == '{"entityType":"x","externalId":"007","data":{"a":2.5}}'


def test_text_in_json_is_not_rewritten(items: ReadItems) -> None:
    Path("b.json").write_text(
        '[{"id":"6F1E1B7E-51F3-4B4C-9F4E-2F1D9A3A4A11","at":"10:00","none":null}]'
    )
    assert items("entities", "b.json", sql='SELECT id AS "externalId", * FROM source') == [
        (
            '{"entityType":"x","externalId":"6F1E1B7E-51F3-4B4C-9F4E-2F1D9A3A4A11",'
            '"data":{"id":"6F1E1B7E-51F3-4B4C-9F4E-2F1D9A3A4A11","at":"10:00"}}'
        )
    ]


def test_parquet_is_read_with_its_types(items: ReadItems) -> None:
    duckdb.sql(
        "COPY (SELECT 7::BIGINT AS id, 5.00::DECIMAL(9,2) AS paid, {'a': 1.5} AS nested, "
        "TIMESTAMP '2024-01-02 03:04:05' AS \"occurredAt\", NULL::INTEGER AS none) "
        "TO 'b.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )
    expected = (
        '{"eventType":"x","externalId":"7","occurredAt":"2024-01-02T03:04:05Z",'
        '"data":{"paid":5.00,"nested":{"a":1.5}}}'
    )
    assert items("events", "b.parquet") == [expected]
    sql = 'SELECT id AS "externalId", paid, nested, "occurredAt" FROM source'
    assert items("events", "b.parquet", sql=sql) == [expected]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM source", 'Referenced column "nope" not found'),
        ("SELECT 1 FROM sauce", "Table with name sauce does not exist"),
        ("INSERT INTO source VALUES (1)", "takes one SELECT"),
        ("SELECT 1; SELECT 2", "takes one SELECT"),
        ("COPY source TO 'out.csv'", "takes one SELECT"),
        ("", "takes one SELECT"),
        ("SELECT id FROM source", "none of the 1 columns is named externalId"),
        ('SELECT stake AS "externalId" FROM source', "externalId is DOUBLE"),
        ("SELECT {'a': 1} AS \"externalId\" FROM source", "externalId is STRUCT"),
        ("SELECT 'a'::BLOB AS b, '1' AS \"externalId\" FROM source", "no form for .* BLOB"),
        ("SELECT id::INT + 1 AS \"externalId\" FROM 'https://example.com/a.csv'", "httpfs"),
    ],
)
def test_what_is_wrong_with_a_statement_is_said_before_anything_is_sent(
    items: ReadItems, sql: str, problem: str
) -> None:
    with pytest.raises(LoadError, match=problem):
        items("entities", "a.csv", sql=sql)


def test_an_epoch_number_is_no_time(items: ReadItems) -> None:
    sql = f'SELECT {ID}, 1704164645 AS "occurredAt" FROM source'
    with pytest.raises(LoadError, match="a time is INTEGER: make it a timestamp"):
        items("events", "a.csv", sql=sql)


def test_a_cast_that_fails_does_not_show_the_value(items: ReadItems) -> None:
    Path("b.csv").write_text("id,n\n1,secret\n")
    with pytest.raises(LoadError) as caught:
        items("entities", "b.csv", sql='SELECT id AS "externalId", n::INT AS n FROM source')
    assert "a value of column n cannot be converted to INT32" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("entities", r"named entityType \(name a column so, or give --entity-type"),
        ("events", r"named eventType \(name a column so, or give --event-type"),
        ("states", r"named stateKey \(name a column so, or give --state-key"),
    ],
)
def test_a_missing_type_names_the_option(items: ReadItems, kind: str, problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        items(kind, "a.csv", constant=None)
