from __future__ import annotations

import json

import pytest

from opdata.errors import InvalidInput
from opdata.wire import decode
from opdata.wire.text import MAX_MEMBERS, check_members, check_text, count_items, has_bad_text
from tests.support.api import player


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[1, 2, 3]", 3),
        ('[{"a": [1, 2, {"b": ",]}"}]}, {}, "x,\\"y", [[], [1, 2]]]', 4),
        ('[{"a": [%s0]}, {"b": "},{"}]' % ("1, " * 400_000), 2),
        ("[%s0]" % ('{"n": 1, "deep": [[[1]]]}, ' * 60_000), 60_001),
    ],
    ids=["numbers", "strings", "one large", "many"],
)
def test_the_elements_of_an_array_are_counted_without_being_made(text: str, count: int) -> None:
    assert len(json.loads(text)) == count
    assert count_items(text.encode()) == count


def test_a_batch_of_far_too_many_tiny_items_names_both_numbers() -> None:
    body = b"[" + b"0," * 400_000 + b"0]"

    with pytest.raises(InvalidInput, match="has 400001 items; the maximum is 5000"):
        decode.EVENTS.batch(body, 5_000)


def test_an_entity_of_more_members_than_the_server_takes_apart_is_refused() -> None:
    item = player("p1", **{f"f{n}": n for n in range(MAX_MEMBERS + 1)})

    with pytest.raises(InvalidInput, match="more than 250000 values"):
        decode.ENTITIES.batch(json.dumps([item]).encode(), 1_000)
    with pytest.raises(InvalidInput, match="more than 250000 values"):
        decode.json_object(json.dumps(item).encode())


def test_commas_in_texts_do_not_count_as_values() -> None:
    check_members(json.dumps([player("p1", note="a," * (MAX_MEMBERS + 1))]).encode())


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        (rb"\ud800", rb"\u0000"),
        (rb"\ud83d\ude00", rb"\ud83d\ude00"),
        (rb"\ud83d\ude00\ude00x\uDBFF\n", rb"\ud83d\ude00\u0000x\u0000\n"),
        (rb"\\ud800\\\udfff", rb"\\ud800\\\u0000"),
        (rb"\ud800\ud83d\ude00", rb"\u0000\u0000\u0000"),
    ],
)
def test_an_escaped_nul_takes_the_place_of_a_lone_surrogate(text: bytes, checked: bytes) -> None:
    assert check_text(b'["%s"]' % text) == b'["%s"]' % checked
    assert has_bad_text(checked) == (text != checked)


def test_more_lone_surrogates_than_the_server_replaces_are_refused() -> None:
    assert check_text(rb"\ud800," * MAX_MEMBERS) == rb"\u0000," * MAX_MEMBERS
    with pytest.raises(InvalidInput, match="more than 250000 lone surrogates"):
        check_text(rb"\ud800," * (MAX_MEMBERS + 1))
