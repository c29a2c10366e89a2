"""What a body and its text may be: UTF-8, bounded nesting and numbers, storable characters."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.support.api import Api, player
from tests.wire.answers import all_succeeded, batch_of, data_of, error_of
from tests.wire.database import live_entities, row_counts, stored_events, stored_states

pytestmark = pytest.mark.clause("W9")

CANARY = "canary-5b1e"
SINGLE = f'{{"entityType":"player","externalId":"p","data":{{"email":"{CANARY}"}}}}'
BATCHES = ("/batch/entities", "/batch/events", "/batch/states")


def event(data: str, external_id: str = "p") -> str:
    return f'{{"externalId":"{external_id}","eventType":"session","data":{data}}}'


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """A value of so many levels."""
    return opening * levels + closing * levels


NOT_JSON = {
    "nothing": b"",
    "white space": b" \n",
    "a word": b"nonsense",
    "cut off": SINGLE.encode()[:-1],
    "two values": b"[][]",
    "single quotes": SINGLE.replace('"', "'").encode(),
    "a comment": b"[/* nothing */]",
    "a trailing comma": b"[1,]",
    "a byte order mark": b"\xef\xbb\xbf[]",
    "NaN": b'[{"externalId":"p","data":{"x":NaN}}]',
    "Infinity": b'[{"externalId":"p","data":{"x":Infinity}}]',
    "-Infinity": b'[{"externalId":"p","data":{"x":[-Infinity]}}]',
    "nan alone": b"NaN",
    "a leading zero": b'[{"externalId":"p","value":01}]',
    "a leading plus": b'[{"externalId":"p","value":+1}]',
    "half a number": b'[{"externalId":"p","value":1.}]',
    "a bare exponent": b'[{"externalId":"p","value":1e}]',
    "an unknown escape": rb'[{"externalId":"p","data":{"x":"\q"}}]',
    "a short escape": rb'[{"externalId":"p","data":{"x":"\u12"}}]',
    "a raw newline": b'[{"externalId":"p","data":{"x":"a\nb"}}]',
    "a raw NUL": b'[{"externalId":"p","data":{"x":"a\0b"}}]',
    "bad UTF-8": b'[{"externalId":"p","data":{"x":"%s\xff"}}]' % CANARY.encode(),
    "cut UTF-8": b'[{"externalId":"p","data":{"x":"\xf0\x9f\x98"}}]',
    "an overlong form": b'[{"externalId":"p","data":{"x":"\xc0\x80"}}]',
    "a surrogate in UTF-8": b'[{"externalId":"p","data":{"x":"\xed\xa0\x80"}}]',
    "UTF-16": '[{"externalId":"p"}]'.encode("utf-16"),
    "brackets that do not match": b"[" * 100_000,
    "brackets that only open in objects": b'{"a":' * 100_000,
    "brackets that only close": b"]" * 100_000,
    "brackets deep before ones that match": b"[" * 100_000 + nested(64).encode(),
    "brackets deep after ones that match": b"[" + nested(62).encode() + b"," + b"[" * 100_000,
    "brackets deep inside an item": ("[" + event("[" * 100_000 + nested(64))).encode(),
    "a quote that is not closed": b'["' + b"[" * 10_000,
    "escapes in a quote that is not closed": b'["[' + rb"\"" * 100_000,
    "a number of 1,000 digits": b"[" + b"1" * 1_000 + b"]",
    "a number of 5,000 digits in an item": b'[{"externalId":"p","value":%s}]' % (b"7" * 5_000),
    "1,000 digits after the point": b'[{"externalId":"p","value":0.%s}]' % (b"7" * 1_000),
    "1,000 digits in an exponent": b'[{"externalId":"p","value":1e%s}]' % (b"7" * 1_000),
    "65 levels": nested(65).encode(),
    "65 levels of objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "65 levels in an item": f"[{event(nested(63))}]".encode(),
    "100,000 levels": nested(100_000).encode(),
    "100,000 levels of objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 levels in an item": f"[{event(nested(100_000))}]".encode(),
}


@pytest.mark.clause("W20", "W22")
async def test_a_body_that_is_not_fit_to_read_is_refused_as_a_whole(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    before = row_counts(api)
    for name, body in NOT_JSON.items():
        for method, path in (
            *(("POST", batch) for batch in BATCHES),
            ("POST", "/entities"),
            ("POST", "/entities/p/events"),
            ("PUT", "/entities/p/state/balance"),
            ("PUT", "/settings"),
            ("POST", "/api-keys"),
        ):
            answer = await api.request(method, path, content=body)
            assert answer.status_code == 400, (name, path, answer.text)
            message = error_of(answer, 400, "INVALID_INPUT")
            assert CANARY not in message
            assert len(message) < 200
    assert row_counts(api) == before


async def test_sixty_four_levels_are_fine(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    # The array and the item are two levels of a batch, the body's object is one of a single event.
    deep = '{"a":' * 61 + "[]" + "}" * 61
    assert deep.count("{") + 1 == 62
    all_succeeded(await api.post("/batch/events", f"[{event(deep)}]".encode()), 1)
    deeper = '{"b":' * 62 + "[]" + "}" * 62
    data_of(await api.post("/entities/p/events", event(deeper).encode()), 201)
    data_of(await api.put("/entities/p/state/balance", nested(64).encode()))

    assert stored_events(api) == [("p", "session", deep), ("p", "session", deeper)]
    assert stored_states(api) == {("p", "balance"): nested(64)}


async def test_brackets_and_quotes_in_strings_are_no_levels(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    texts = [
        "[" * 1_000,
        "{" * 1_000 + "]" * 500,
        r"\"[" * 500,
        "\\\\",
        r"\\\"[{" * 100,
        "[]" * 100 + r"\\",
        "9" * 5_000,
        "[" + "1" * 5_000,
    ]
    items = [event(f'{{"x":"{text}","y":[]}}') for text in texts]
    all_succeeded(await api.post("/batch/events", f"[{','.join(items)}]".encode()), len(items))
    assert [data for *_, data in stored_events(api)] == [
        f'{{"x":"{text}","y":[]}}' for text in texts
    ]


UNSTORABLE = {
    "NUL": r"\u0000",
    "NUL in a text": r"a\u0000b",
    "a high surrogate": r"\ud800",
    "a low surrogate": r"x\uDC00",
    "a pair the wrong way round": r"\ude00\ud83d",
    "a high one before a plain escape": r"\ud83d\n",
    "a high one and a pair": r"\ud83d\ud83d\ude00",
    "after an escaped backslash": r"\\\u0000",
}
STORABLE = {
    "an emoji": "😀",
    "an escaped emoji": r"\ud83d\ude00",
    "an escaped emoji in capitals": r"\uD83D\uDE00",
    "an escaped backslash before u": r"\\u0000",
    "an escaped backslash before a surrogate": r"\\ud800",
    "the last code point": r"\udbff\udfff",
    "a delete": "\x7f",
    "a byte order mark inside": "\ufeff",
    "a line separator": "\u2028",
}


@pytest.mark.clause("W22", "W23")
async def test_text_that_cannot_be_stored_costs_its_item_and_no_other(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    texts = {**UNSTORABLE, **STORABLE}
    items = [event(f'{{"{CANARY}":"{text}","n":[1.0]}}') for text in texts.values()]
    # In the name of a member it is no better.
    items.append(event(r'{"\u0000":1}'))

    answer = await api.post("/batch/events", f"[{','.join(items)}]".encode())

    data = batch_of(answer, len(items))
    bad = [*range(len(UNSTORABLE)), len(items) - 1]
    assert [error["index"] for error in data["errors"]] == bad
    assert {error["code"] for error in data["errors"]} == {"VALIDATION_FAILED"}
    assert {error["externalId"] for error in data["errors"]} == {"p"}
    assert CANARY not in answer.text
    assert [stored for *_, stored in stored_events(api)] == [
        f'{{"{CANARY}":"{text}","n":[1.0]}}' for text in STORABLE.values()
    ]


@pytest.mark.clause("W22", "W23")
@pytest.mark.parametrize("text", [r"\u0000", r"\ud800"])
async def test_it_may_be_anywhere_in_an_item(api: Api, text: str) -> None:
    fields = '"country":"GB","currency":"GBP","status":"active"'
    entities = [
        f'{{"entityType":"player","externalId":"a{text}","data":{{"email":"e",{fields}}}}}',
        f'{{"entityType":"pl{text}yer","externalId":"b","data":{{"email":"e",{fields}}}}}',
        f'{{"entityType":"player","externalId":"c","data":{{"email":"{text}",{fields}}}}}',
        f'{{"entityType":"player","externalId":"d","data":{{"email":"e",{fields}}},"x":"{text}"}}',
        f'{{"entityType":"player","externalId":"e","data":{{"email":"e",{fields}}}}}',
        f'"{text}"',
    ]
    data = batch_of(await api.post("/batch/entities", f"[{','.join(entities)}]".encode()), 6)
    assert [(error["index"], error["externalId"]) for error in data["errors"]] == [
        (0, None),
        (1, "b"),
        (2, "c"),
        (3, "d"),
        (5, None),
    ]
    assert live_entities(api) == ["e"]

    states = [
        f'{{"externalId":"e","stateKey":"balance","value":"{text}"}}',
        f'{{"externalId":"e","stateKey":"bal{text}","value":1}}',
        '{"externalId":"e","stateKey":"balance","value":1}',
    ]
    data = batch_of(await api.post("/batch/states", f"[{','.join(states)}]".encode()), 3)
    assert [error["index"] for error in data["errors"]] == [0, 1]
    assert stored_states(api) == {("e", "balance"): "1"}


@pytest.mark.clause("W23")
@pytest.mark.parametrize("text", [r"\u0000", r"\udfff"])
async def test_a_single_item_with_it_is_refused(api: Api, text: str) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    before = row_counts(api)
    game = f'{{"entityType":"game","externalId":"g","data":{{"name":"{text}"}}}}'
    for answer in (
        await api.post("/entities", game.encode()),
        await api.post("/entities/p/events", event(f'["{text}"]').encode()),
        await api.put("/entities/p/state/balance", f'"{text}"'.encode()),
        await api.put("/entities/p/state/balance", f'{{"value":"{text}"}}'.encode()),
    ):
        error_of(answer, 400, "VALIDATION_FAILED")
    assert row_counts(api) == before


GOOD_IDS = [
    "a",
    "x" * 255,
    "😀" * 255,
    "a/b",
    "/",
    "a b",
    "a%2Fb",
    "%",
    "a+b",
    "a?b#c&d=e",
    "..",
    ".",
    "näme-名前",
    "e\u0301",
    "\u00e9",
    "\ufeff",
    "\u202e",
    '"quoted"',
    "back\\slash",
    "' OR 1=1 --",
]
BAD_IDS = ["", "x" * 256, "😀" * 256, "a\nb", "\t", "\x7f", "\x1f", "\x80", "a\x9f"]


@pytest.mark.clause("W26", "W27", "W28")
async def test_an_id_of_any_characters_works_in_a_body_and_in_a_path(api: Api) -> None:
    all_succeeded(
        await api.post("/batch/entities", [player(one) for one in GOOD_IDS]), len(GOOD_IDS)
    )
    assert sorted(live_entities(api)) == sorted(GOOD_IDS)
    for one in GOOD_IDS:
        path = f"/entities/{quote(one, safe='').replace('.', '%2E')}"
        assert (await api.data(path))["externalId"] == one
        data_of(await api.post(f"{path}/events", {"eventType": "session", "data": {}}), 201)
        data_of(await api.put(f"{path}/state/balance", 1))
        assert len((await api.data(f"{path}/events"))["items"]) == 1
        assert (await api.data(f"{path}/state/balance"))["value"] == 1
    assert sorted(external_id for external_id, *_ in stored_events(api)) == sorted(GOOD_IDS)
    assert stored_states(api).keys() == {(one, "balance") for one in GOOD_IDS}

    for one in GOOD_IDS:
        path = f"/entities/{quote(one, safe='').replace('.', '%2E')}"
        assert data_of(await api.delete(path)) == {"externalId": one, "deleted": True}
    assert live_entities(api) == []


@pytest.mark.clause("W22", "W23")
async def test_an_id_of_bad_length_or_with_control_characters_is_refused(api: Api) -> None:
    items = [player(one) for one in BAD_IDS]
    data = batch_of(await api.post("/batch/entities", [*items, player("p")]), len(items) + 1)
    assert [(error["index"], error["externalId"]) for error in data["errors"]] == [
        (index, None) for index in range(len(items))
    ]
    assert all('"externalId"' in error["message"] for error in data["errors"])
    assert live_entities(api) == ["p"]
    for one in BAD_IDS[1:]:
        answer = await api.put(f"/entities/{quote(one, safe='')}/state/balance", 1)
        error_of(answer, 400, "VALIDATION_FAILED")
        error_of(await api.get(f"/entities/{quote(one, safe='')}"), 404, "NOT_FOUND")
    assert stored_states(api) == {}


async def test_a_path_that_does_not_decode_is_not_found(api: Api) -> None:
    for segment in ("%FF", "%C0%80", "%ED%A0%80", "a%"):
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/state")):
            answer = await api.request(method, f"/entities/{segment}{rest}")
            error_of(answer, 404, "NOT_FOUND")


NUL_IN_PATHS = [
    *(
        "/entities/%00",
        "/entities/a%00/events",
        "/entities/%00a/state",
        "/entities/%00/state/balance",
    ),
    *("/entities/p/state/%00", "/batch/jobs/%00"),
]


async def test_text_that_cannot_be_stored_names_nothing(api: Api) -> None:
    all_succeeded(await api.post("/batch/entities", [player("p")]), 1)
    for path in NUL_IN_PATHS:
        error_of(await api.get(path), 404, "NOT_FOUND")
    error_of(await api.delete("/entities/%00"), 404, "NOT_FOUND")
    error_of(await api.delete("/api-keys?id=%00"), 404, "NOT_FOUND")
    for path in ("/entities?entityType=%00", "/entities/p/events?eventType=%00"):
        assert await api.data(path) == {"items": [], "nextCursor": None}
    for name in ("status", "type"):
        answer = await api.get(f"/batch/jobs?{name}=%00")
        assert answer.status_code in (200, 400), answer.text
