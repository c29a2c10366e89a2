"""Whatever JSON is sent comes back as it was, to the digit (W7)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.json_text import not_null, numbers, object_text, objects, parse, values
from tests.property.pipeline import Pipeline, Way

PERSONAL = ["first_name", "last_name", "email", "phone", "date_of_birth"]
REQUIRED = ["email", "country", "currency", "status"]

external_ids = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255
) | st.sampled_from(["x" * 255, "\U0001f600" * 255, "/", "%2F", '"', "\\", "[]", "\uffff"])

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)


@st.composite
def player_data(draw: st.DrawFn) -> str:
    """A player's data: every field may be any value that is there."""
    chosen = draw(st.lists(st.sampled_from(PERSONAL), unique=True))
    members = {name: draw(not_null) for name in REQUIRED} | {name: draw(values) for name in chosen}
    members["email"] = draw(not_null)
    others = draw(st.dictionaries(names, values, max_size=3))
    return draw(object_text(others | members))


@pytest.fixture(scope="module")
def way(pipeline: Pipeline) -> Way:
    """An operator with an entity, `game`, to hang events and states on."""
    one = pipeline.operator()
    one.send_entities(b'[{"entityType":"game","externalId":"game","data":{"name":1}}]')
    return one


@given(external_id=external_ids, data=player_data(), item=st.data())
@settings(max_examples=30)
def test_an_entity_reads_back_as_it_was_sent(
    way: Way, external_id: str, data: str, item: st.DataObject
) -> None:
    """W7, W26, W49."""
    members = {"entityType": '"player"', "externalId": json.dumps(external_id), "data": data}
    result = way.send_entities(f"[{item.draw(object_text(members))}]".encode())
    assert result.errors == []
    assert way.entity(external_id)["data"] == parse(data)
    stored = parse(way.stored_entity(external_id).data)
    masks = {name: "[encrypted]" for name in PERSONAL if name in parse(data)}
    assert stored == parse(data) | masks


@given(data=objects(values))
def test_an_events_data_reads_back_as_it_was_sent(way: Way, data: str) -> None:
    """W7, W27."""
    body = f'[{{"externalId":"game","eventType":"session","data":{data}}}]'
    assert way.send_events(body.encode()).errors == []
    assert way.events("game", limit=1)[0]["data"] == parse(data)


@given(value=not_null)
def test_a_states_value_reads_back_as_it_was_sent(way: Way, value: str) -> None:
    """W7, W28."""
    body = f'[{{"externalId":"game","stateKey":"balance","value":{value}}}]'
    assert way.send_states(body.encode()).errors == []
    assert way.states("game")[0]["value"] == parse(value)


@given(number=numbers)
@settings(max_examples=120)
def test_a_number_comes_back_with_the_text_that_was_sent(way: Way, number: str) -> None:
    """W7: byte for byte, whether it is personal or not, in the data itself or deep within."""
    data = f'{{"email":{number},"country":{number},"currency":[{{"n":{number}}}],"status":0.10}}'
    entity = f'[{{"entityType":"player","externalId":"p","data":{data}}}]'
    assert way.send_entities(entity.encode()).errors == []
    found = way.entity("p")["data"]
    assert (found["email"], found["country"]) == (number, number)
    assert found["currency"][0]["n"] == number
    assert found["status"] == "0.10"
