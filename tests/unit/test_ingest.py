from __future__ import annotations

import json
import os

import pytest

from opdata.ingest import Checked, check_entities, check_events
from opdata.pii import Sealer
from opdata.storage.work import AppendEvents
from opdata.templates import Template, find_template
from opdata.wire import decode
from opdata.wire.text import MAX_MEMBERS
from tests.support.api import deposit, player
from tests.support.checked import errors_of, made

_NOW_MS = 1_700_000_000_000


@pytest.fixture
def template() -> Template:
    found = find_template("tpl_igaming")
    assert found is not None
    return found


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(1, {1: os.urandom(32)}, os.urandom(32))


def _check_event(text: str, template: Template, sealer: Sealer) -> bytes:
    batch = decode.EVENTS.batch(f"[{text}]".encode(), 10)
    checked = check_events(batch, template, sealer, _NOW_MS)
    assert errors_of(checked) == []
    assert isinstance(checked.work, AppendEvents)
    fingerprints = checked.work.make([0]).fingerprints
    assert fingerprints is not None
    [fingerprint] = fingerprints
    assert fingerprint is not None
    return fingerprint


def test_an_event_is_the_same_with_other_white_space_and_another_time_zone(
    template: Template, sealer: Sealer
) -> None:
    event = deposit("p1", 20, idempotencyKey="k", occurredAt="2026-04-06T12:00:00Z")
    other_zone = event | {"occurredAt": "2026-04-06T14:00:00.000+02:00"}
    first = _check_event(json.dumps(event, separators=(",", ":")), template, sealer)

    assert _check_event(json.dumps(event, indent=3), template, sealer) == first
    assert _check_event(json.dumps(other_zone), template, sealer) == first


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"type": "deposit", "amount": 20.0, "currency": "GBP"}},
        {"data": {"amount": 20, "type": "deposit", "currency": "GBP"}},
        {"occurredAt": "2026-04-06T12:00:00.001Z"},
        {"occurredAt": None},
        {"externalId": "p2"},
    ],
)
def test_an_event_is_another_one_when_anything_it_says_differs(
    change: dict[str, object], template: Template, sealer: Sealer
) -> None:
    event = deposit("p1", 20, idempotencyKey="k", occurredAt="2026-04-06T12:00:00Z")
    first = _check_event(json.dumps(event), template, sealer)

    assert _check_event(json.dumps(event | change), template, sealer) != first


def _check_players(items: list[dict[str, object]], template: Template, sealer: Sealer) -> Checked:
    return check_entities(decode.ENTITIES.batch(json.dumps(items).encode(), 10), template, sealer)


def test_a_listing_sent_back_overwrites_nobody(template: Template, sealer: Sealer) -> None:
    items = [player("p1"), player("p2", email="[encrypted]", phone="[encrypted]"), player("p3")]

    checked = _check_players(items, template, sealer)

    (error,) = errors_of(checked)
    assert (error.index, error.external_id, error.code) == (1, "p2", "VALIDATION_FAILED")
    assert error.message == (
        'Field "email" holds the mask that listings show in place of its value; '
        'Field "phone" holds the mask that listings show in place of its value'
    )
    rows = made(checked)
    assert rows is not None
    assert rows.positions == [0, 2]


def test_the_mask_is_an_ordinary_value_of_a_field_that_is_not_personal(
    template: Template, sealer: Sealer
) -> None:
    assert errors_of(_check_players([player("p1", note="[encrypted]")], template, sealer)) == []


def test_an_event_of_too_many_values_is_not_taken_apart_to_say_what_is_wrong_with_it(
    template: Template, sealer: Sealer
) -> None:
    members = ",".join(f'"m{at}":0' for at in range(MAX_MEMBERS + 2))
    item = f'{{"externalId":"p","eventType":"transaction","data":{{{members}}}}}'
    batch = decode.EVENTS.batch(f"[{item}]".encode(), 10)
    [error] = errors_of(check_events(batch, template, sealer, _NOW_MS))
    assert error.message == 'Field "data" must have at most 250,000 values'
