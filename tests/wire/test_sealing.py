"""Personal fields: sealed wherever they are kept, opened by one endpoint alone."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.api import PLAYER, Api, deposit, player, state
from tests.support.running import RunningServer
from tests.wire.answers import all_succeeded, batch_of, data_of, error_of
from tests.wire.database import change, raw_bytes
from tests.wire.senders import new_operator

pytestmark = pytest.mark.clause("W49")

PERSONAL: dict[str, str] = {
    "first_name": "Canary-Aurelie",
    "last_name": "Canary-Montgolfier",
    "email": "canary.aurelie@mail.example",
    "phone": "+44-canary-7700900123",
    "date_of_birth": "canary-1984-02-29",
}
MASKED = dict.fromkeys(PERSONAL, "[encrypted]")


def spellings(text: str) -> list[bytes]:
    """A text as it could stand somewhere in clear."""
    utf8 = text.encode()
    # Base64 has three alignments; the middle of each is the same wherever the text begins.
    in_base64 = [b64encode(b"x" * shift + utf8)[4:-4] for shift in range(3)]
    return [
        utf8,
        utf8.lower(),
        utf8.upper(),
        utf8[::-1],
        text.encode("utf-16-le"),
        utf8.hex().encode(),
        utf8.hex().upper().encode(),
        *in_base64,
    ]


def clear_of_personal_values(stored: bytes) -> bool:
    return not any(form in stored for text in PERSONAL.values() for form in spellings(text))


@pytest.mark.clause("W22", "W41")
async def test_a_personal_value_stands_nowhere_in_clear(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = player("p", **PERSONAL)
    keyed = {"Idempotency-Key": "k"}
    bad = player("q", **PERSONAL, country=None)
    answers = [
        await api.post("/entities", whole, headers=keyed),
        await api.post("/entities", whole, headers=keyed),
        await api.post("/entities", bad, headers={"Idempotency-Key": "bad"}),
        await api.post("/batch/entities", [whole, bad, player("r", **PERSONAL)], headers=keyed),
        await api.post("/batch/entities?dryRun=true", [player("s", **PERSONAL), bad]),
        # Old values and those of an upsert that changed nothing.
        await api.post("/batch/entities", [player("p", email="new@mail.example")]),
        await api.post("/batch/entities", [whole, whole]),
        await api.get("/entities"),
        await api.get("/batch/jobs"),
        await api.get("/metrics"),
    ]
    for answer in answers:
        assert answer.status_code in (200, 201, 400)
        assert clear_of_personal_values(answer.content)
    assert clear_of_personal_values(raw_bytes(api))
    assert clear_of_personal_values("".join(capsys.readouterr()).encode())
    # What is looked for would be found: the single GET has it.
    assert not clear_of_personal_values((await api.get("/entities/p")).content)


@pytest.mark.clause("W2")
def test_a_server_process_writes_no_personal_value_to_its_files(
    server: RunningServer,
) -> None:
    with new_operator(server, "sealing") as client:
        whole = player("p", **PERSONAL)
        client.post("/entities", json=whole).raise_for_status()
        client.post("/batch/entities", json=[whole, PERSONAL]).raise_for_status()
        assert client.get("/entities/p").json()["data"]["data"] == whole["data"]
        # Not when something breaks, either.
        with server.stored.failing_writes("entities"):
            failed = client.post("/batch/entities", json=[player("q", **PERSONAL)])
        assert failed.status_code == 500
    files = [server.log, *server.data_dir.rglob("*")]
    stored = server.stored.raw_bytes()
    stored += b"".join(file.read_bytes() for file in files if file.is_file())
    assert server.stored.fault.encode() in stored
    assert clear_of_personal_values(stored)


async def test_only_a_single_get_opens_them(api: Api) -> None:
    whole = player("p", **PERSONAL, vip_level=3)
    data_of(await api.post("/entities", whole), 201)

    assert (await api.data("/entities/p"))["data"] == whole["data"]
    [listed] = (await api.data("/entities"))["items"]
    assert listed["data"] == {**whole["data"], **MASKED}
    [(stored,)] = api.rows("SELECT data FROM entities")
    assert json.loads(stored) == {**whole["data"], **MASKED}


@pytest.mark.clause("W7", "W48")
async def test_personal_values_of_any_type_survive(api: Api) -> None:
    texts = {
        "phone": "447700900123.10",
        "date_of_birth": "[1984, 2.0, 29]",
        "first_name": '{"given":"😀\\u00e9","n":1e400}',
        "last_name": "null",
        "email": '"a\\"b\\\\"',
    }
    data = ",".join(f'"{name}":{text}' for name, text in texts.items())
    rest = '"country":"GB","currency":"GBP","status":"active"'
    item = f'{{"entityType":"player","externalId":"p","data":{{{data},{rest}}}}}'
    data_of(await api.post("/entities", item.encode()), 201)
    assert f'"data":{{{data},{rest}}}' in (await api.get("/entities/p")).text


@pytest.mark.clause("W48")
async def test_fields_are_personal_where_the_template_says_so(api: Api) -> None:
    inner = {"email": "not personal here"}
    game = {"entityType": "game", "externalId": "g", "data": {"name": "n", "email": "shown"}}
    all_succeeded(await api.post("/batch/entities", [player("p", inner=inner, Email="x"), game]), 2)
    listed = {one["externalId"]: one["data"] for one in (await api.data("/entities"))["items"]}
    assert listed["p"] == {**PLAYER, "email": "[encrypted]", "inner": inner, "Email": "x"}
    assert listed["g"] == {"name": "n", "email": "shown"}
    assert api.rows("SELECT external_id FROM entities WHERE sealed IS NULL") == [("g",)]


@pytest.mark.clause("W22", "W26")
async def test_a_listing_that_is_sent_back_erases_nobody(api: Api) -> None:
    data_of(await api.post("/entities", player("p", **PERSONAL)), 201)
    [listed] = (await api.data("/entities"))["items"]

    answer = await api.post("/batch/entities", [listed, player("q", note="[encrypted]")])

    [error] = batch_of(answer, 2)["errors"]
    assert (error["index"], error["code"]) == (0, "VALIDATION_FAILED")
    assert all(f'"{name}"' in error["message"] for name in PERSONAL)
    assert (await api.data("/entities/p"))["data"] == player("p", **PERSONAL)["data"]
    # Elsewhere it is a text like any other.
    assert (await api.data("/entities/q"))["data"]["note"] == "[encrypted]"


async def test_the_same_values_are_never_sealed_alike(api: Api, other_api: Api) -> None:
    for one in (api, other_api):
        items = [player("p", **PERSONAL), player("q", **PERSONAL)]
        all_succeeded(await one.post("/batch/entities", items), 2)
    rows = api.rows("SELECT sealed, fingerprint FROM entities")
    assert len({sealed[5:] for sealed, _ in rows}) == 4
    # The keyed fingerprints of one entity differ between operators: no guess can be compared.
    by_name = api.rows("SELECT fingerprint FROM entities WHERE external_id = 'p'")
    assert len(set(by_name)) == 2
    # Sealing the same values anew gives another text.
    before = {sealed for sealed, _ in rows}
    items = [player("p", **PERSONAL, note=1)]
    all_succeeded(await api.post("/batch/entities", items), 1)
    assert len(before & {sealed for (sealed,) in api.rows("SELECT sealed FROM entities")}) == 3


Tamper = Callable[[bytes], bytes]
TAMPERED: dict[str, Tamper] = {
    "a flipped bit": lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
    "a flipped bit in the nonce": lambda sealed: sealed[:6] + bytes([sealed[6] ^ 1]) + sealed[7:],
    "another version": lambda sealed: b"\x02" + sealed[1:],
    "another key id": lambda sealed: sealed[:4] + b"\x07" + sealed[5:],
    "a byte less": lambda sealed: sealed[:-1],
    "a byte more": lambda sealed: sealed + b"\0",
    "nothing": lambda _: b"",
    "clear text": lambda _: b'{"email":"a@example.com"}',
}


def check_no_leak(answer: httpx2.Response, log: str) -> None:
    message = error_of(answer, 500, "INTERNAL_ERROR")
    assert message.startswith("Internal server error (request ")
    assert clear_of_personal_values(answer.content + log.encode())
    [reported] = [json.loads(line) for line in log.splitlines() if '"seal_broken"' in line]
    assert reported.keys() == {
        *("event", "level", "timestamp", "operator_id", "entity_id", "data_key")
    }
    assert reported["level"] == "error"


async def broken_seals(api: Api) -> int:
    """What the metrics count."""
    lines = (await api.get("/metrics")).text.splitlines()
    [count] = [line.split()[1] for line in lines if line.startswith("opdata_broken_seals_total")]
    return int(float(count))


@pytest.mark.clause("W2")
async def test_a_sealed_record_that_was_tampered_with_does_not_open(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    data_of(await api.post("/entities", player("p", **PERSONAL)), 201)
    [(sealed,)] = api.rows("SELECT sealed FROM entities")
    for tamper in TAMPERED.values():
        change(api, "UPDATE entities SET sealed = ?", tamper(sealed))
        check_no_leak(await api.get("/entities/p"), "".join(capsys.readouterr()))
    assert await broken_seals(api) == len(TAMPERED)
    change(api, "UPDATE entities SET sealed = ?", sealed)
    assert (await api.data("/entities/p"))["data"]["email"] == PERSONAL["email"]
    assert await broken_seals(api) == len(TAMPERED)


@pytest.mark.clause("W2", "W3")
async def test_a_sealed_record_that_was_moved_does_not_open(
    api: Api, other_api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    all_succeeded(await api.post("/batch/entities", [player("p", **PERSONAL), player("q")]), 2)
    data_of(await other_api.post("/entities", player("p")), 201)
    ids = "SELECT operator_id FROM operators WHERE name = 'ours'"
    [(sealed,)] = api.rows(
        f"SELECT sealed FROM entities WHERE external_id = 'p' AND operator_id = ({ids})"
    )
    change(api, "UPDATE entities SET sealed = ?", sealed)

    # To another entity of the operator, and to the same name at another operator.
    check_no_leak(await api.get("/entities/q"), "".join(capsys.readouterr()))
    check_no_leak(await other_api.get("/entities/p"), "".join(capsys.readouterr()))
    # Where it belongs, it opens.
    assert (await api.data("/entities/p"))["data"]["email"] == PERSONAL["email"]
    # The entity itself renamed, as a whole row: it does not open under the other name either.
    change(api, "UPDATE entities SET external_id = 'z' WHERE external_id = 'q'")
    check_no_leak(await api.get("/entities/z"), "".join(capsys.readouterr()))


@pytest.mark.clause("W22", "W23")
async def test_events_and_states_hold_nothing_sealed(api: Api) -> None:
    # The template has no personal fields for them: what is sent there is kept as it is.
    data_of(await api.post("/entities", player("p")), 201)
    event: dict[str, Any] = {**deposit("p"), "eventType": "support", "data": {"email": "shown"}}
    batch_of(await api.post("/batch/events", [event]), 1)
    batch_of(await api.post("/batch/states", [state("p", {"email": "shown"})]), 1)
    [found] = (await api.data("/entities/p/events"))["items"]
    assert found["data"] == {"email": "shown"}
    assert (await api.data("/entities/p/state/balance"))["value"] == {"email": "shown"}
