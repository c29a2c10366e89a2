"""NDJSON and JSON without a mapping."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from opdata.loader.errors import LoadError
from opdata.loader.kinds import ENTITIES
from opdata.loader.source import Selection, Source
from tests.unit.loader.conftest import ReadItems


def test_values_keep_every_byte(items: ReadItems) -> None:
    Path("a.ndjson").write_text(
        '{"externalId":"1","paid":100.00,"big":12345678901234567890.12,"far":1e400,"zero":-0.0}\n'
        '{"externalId":"2","nested":{"b":[1.50, "\\u00e9"],"a":null},"text":"é\\/"}\n'
    )
    assert items("entities", "a.ndjson") == [
        (
            '{"entityType":"x","externalId":"1","data":'
            '{"paid":100.00,"big":12345678901234567890.12,"far":1e400,"zero":-0.0}}'
        ),
        (
            '{"entityType":"x","externalId":"2","data":'
            '{"nested":{"b":[1.50, "\\u00e9"],"a":null},"text":"é\\/"}}'
        ),
    ]


@pytest.mark.parametrize("external_id", ["7", "12345678901234567890123", "-1.50"])
def test_an_id_that_is_a_number_becomes_text_with_its_digits(
    items: ReadItems, external_id: str
) -> None:
    Path("a.ndjson").write_text(f'{{"id":{external_id}}}\n')
    assert items("entities", "a.ndjson") == [
        f'{{"entityType":"x","externalId":"{external_id}","data":{{}}}}'
    ]


def test_null_members_are_absent(items: ReadItems) -> None:
    Path("a.ndjson").write_text('{"id":"1","a":null,"b":"null"}\n{"id":null}\n')
    assert items("entities", "a.ndjson") == [
        '{"entityType":"x","externalId":"1","data":{"b":"null"}}',
        '{"entityType":"x","data":{}}',
    ]


def test_an_array_is_read_as_its_objects(items: ReadItems) -> None:
    Path("a.json").write_text('[\n {"id": "1",\n  "n": 1.0},\n {"id": "2"}\n]')
    Path("b.json.gz").write_bytes(gzip.compress(Path("a.json").read_bytes()))
    expected = [
        '{"entityType":"x","externalId":"1","data":{"n":1.0}}',
        '{"entityType":"x","externalId":"2","data":{}}',
    ]
    assert items("entities", "a.json") == expected
    assert items("entities", "b.json.gz") == expected


def test_rows_that_are_items_are_sent_as_they_are(items: ReadItems) -> None:
    rows = [
        (
            '{"externalId":"1","eventType":"bonus","occurredAt":"2024-01-02T03:04:05Z",'
            '"idempotencyKey":"k","data":{"a": null, "n": 5.00}}'
        ),
        '{"externalId":"2","eventType":"bonus","data":{}}',
    ]
    Path("a.ndjson").write_text("\n".join(rows))
    sent = items("events", "a.ndjson", constant=None)
    assert [json.loads(item) for item in sent] == [json.loads(row) for row in rows]
    assert '"data":{"a": null, "n": 5.00}' in sent[0]


def test_states_take_any_value(items: ReadItems) -> None:
    Path("a.ndjson").write_text(
        '{"externalId":"1","stateKey":"kyc_status","value":"verified"}\n'
        '{"externalId":"1","stateKey":"balance","value":{"amount":5.00}}\n'
        '{"externalId":"1","stateKey":"risk_score","value":null}\n'
    )
    assert items("states", "a.ndjson", constant=None) == [
        '{"externalId":"1","stateKey":"kyc_status","value":"verified"}',
        '{"externalId":"1","stateKey":"balance","value":{"amount":5.00}}',
        '{"externalId":"1","stateKey":"risk_score"}',
    ]


def test_data_beside_other_members_is_refused_and_not_nested(items: ReadItems) -> None:
    Path("a.ndjson").write_text('{"externalId":"1","data":{"a":1},"created_at":"x"}\n')
    with pytest.raises(LoadError, match="the column data is the whole data of an item, and 1"):
        items("entities", "a.ndjson")


def test_data_that_is_no_object_is_a_member_like_any_other(items: ReadItems) -> None:
    Path("a.ndjson").write_text('{"externalId":"1","data":"x"}\n')
    assert items("entities", "a.ndjson") == [
        '{"entityType":"x","externalId":"1","data":{"data":"x"}}'
    ]


def test_a_member_that_comes_late_still_goes_to_its_place(items: ReadItems) -> None:
    rows = ['{"id":"1"}'] * 1_500 + ['{"id":"2","occurredAt":"2024-01-02T03:04:05","n":1}']
    Path("a.ndjson").write_text("\n".join(rows))
    assert items("events", "a.ndjson")[-1] == (
        '{"eventType":"x","externalId":"2","occurredAt":"2024-01-02T03:04:05Z","data":{"n":1}}'
    )


def test_a_stray_member_that_comes_late_beside_data_stops_the_load(items: ReadItems) -> None:
    rows = ['{"externalId":"1","data":{}}'] * 1_500 + ['{"externalId":"1","data":{},"n":"secret"}']
    Path("a.ndjson").write_text("\n".join(rows))
    with pytest.raises(LoadError, match="row 1501 has members beside data") as caught:
        items("entities", "a.ndjson")
    assert "secret" not in str(caught.value)


def test_the_items_of_a_rejects_file_are_loaded_as_they_were(items: ReadItems) -> None:
    item = '{"entityType":"player","externalId":"007","data":{"paid":5.00}}'
    line = f'{{"row":3,"code":"NOT_FOUND","message":"none","item":{item}}}\n'
    Path("rejects.ndjson").write_text(line)
    assert items("entities", "rejects.ndjson", constant=None) == [item]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"id":"1"}\n{"id":"secret\n', "Malformed JSON .* in row 2:"),
        ('{"id":"1"}\n\n["secret"\n{"id":"2"}', "Malformed JSON .* in row 2:"),
        ('{"id":"1"}\n{"id":}', "Malformed JSON .* in row 2:"),
        ('{"id":"1"}\n["secret"]\n', "row 2 is not a JSON object"),
        ('{"id":"1"}\n{"id":"secret\\ud800"}\n', "Malformed JSON .* no low surrogate"),
        ('{"name":"secret"}\n', "none of the 1 columns is named externalId"),
    ],
)
def test_what_is_not_rows_of_objects_is_refused(items: ReadItems, text: str, problem: str) -> None:
    Path("a.ndjson").write_text(text)
    with pytest.raises(LoadError, match=problem) as caught:
        items("entities", "a.ndjson")
    assert "secret" not in str(caught.value)


def test_two_spellings_of_an_id_are_one_id() -> None:
    Path("a.ndjson").write_text('{"id":"\\u0041"}\n{"id":"A"}\n{"id":7}\n')
    with Source(Selection(ENTITIES, ["a.ndjson"], None, "x")) as source:
        (block,) = source.blocks()
    assert [external_id for _, external_id in block] == ["A", "A", "7"]


def test_an_empty_file_is_no_items(items: ReadItems) -> None:
    Path("a.ndjson").touch()
    assert items("entities", "a.ndjson") == []
