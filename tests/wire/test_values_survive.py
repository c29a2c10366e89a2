"""`data` and `value` come back as the text that was sent."""

from __future__ import annotations

import pytest

from tests.support.api import Api, player
from tests.wire.answers import all_succeeded, data_of
from tests.wire.database import stored_events, stored_states

pytestmark = pytest.mark.clause("W7")

NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "100.00",
    "0.1",
    "1e2",
    "1E+2",
    "1.50e-7",
    "1e400",
    "-1e-400",
    "9007199254740993",
    "9223372036854775808",
    "-18446744073709551617",
    "12345678901234567890.12",
    "0.1000000000000000055511151231257827",
    "9" * 999,
    "0." + "3" * 999,
]
EVERYTHING = (
    '{ "b" : [1.0, {"deep":2.50}],\t"a":"\\u00e9\\/", "a2" : null,\n"ö":"😀\\ud83d\\ude00" }'
)


def envelope(answer_text: str) -> str:
    return answer_text.removeprefix('{"success":true,"data":').removesuffix("}")


async def test_a_number_comes_back_with_its_text(api: Api) -> None:
    for index, number in enumerate(NUMBERS):
        name = f"p{index:02}"
        personal = f'"email":{number},"phone":[{number}]'
        shown = f'"country":"GB","currency":"GBP","status":{number},"x":{{"y":[{number}]}}'
        entity = f'{{"entityType":"player","externalId":"{name}","data":{{{personal},{shown}}}}}'
        data = f'{{"type":"deposit","amount":{number},"currency":{number}}}'
        event = f'{{"externalId":"{name}","eventType":"transaction","data":{data}}}'
        state = f'{{"externalId":"{name}","stateKey":"balance","value":{number}}}'

        all_succeeded(await api.post("/batch/entities", f"[{entity}]".encode()), 1)
        all_succeeded(await api.post("/batch/events", f"[{event}]".encode()), 1)
        all_succeeded(await api.post("/batch/states", f"[{state}]".encode()), 1)

        assert f'"data":{{{personal},{shown}}}' in (await api.get(f"/entities/{name}")).text
        assert f'"data":{data}' in (await api.get(f"/entities/{name}/events")).text
        assert f'"value":{number}' in (await api.get(f"/entities/{name}/state/balance")).text
        assert shown in (await api.get("/entities")).text
        assert stored_events(api)[index] == (name, "transaction", data)
        assert stored_states(api)[name, "balance"] == number


async def test_numbers_survive_the_single_item_endpoints(api: Api) -> None:
    entity = b'{"entityType":"game","externalId":"g","data":{"name":1.10,"rtp":0.9650}}'
    data_of(await api.post("/entities", entity), 201)
    event = b'{"eventType":"bonus","data":{"amount":5.00}}'
    data_of(await api.post("/entities/g/events", event), 201)
    answers = [
        await api.put("/entities/g/state/balance", b"250.00"),
        await api.put("/entities/g/state/risk_score", b'{"value":1.0}'),
    ]

    assert [envelope(answer.text) for answer in answers] == [
        '{"stateKey":"balance","value":250.00}',
        '{"stateKey":"risk_score","value":1.0}',
    ]
    assert '"data":{"name":1.10,"rtp":0.9650}' in (await api.get("/entities/g")).text
    assert '"data":{"amount":5.00}' in (await api.get("/entities/g/events")).text
    assert stored_states(api) == {("g", "balance"): "250.00", ("g", "risk_score"): "1.0"}
    assert stored_events(api) == [("g", "bonus", '{"amount":5.00}')]


async def test_all_of_json_comes_back_as_it_was_sent(api: Api) -> None:
    await api.post("/entities", player("p"))
    event = f'{{"externalId":"p","eventType":"support","data":{EVERYTHING}}}'
    state = f'{{"externalId":"p","stateKey":"balance","value":{EVERYTHING}}}'
    all_succeeded(await api.post("/batch/events", f"[{event}]".encode()), 1)
    all_succeeded(await api.post("/batch/states", f"[{state}]".encode()), 1)

    assert f'"data":{EVERYTHING},' in (await api.get("/entities/p/events")).text
    assert f'"value":{EVERYTHING},' in (await api.get("/entities/p/state/balance")).text
    assert stored_events(api) == [("p", "support", EVERYTHING)]
    assert stored_states(api) == {("p", "balance"): EVERYTHING}


async def test_the_last_of_members_with_one_name_counts(api: Api) -> None:
    data = '"email":1.0,"country":"GB","currency":"GBP","status":"a","email":2.0,"x":1,"x":2'
    entity = f'{{"entityType":"player","externalId":"p","data":{{{data}}}}}'
    data_of(await api.post("/entities", entity.encode()), 201)

    answer = await api.get("/entities/p")
    assert '"email":2.0' in answer.text
    assert '"x":2' in answer.text
    assert '"email":1.0' not in answer.text


async def test_members_keep_their_order(api: Api) -> None:
    data = {"z": 1, "phone": "1", "country": "GB", "status": "a", "email": "e", "currency": "GBP"}
    entity = {"entityType": "player", "externalId": "p", "data": data}
    data_of(await api.post("/entities", entity), 201)
    assert list((await api.data("/entities/p"))["data"]) == list(data)
    [listed] = (await api.data("/entities"))["items"]
    assert list(listed["data"]) == list(data)
