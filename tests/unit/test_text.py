from __future__ import annotations

import json
from typing import Any

import pytest

from opdata.errors import InvalidInput
from opdata.wire import decode
from opdata.wire.text import MAX_MEMBERS, check_members, count_items
from tests.support.api import player


@pytest.mark.parametrize(
    ("items", "count"),
    [
        ([1, 2, 3], 3),
        ([{"a": [1, 2, {"b": ",]}"}]}, {}, 'x,"y', [[], [1, 2]]], 4),
        ([{"a": list(range(400_000))}, {"b": "},{"}], 2),
        ([{"n": n, "deep": [[[n]]]} for n in range(60_000)], 60_000),
    ],
)
def test_the_elements_of_an_array_are_counted_without_being_made(
    items: list[Any], count: int
) -> None:
    assert count_items(json.dumps(items).encode()) == count


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
