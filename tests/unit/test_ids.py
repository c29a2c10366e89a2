"""Ids: their forms, their order and their being different (W5)."""

from __future__ import annotations

import re

import pytest

from opdata.ids import (
    MAX_EVENTS_A_CALL,
    format_event_id,
    new_entity_ids,
    new_event_ids,
    new_job_id,
)
from opdata.keys import hash_key, is_key, new_key
from opdata.model import MAX_BATCH_EVENTS

NOW_MS = 1_775_476_800_000


def test_job_and_entity_ids_are_a_word_and_16_hex_digits() -> None:
    assert re.fullmatch(r"job_[0-9a-f]{16}", new_job_id())
    assert all(re.fullmatch(r"ent_[0-9a-f]{16}", one) for one in new_entity_ids(50))


@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_as_many_ids_are_made_as_asked_for_and_all_differ(count: int) -> None:
    for ids in (new_entity_ids(count), new_event_ids(count, NOW_MS)):
        assert len(ids) == len(set(ids)) == count


def test_event_ids_are_16_bytes_and_show_as_hex() -> None:
    [event_id] = new_event_ids(1, NOW_MS)
    assert len(event_id) == 16
    assert re.fullmatch(r"eev_[0-9a-f]{32}", format_event_id(event_id))


def test_event_ids_sort_by_time_and_within_a_call_by_position() -> None:
    calls = [new_event_ids(100, NOW_MS + step) for step in range(20)]
    ids = [one for call in calls for one in call]
    assert ids == sorted(ids)
    assert [format_event_id(one) for one in ids] == sorted(map(format_event_id, ids))


def test_event_ids_of_one_millisecond_differ_between_calls() -> None:
    ids = [one for _ in range(200) for one in new_event_ids(3, NOW_MS)]
    assert len(set(ids)) == 600


def test_a_call_makes_no_more_event_ids_than_its_sequence_has() -> None:
    assert len(set(new_event_ids(MAX_EVENTS_A_CALL, NOW_MS))) == MAX_EVENTS_A_CALL
    with pytest.raises(ValueError, match="8192"):
        new_event_ids(MAX_EVENTS_A_CALL + 1, NOW_MS)
    assert MAX_BATCH_EVENTS <= MAX_EVENTS_A_CALL


def test_a_key_has_its_form_and_its_mask_shows_little_of_it() -> None:
    """W3."""
    made = new_key()
    assert re.fullmatch(r"oh_live_[0-9a-f]{64}", made.key)
    assert is_key(made.key)
    assert made.key_hash == hash_key(made.key)
    assert made.key not in made.masked_key
    assert len(made.masked_key) < 20
    assert new_key().key != made.key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oh_live_",
        "oh_live_" + "a" * 63,
        "oh_live_" + "a" * 65,
        "oh_live_" + "A" * 64,
        "oh_live_" + "g" * 64,
        "oh_test_" + "a" * 64,
        " oh_live_" + "a" * 64,
        "oh_live_" + "a" * 64 + "\n",
        "oh_live_" + "\u0661" * 64,
    ],
)
def test_anything_else_is_no_key(text: str) -> None:
    """W3."""
    assert not is_key(text)
