"""Idempotency-Key: what is replayed, what is not, and how far a key reaches."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx2
import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import all_succeeded, data_of, error_of
from tests.wire.database import all_rows, change, live_entities, row_counts, stored_events

KEY = {"Idempotency-Key": "k"}
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/batch/entities", [player("q"), 5]),
    ("POST", "/batch/events", [deposit("p"), deposit("nobody")]),
    ("POST", "/batch/states", [state("p", 1.5)]),
    ("POST", "/entities", player("q")),
    ("POST", "/entities", player("p", country="MT")),
    ("PUT", "/entities/p/state/balance", {"value": 7}),
    ("DELETE", "/entities/p", None),
    ("PUT", "/settings", {"dataRetentionDays": 30}),
]


@pytest.fixture(autouse=True)
async def player_p(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)


async def send(
    api: Api, method: str, path: str, body: Any, key: str = "k", **headers: str
) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await api.request(
        method, path, content=content, headers={"Idempotency-Key": key, **headers}
    )


def replayed(answer: httpx2.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


@pytest.mark.clause("W40", "W41")
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_a_repeated_write_gets_the_first_answer_byte_for_byte(
    api: Api, method: str, path: str, body: Any
) -> None:
    first = await send(api, method, path, body)
    assert first.status_code in (200, 201)
    assert "idempotent-replayed" not in first.headers
    rows = all_rows(api)

    for _ in range(2):
        again = await send(api, method, path, body)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert replayed(again)
    assert all_rows(api) == rows
    stored = api.rows("SELECT method, path, status, body FROM idempotency_records")
    assert stored == [(method, path, first.status_code, first.content)]


@pytest.mark.clause("W41")
async def test_a_repeated_single_event_is_a_duplicate(api: Api) -> None:
    body = {"eventType": "session", "data": {}}
    first = data_of(await send(api, "POST", "/entities/p/events", body), 201)
    for _ in range(2):
        again = await send(api, "POST", "/entities/p/events", body)
        assert data_of(again, 200) == {"id": first["id"], "action": "duplicate"}
        assert replayed(again)
    assert len(stored_events(api)) == 1


@pytest.mark.clause("W41")
async def test_another_body_under_the_same_key_is_refused(api: Api) -> None:
    first = await send(api, "POST", "/batch/entities", [player("q")])
    rows = all_rows(api)
    for body in ([player("r")], [player("q"), player("q")], b" " + first.request.content):
        answer = await send(api, "POST", "/batch/entities", body)
        error_of(answer, 422, "IDEMPOTENCY_KEY_REUSED")
        assert not replayed(answer)
    assert all_rows(api) == rows
    assert replayed(await send(api, "POST", "/batch/entities", [player("q")]))


@pytest.mark.clause("W10", "W40")
async def test_a_compressed_retry_is_the_same_request(api: Api) -> None:
    body = json.dumps([player("q")]).encode()
    packed = gzip.compress(body)
    first = await send(api, "POST", "/batch/entities", body)
    again = await send(api, "POST", "/batch/entities", packed, **{"Content-Encoding": "gzip"})
    assert replayed(again)
    assert again.content == first.content

    single = json.dumps(player("r")).encode()
    packed = gzip.compress(single)
    first = await send(api, "POST", "/entities", packed, **{"Content-Encoding": "gzip"})
    again = await send(api, "POST", "/entities", single)
    assert replayed(again)
    assert again.content == first.content


@pytest.mark.clause("W40")
async def test_a_key_counts_for_one_path_and_method(api: Api) -> None:
    answers = [
        await send(api, "PUT", "/entities/p/state/balance", 1),
        await send(api, "PUT", "/entities/p/state/risk_score", 1),
        await send(api, "POST", "/batch/entities", [player("q")]),
        await send(api, "POST", "/entities", player("r")),
        await send(api, "DELETE", "/entities/q", None),
        await send(api, "DELETE", "/entities/r", None),
        await send(api, "PUT", "/settings", {"dataRetentionDays": 9}),
    ]
    assert {answer.status_code for answer in answers} == {200, 201}
    assert not any(map(replayed, answers))
    assert live_entities(api) == ["p"]
    assert api.rows("SELECT count(*) FROM idempotency_records") == [(len(answers),)]


@pytest.mark.clause("W1", "W40")
async def test_a_path_and_its_alias_are_one_path(api: Api) -> None:
    first = await send(api, "POST", "/entities", player("q"))
    again = await send(api, "POST", "/functions/v1/operator-data-api/entities", player("q"))
    assert replayed(again)
    assert again.content == first.content


@pytest.mark.clause("W3", "W40")
async def test_a_key_counts_for_one_operator(api: Api, other_api: Api) -> None:
    first = data_of(await send(api, "POST", "/entities", player("q")), 201)
    theirs = await send(other_api, "POST", "/entities", player("q"))
    assert not replayed(theirs)
    assert data_of(theirs, 201)["id"] != first["id"]
    different = await send(other_api, "POST", "/entities", player("r"))
    error_of(different, 422, "IDEMPOTENCY_KEY_REUSED")
    assert live_entities(api) == ["p", "q", "q"]


@pytest.mark.clause("W40")
async def test_keys_of_one_operator_share_their_idempotency_keys(api: Api) -> None:
    second = data_of(await api.post("/api-keys", {"label": "second"}), 201)["key"]
    first = await send(api, "POST", "/entities", player("q"))
    shown = {"Authorization": f"Bearer {second}"}
    again = await send(api, "POST", "/entities", player("q"), **shown)
    assert replayed(again)
    assert again.content == first.content


@pytest.mark.clause("W40")
async def test_a_key_may_be_quoted_or_bare(api: Api) -> None:
    keys = ["a", "x" * 255, "8e03978e-40d5-43dd-bc93-6894a57f9324", '!"#~']
    for key in keys:
        first = await send(api, "POST", "/entities", player("q"), key)
        for spelt in (f'"{key}"', f" {key} ", key):
            again = await send(api, "POST", "/entities", player("q"), spelt)
            assert replayed(again)
            assert again.content == first.content
    stored = api.rows("SELECT idempotency_key FROM idempotency_records")
    assert sorted(stored) == sorted((key,) for key in keys)


BAD_KEYS = ["", '""', '" "', "a b", "x" * 256, '"' + "x" * 256 + '"', "a\tb", "é", "\x7f"]


@pytest.mark.clause("W40")
async def test_a_key_that_is_none_is_refused(api: Api) -> None:
    before = row_counts(api)
    for key in BAD_KEYS:
        for method, path, body in WRITES:
            answer = await api.client.request(
                method,
                f"/operator-data-api{path}",
                content=json.dumps(body).encode(),
                headers=[(b"Idempotency-Key", key.encode())],
            )
            assert "Idempotency-Key" in error_of(answer, 400, "INVALID_INPUT"), key
    assert row_counts(api) == before


@pytest.mark.clause("W40")
async def test_reads_know_no_keys(api: Api) -> None:
    for _ in range(2):
        answer = await send(api, "GET", "/entities/p", b"")
        assert not replayed(answer)
    assert api.rows("SELECT count(*) FROM idempotency_records") == [(0,)]


@pytest.mark.clause("W3", "W40")
async def test_making_a_key_is_never_replayed(api: Api) -> None:
    # Its answer has the secret, which is stored nowhere.
    made = [await send(api, "POST", "/api-keys", {"label": "x"}) for _ in range(2)]
    assert len({data_of(answer, 201)["key"] for answer in made}) == 2
    assert api.rows("SELECT count(*) FROM idempotency_records") == [(0,)]


@pytest.mark.clause("W41")
@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/entities", {"entityType": "player", "externalId": "q", "data": {}}, "VALIDATION_FAILED"),
        ("/entities/p/events", {"eventType": "nonsense", "data": {}}, "VALIDATION_FAILED"),
        ("/entities/nobody/events", {"eventType": "session", "data": {}}, "NOT_FOUND"),
    ],
)
async def test_an_error_that_came_from_executing_is_replayed(
    api: Api, path: str, body: Any, code: str
) -> None:
    first = await send(api, "POST", path, body)
    assert first.json()["error"]["code"] == code
    # What would succeed now does not: the key has its answer.
    data_of(await api.post("/entities", player("nobody")), 201)

    again = await send(api, "POST", path, body)

    assert replayed(again)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert stored_events(api) == []


@pytest.mark.clause("W41")
async def test_a_deletion_that_found_nothing_is_replayed(api: Api) -> None:
    first = await send(api, "DELETE", "/entities/q", b"")
    error_of(first, 404, "NOT_FOUND")
    data_of(await api.post("/entities", player("q")), 201)
    again = await send(api, "DELETE", "/entities/q", b"")
    assert replayed(again)
    assert again.content == first.content
    assert live_entities(api) == ["p", "q"]


@pytest.mark.clause("W41")
async def test_a_malformed_request_leaves_its_key_free(api: Api) -> None:
    for body in (b"nonsense", b"[]", b"{}"):
        error_of(await send(api, "POST", "/batch/entities", body), 400, "INVALID_INPUT")
    error_of(
        await send(api, "POST", "/batch/entities?limit=5", [player("q")]), 400, "INVALID_INPUT"
    )
    all_succeeded(await send(api, "POST", "/batch/entities", [player("q")]), 1)


@pytest.mark.clause("W41")
async def test_a_replayed_deletion_does_not_delete_what_came_after(api: Api) -> None:
    first = await send(api, "DELETE", "/entities/p", None)
    data_of(await api.post("/entities", player("p")), 201)
    again = await send(api, "DELETE", "/entities/p", None)
    assert replayed(again)
    assert again.content == first.content
    assert live_entities(api) == ["p"]


@pytest.mark.clause("W40")
async def test_a_key_is_free_again_after_a_day(api: Api) -> None:
    first = data_of(await send(api, "POST", "/batch/entities", [player("q")]))
    minute, day = 60_000, 24 * 3600 * 1000
    back = "UPDATE idempotency_records SET created_at_ms = created_at_ms - ?"

    change(api, back, day - minute)
    again = await send(api, "POST", "/batch/entities", [player("q")])
    assert replayed(again)
    assert data_of(again) == first

    change(api, back, 2 * minute)
    other = await send(api, "POST", "/batch/entities", [player("r")])
    assert not replayed(other)
    assert data_of(other)["jobId"] != first["jobId"]
    assert live_entities(api) == ["p", "q", "r"]
    assert replayed(await send(api, "POST", "/batch/entities", [player("r")]))
    assert api.rows("SELECT count(*) FROM idempotency_records") == [(1,)]


@pytest.mark.clause("W25", "W41")
async def test_a_request_that_failed_in_the_store_leaves_nothing_and_its_key_free(
    api: Api,
) -> None:
    before = all_rows(api)
    for table in ("entities", "jobs", "idempotency_records"):
        with api.stored.failing_writes(table):
            answer = await send(api, "POST", "/batch/entities", [player("q"), player("r")])
        error_of(answer, 500, "INTERNAL_ERROR")
        assert all_rows(api) == before
    answer = await send(api, "POST", "/batch/entities", [player("q"), player("r")])
    all_succeeded(answer, 2)
    assert not replayed(answer)
