"""The files byte for byte, the Parquet file value for value."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.unit.export.conftest import Run
from tests.unit.export.fake_store import FakeStore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OWN = '"id":"x","created_at":"2026-01-01T00:00:00.000Z","updated_at":"2026-01-01T00:00:00.000Z"'
ENTITIES = [
    f'{{{OWN},"externalId":"a \\"1\\"","entityType":"game","data":{{"name":"x","rtp":96.50}}}}',
    f'{{{OWN},"externalId":"b","entityType":"game","data":{{"n":12345678901234567890.10,\r\n "m":1E400}}}}',
    f'{{{OWN},"externalId":"\\u00e9","entityType":"game","data":{{}}}}',
]
EVENTS = [
    ('{"id":"e","externalId":"b","eventType":"bonus","data":{"amount":0.10},'
    '"occurred_at":"2026-01-01T00:00:00.500Z","recorded_at":"x","idempotencyKey":null}'),
    ('{"id":"f","externalId":"b","eventType":"bonus","data":{"a": [1, "x,y"]},'
    '"occurred_at":"0001-01-01T00:00:00.000Z","recorded_at":"x","idempotencyKey":"k,1"}'),
]  # fmt: skip
STATES = [
    ('{"externalId":"b","stateKey":"balance","value":-0.0,"observed_at":"2026-01-01T00:00:00.000Z",'
    '"updated_at":"x"}'),
    ('{"externalId":"b","stateKey":"kyc_status","value":"ok","observed_at":"2026-01-01T00:00:00.000Z",'
    '"updated_at":"x"}'),
]  # fmt: skip

NDJSON = {
    "entities": (
        '{"entityType":"game","externalId":"a \\"1\\"","data":{"name":"x","rtp":96.50}}\n'
        '{"entityType":"game","externalId":"b","data":{"n":12345678901234567890.10,   "m":1E400}}\n'
        '{"entityType":"game","externalId":"\\u00e9","data":{}}\n'
    ),
    "events": (
        '{"externalId":"b","eventType":"bonus","occurredAt":"2026-01-01T00:00:00.500Z",'
        '"data":{"amount":0.10}}\n'
        '{"externalId":"b","eventType":"bonus","occurredAt":"0001-01-01T00:00:00.000Z",'
        '"idempotencyKey":"k,1","data":{"a": [1, "x,y"]}}\n'
    ),
    "states": (
        '{"externalId":"b","stateKey":"balance","observedAt":"2026-01-01T00:00:00.000Z","value":-0.0}\n'
        '{"externalId":"b","stateKey":"kyc_status","observedAt":"2026-01-01T00:00:00.000Z",'
        '"value":"ok"}\n'
    ),
}
CSV = {
    "entities": (
        "entityType,externalId,data\n"
        'game,"a ""1""","{""name"":""x"",""rtp"":96.50}"\n'
        'game,b,"{""n"":12345678901234567890.10,   ""m"":1E400}"\n'
        "game,é,{}\n"
    ),
    "events": (
        "externalId,eventType,occurredAt,idempotencyKey,data\n"
        'b,bonus,2026-01-01T00:00:00.500Z,,"{""amount"":0.10}"\n'
        'b,bonus,0001-01-01T00:00:00.000Z,"k,1","{""a"": [1, ""x,y""]}"\n'
    ),
    "states": (
        "externalId,stateKey,observedAt,value\n"
        "b,balance,2026-01-01T00:00:00.000Z,-0.0\n"
        'b,kyc_status,2026-01-01T00:00:00.000Z,"""ok"""\n'
    ),
}


def rows(select: str) -> list[tuple[Any, ...]]:
    return duckdb.execute(select).fetchall()


KINDS = ("entities", "events", "states")


@pytest.fixture(autouse=True)
def filled(store: FakeStore) -> None:
    store.items = {"entities": ENTITIES, "events": EVENTS, "states": STATES}


@pytest.mark.parametrize("kind", KINDS)
def test_ndjson_has_a_batch_item_a_line_with_the_digits_of_the_server(
    export: Run, kind: str
) -> None:
    assert export(kind).out == NDJSON[kind]
    assert export(kind, "--out", "a.ndjson").code == 0
    assert Path("a.ndjson").read_text() == NDJSON[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_csv_has_a_column_a_member_and_the_payload_as_json(export: Run, kind: str) -> None:
    assert export(kind, "--format", "csv").out == CSV[kind]
    assert export(kind, "--out", "a.csv").code == 0
    assert Path("a.csv").read_text() == CSV[kind]


def test_parquet_has_the_same_columns_with_times_and_json_as_such(export: Run) -> None:
    assert export("events", "--out", "a.parquet").code == 0
    assert dict(rows("SELECT column_name, column_type FROM (DESCRIBE FROM 'a.parquet')")) == {
        "externalId": "VARCHAR",
        "eventType": "VARCHAR",
        "occurredAt": "TIMESTAMP WITH TIME ZONE",
        "idempotencyKey": "VARCHAR",
        "data": "JSON",
    }
    times = "SELECT externalId, idempotencyKey, data, epoch_ms(occurredAt) FROM 'a.parquet'"
    assert rows(times) == [
        ("b", None, '{"amount":0.10}', 1_767_225_600_500),
        ("b", "k,1", '{"a": [1, "x,y"]}', -62_135_596_800_000),
    ]
    assert export("entities", "--out", "b.parquet").code == 0
    assert rows("SELECT externalId, data FROM 'b.parquet'") == [
        ('a "1"', '{"name":"x","rtp":96.50}'),
        ("b", '{"n":12345678901234567890.10,   "m":1E400}'),
        ("é", "{}"),
    ]
    assert export("states", "--out", "c.parquet").code == 0
    assert rows("SELECT value FROM 'c.parquet'") == [("-0.0",), ('"ok"',)]


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a.parquet"])
def test_an_id_may_begin_with_a_byte_order_mark(store: FakeStore, export: Run, name: str) -> None:
    store.items["events"] = [
        EVENTS[0].replace('"externalId":"b"', f'"externalId":"\ufeff{one}"') for one in "bc"
    ]
    assert export("events", "--out", name).code == 0
    if name == "a.ndjson":
        lines = Path(name).read_text().splitlines()
        ids = [json.loads(line)["externalId"] for line in lines]
    elif name == "a.csv":
        ids = [line.partition(",")[0] for line in Path(name).read_text().splitlines()[1:]]
    else:
        ids = [id_ for (id_,) in rows("SELECT externalId FROM 'a.parquet'")]
    assert ids == ["\ufeffb", "\ufeffc"]


def test_the_name_tells_the_compression(export: Run) -> None:
    assert export("states", "--out", "a.jsonl.gz").code == 0
    assert gzip.decompress(Path("a.jsonl.gz").read_bytes()).decode() == NDJSON["states"]
    assert export("states", "--out", "a.csv.zst").code == 0
    assert zstd.decompress(Path("a.csv.zst").read_bytes()).decode() == CSV["states"]


def test_the_same_items_make_the_same_file(export: Run) -> None:
    for name in ("a.ndjson.gz", "b.ndjson.gz"):
        export("events", "--out", name)
    assert Path("a.ndjson.gz").read_bytes() == Path("b.ndjson.gz").read_bytes()


def test_nothing_to_export_makes_a_file_of_nothing(store: FakeStore, export: Run) -> None:
    store.items["events"] = []
    for name in ("a.ndjson", "a.csv", "a.parquet"):
        assert export("events", "--out", name).code == 0
    assert Path("a.ndjson").read_text() == ""
    assert Path("a.csv").read_text() == CSV["events"].splitlines(keepends=True)[0]
    assert rows("FROM 'a.parquet'") == []
