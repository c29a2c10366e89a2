"""Whatever a batch holds, each of its items is accepted or refused, and none is lost (W21, W22)."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from opdata.errors import InvalidInput
from opdata.ingest import Checked, check_entities, check_events, check_states
from opdata.pii import Sealer
from opdata.storage.work import Outcome, UpsertEntities
from opdata.templates import find_template
from opdata.wire import decode, encode
from tests.property.json_text import any_strings, any_values, object_text, objects, parse
from tests.property.test_text import bodies
from tests.support.checked import errors_of, made

SECRET = "a personal value"
_NOW_MS = 1_775_476_800_000
_template = find_template("tpl_igaming")
assert _template is not None
TEMPLATE = _template
SEALER = Sealer(1, {1: bytes(32)}, bytes(32))


def check(kind: str, body: bytes, *, ndjson: bool = False) -> Checked:
    if kind == "entities":
        return check_entities(decode.ENTITIES.batch(body, 1_000, ndjson=ndjson), TEMPLATE, SEALER)
    if kind == "events":
        batch = decode.EVENTS.batch(body, 5_000, ndjson=ndjson)
        return check_events(batch, TEMPLATE, SEALER, _NOW_MS)
    return check_states(decode.STATES.batch(body, 1_000, ndjson=ndjson), TEMPLATE, _NOW_MS)


kinds = st.sampled_from(["entities", "events", "states"])

_MEMBERS = {
    "entityType": st.sampled_from(['"player"', '"game"', '"nothing"', f'"{SECRET}"']),
    "externalId": st.sampled_from(['"p1"', '"p2"', '""', '"\\u0007"', json.dumps("x" * 256)]),
    "eventType": st.sampled_from(['"transaction"', '"session"', '"transaction.deposit"']),
    "stateKey": st.sampled_from(['"balance"', '"kyc_status"', '"nothing"']),
    "data": objects(
        any_values | st.just(f'"{SECRET}"'),
        st.sampled_from(['"email"', '"name"', '"type"', '"amount"', '"currency"', '"x"']),
    )
    | st.just('{"email":1,"country":2,"currency":3,"status":4,"name":5,"type":6,"amount":7}'),
    "value": any_values,
    "occurredAt": st.sampled_from(['"2026-04-06T12:00:01.500Z"', '"yesterday"']),
    "observedAt": st.sampled_from(['"2026-04-06T12:00:01+02:00"', '"2026-04-06"']),
    "idempotencyKey": st.sampled_from(['"k1"', '"k2"', '""']),
}


@st.composite
def items(draw: st.DrawFn) -> str:
    """Something like an item: most members right, some wrong, absent or unknown."""
    if draw(st.integers(0, 9)) == 0:
        return draw(any_values)
    chosen = {
        name: draw(any_values if draw(st.integers(0, 11)) == 0 else member)
        for name, member in _MEMBERS.items()
        if draw(st.integers(0, 9))
    }
    if draw(st.integers(0, 9)) == 0:
        chosen["more"] = draw(any_strings)
    return draw(object_text(chosen))


def _assert_all_accounted_for(checked: Checked, sent: int) -> None:
    rows = made(checked)
    result = checked.result(Outcome())
    refused = [error.index for error in result.errors]
    assert checked.total == sent
    assert result.succeeded + len(refused) == sent
    assert refused == sorted(set(refused))
    if rows is None:
        assert sorted([*refused, *checked.accepted]) == list(range(sent))
    else:
        assert len(rows.positions) <= result.succeeded
    for error in result.errors:
        assert error.message
        assert SECRET not in error.message
        assert error.external_id is None or decode.id_problem("id", error.external_id) is None
    parse(encode.batch_output(result))


@given(kind=kinds, batch=st.lists(items(), min_size=1, max_size=8))
@settings(max_examples=48)
def test_every_item_is_accepted_or_refused_once(kind: str, batch: list[str]) -> None:
    """W21, W22: and no message repeats a value, which may be personal."""
    _assert_all_accounted_for(check(kind, f"[{','.join(batch)}]".encode()), len(batch))


@given(kind=kinds, batch=st.lists(items(), min_size=1, max_size=8))
@settings(max_examples=24)
def test_an_item_fares_alike_alone_and_among_others(kind: str, batch: list[str]) -> None:
    """W23: a bad item never stops its neighbours, and never excuses them."""
    together = errors_of(check(kind, f"[{','.join(batch)}]".encode()))
    alone = [
        (index, error.external_id, error.message)
        for index, item in enumerate(batch)
        for error in errors_of(check(kind, f"[{item}]".encode()))
    ]
    assert [(error.index, error.external_id, error.message) for error in together] == alone


@given(kind=kinds, batch=st.lists(items(), min_size=1, max_size=8))
@settings(max_examples=24)
def test_ndjson_fares_as_the_array_of_its_lines(kind: str, batch: list[str]) -> None:
    """W10."""
    lines = [" ".join(item.split("\n")).replace("\r", " ") for item in batch]
    array = check(kind, f"[{','.join(lines)}]".encode())
    ndjson = check(kind, "\n".join(lines).encode() + b"\n\n", ndjson=True)
    assert errors_of(ndjson) == errors_of(array)
    assert ndjson.total == array.total


@given(kind=kinds, body=bodies, ndjson=st.booleans())
@settings(max_examples=120)
def test_any_bytes_are_refused_as_a_whole_or_item_by_item(
    kind: str, body: bytes, *, ndjson: bool
) -> None:
    """W2, W21."""
    with suppress(InvalidInput):
        checked = check(kind, body, ndjson=ndjson)
        sent = sum(1 for line in body.split(b"\n") if line.strip())
        _assert_all_accounted_for(checked, sent if ndjson else checked.total)


@given(
    lines=st.lists(
        st.sampled_from([b'{"bad', b"\xff\xfe", b"[" * 70, b"nul", b'"\\x"', b"1" * 1_000, b"{}}"]),
        min_size=1,
        max_size=4,
    )
)
def test_a_bad_line_costs_itself_alone(lines: list[bytes]) -> None:
    """W10, W23."""
    good = b'{"entityType":"game","externalId":"g","data":{"name":"x"}}'
    checked = check("entities", b"\n".join([good, *lines, good]), ndjson=True)
    assert [error.index for error in errors_of(checked)] == list(range(1, len(lines) + 1))
    assert isinstance(checked.work, UpsertEntities)
    assert checked.work.names == ["g"]
