"""Keys that may not do everything, or not for ever, and operators that are suspended."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from opdata.api.endpoint import Endpoint
from opdata.api.table import ENDPOINTS
from opdata.clock import format_ms, now_ms
from opdata.model import SCOPES
from opdata.storage import open_store
from tests.support.api import Api, deposit, player, serving_api, state
from tests.wire.answers import KEY_ID, all_succeeded, data_of, error_of
from tests.wire.database import all_rows, change, live_entities, row_counts

Headers = Mapping[str, str]
HOUR_MS = 3_600_000


def shown(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def made_key(api: Api, headers: Headers | None = None, **members: Any) -> dict[str, Any]:
    """A key that was made with these members, by the key in the headers."""
    answer = await api.post("/api-keys", {"label": "limited", **members}, headers=headers or {})
    made = data_of(answer, 201)
    assert isinstance(made, dict)
    return made


async def limited_to(api: Api, *scopes: str) -> dict[str, str]:
    """Headers that show a key with these scopes."""
    return shown((await made_key(api, scopes=scopes))["key"])


def path_of(endpoint: Endpoint) -> str:
    query = {"revoke_key": "?id=key_0000000000000000"}.get(endpoint.name, "")
    return re.sub(r"\{\w+\}", "p", endpoint.path) + query


def stored_limits(api: Api, key_id: str) -> tuple[Any, ...]:
    [row] = api.rows("SELECT scopes, expires_at_ms FROM api_keys WHERE key_id = ?", key_id)
    return row


# -- scopes ----------------------------------------------------------------------------------------


@pytest.mark.clause("W11")
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_opens_what_its_scope_opens_and_nothing_else(api: Api, scope: str) -> None:
    headers = await limited_to(api, scope)
    before = all_rows(api)
    for endpoint in ENDPOINTS:
        answer = await api.request(endpoint.method, path_of(endpoint), headers=headers)
        if scope in endpoint.scopes:
            assert answer.status_code not in (401, 403, 405, 500), endpoint.name
        else:
            message = error_of(answer, 403, "FORBIDDEN")
            names = " or ".join(endpoint.scopes)
            assert message == f"This needs an API key with the scope {names}"
    assert all_rows(api) == before


@pytest.mark.clause("W11")
async def test_a_key_with_two_scopes_opens_what_either_opens(api: Api) -> None:
    headers = await limited_to(api, "ingest", "read")
    data_of(await api.post("/entities", player("p"), headers=headers), 201)
    assert (await api.data("/entities/p", headers=headers))["externalId"] == "p"
    error_of(await api.get("/api-keys", headers=headers), 403, "FORBIDDEN")


@pytest.mark.clause("W11")
async def test_a_loaders_key_sends_everything_and_reads_nothing_back(api: Api) -> None:
    headers = await limited_to(api, "ingest")
    made = all_succeeded(await api.post("/batch/entities", [player("p")], headers=headers), 1)
    all_succeeded(await api.post("/batch/events", [deposit("p")], headers=headers), 1)
    all_succeeded(await api.post("/batch/states", [state("p", 1)], headers=headers), 1)
    job = await api.data(f"/batch/jobs/{made['jobId']}", headers=headers)
    assert job["output"] == {"succeeded": 1, "failed": 0, "errors": []}
    assert (await api.data("/settings", headers=headers))["template"]["id"] == "tpl_igaming"
    for path in ("/entities", "/entities/p", "/entities/p/events", "/events", "/batch/jobs"):
        error_of(await api.get(path, headers=headers), 403, "FORBIDDEN")
    assert live_entities(api) == ["p"]


@pytest.fixture
async def strict(tmp_path: Path, db: str) -> AsyncIterator[Api]:
    """A body of 64 KiB at most, and one batch an hour."""
    settings: dict[str, Any] = {"max_body_bytes": 64 * 1024, "limit_batch": "1/3600s"}
    async with serving_api(tmp_path / "data", db=db, **settings) as (api, _):
        yield api


@pytest.mark.clause("W4", "W60")
async def test_the_scope_comes_after_the_key_and_before_all_else(strict: Api) -> None:
    headers = await limited_to(strict, "read")
    before = row_counts(strict)
    for body in (b" " * (64 * 1024 + 1), b"nonsense", json.dumps([player("p")]).encode()):
        for coding in ({}, {"Content-Encoding": "br"}, {"Content-Encoding": "gzip"}):
            answer = await strict.post("/batch/entities", body, headers=headers | coding)
            error_of(answer, 403, "FORBIDDEN")
            assert "ratelimit" not in answer.headers
    answer = await strict.post("/batch/entities", b"[", headers=shown("oh_live_wrong"))
    error_of(answer, 401, "UNAUTHORIZED")
    assert row_counts(strict) == before
    # None of them was taken from the quota.
    all_succeeded(await strict.post("/batch/entities", [player("p")]), 1)


@pytest.mark.clause("W40", "W41")
async def test_what_was_forbidden_leaves_an_idempotency_key_free(api: Api) -> None:
    named = {"Idempotency-Key": "k"}
    reader = await limited_to(api, "read")
    error_of(await api.post("/entities", player("p"), headers=reader | named), 403, "FORBIDDEN")
    answer = await api.post("/entities", player("p"), headers=named)
    data_of(answer, 201)
    # Nor does it get the answer that another key of the operator got.
    again = await api.post("/entities", player("p"), headers=reader | named)
    error_of(again, 403, "FORBIDDEN")
    assert "idempotent-replayed" not in again.headers


# -- making and listing limited keys ---------------------------------------------------------------


@pytest.mark.clause("W11", "W12")
async def test_a_keys_limits_are_answered_listed_and_stored(api: Api) -> None:
    ends_ms = now_ms() + HOUR_MS
    made = await made_key(api, scopes=["ingest", "read"], expiresAt=format_ms(ends_ms))

    assert list(made) == ["id", "key", "label", "createdAt", "scopes", "expiresAt"]
    assert KEY_ID.fullmatch(made["id"])
    limits = {"scopes": ["read", "ingest"], "expiresAt": format_ms(ends_ms)}
    assert {name: made[name] for name in limits} == limits
    [listed] = [key for key in await api.data("/api-keys") if key["id"] == made["id"]]
    assert {name: listed[name] for name in limits} == limits
    assert stored_limits(api, made["id"]) == ("read ingest", ends_ms)
    relabelling = {"id": made["id"], "label": "new"}
    relabelled = data_of(await api.request("PATCH", "/api-keys", json=relabelling))
    assert {name: relabelled[name] for name in limits} == limits


@pytest.mark.clause("W11", "W12")
@pytest.mark.parametrize(
    "members", [{}, {"scopes": None, "expiresAt": None}, {"scopes": ["admin", "read", "ingest"]}]
)
async def test_a_key_of_which_nothing_is_said_may_do_everything_for_ever(
    api: Api, members: dict[str, Any]
) -> None:
    made = await made_key(api, **members)
    assert (made["scopes"], made["expiresAt"]) == (["read", "ingest", "admin"], None)
    assert stored_limits(api, made["id"]) == (None, None)


@pytest.mark.clause("W11")
async def test_a_key_makes_none_that_may_do_more_than_itself(api: Api) -> None:
    headers = await limited_to(api, "admin", "ingest")
    before = row_counts(api)
    for scopes in (["read"], ["admin", "ingest", "read"]):
        answer = await api.post("/api-keys", {"label": "x", "scopes": scopes}, headers=headers)
        message = error_of(answer, 403, "FORBIDDEN")
        assert message == "This needs an API key with the scope read"
    assert row_counts(api) == before

    less = await made_key(api, headers, scopes=["admin"])
    assert less["scopes"] == ["admin"]
    # Without a word it is as limited as the one that makes it.
    same = await made_key(api, headers)
    assert same["scopes"] == ["ingest", "admin"]
    error_of(await api.get("/entities", headers=shown(same["key"])), 403, "FORBIDDEN")


BAD_LIMITS: list[dict[str, Any]] = [
    {"scopes": []},
    {"scopes": "read"},
    {"scopes": ["write"]},
    {"scopes": ["read", None]},
    {"expiresAt": 1},
    {"expiresAt": ""},
    {"expiresAt": "2099-01-01"},
    {"expiresAt": "2099-01-01T00:00:00"},
    {"expiresAt": "2020-01-01T00:00:00Z"},
]


@pytest.mark.clause("W11", "W12")
async def test_limits_that_are_none_are_refused_by_name(api: Api) -> None:
    before = row_counts(api)
    for members in BAD_LIMITS:
        answer = await api.post("/api-keys", {"label": "x", **members})
        [name] = members
        assert f'"{name}' in error_of(answer, 400, "INVALID_INPUT")
    assert row_counts(api) == before


@pytest.mark.clause("W3", "W11")
async def test_the_last_key_that_can_make_others_is_not_revocable(api: Api) -> None:
    [only] = await api.data("/api-keys")
    sender = await made_key(api, scopes=["ingest"])
    message = error_of(await api.delete(f"/api-keys?id={only['id']}"), 409, "CONFLICT")
    assert "scope admin" in message
    assert api.rows("SELECT count(*) FROM api_keys WHERE revoked_at_ms IS NOT NULL") == [(0,)]
    data_of(await api.delete(f"/api-keys?id={sender['id']}"))


# -- expiry ----------------------------------------------------------------------------------------


@pytest.mark.clause("W12")
async def test_a_key_ends_at_its_moment_however_lately_it_was_used(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_ms = now_ms() + HOUR_MS
    made = await made_key(api, expiresAt=format_ms(ends_ms))
    for at_ms, status in ((ends_ms - 1, 200), (ends_ms, 401), (ends_ms - 1, 200), (ends_ms, 401)):
        monkeypatch.setattr("opdata.api.auth.now_ms", lambda at_ms=at_ms: at_ms)
        answer = await api.get("/settings", headers=shown(made["key"]))
        assert answer.status_code == status
    # Nothing was written for it: the time is all there is.
    assert stored_limits(api, made["id"]) == (None, ends_ms)


@pytest.mark.clause("W3", "W12")
async def test_an_expired_key_is_no_longer_counted_as_a_way_in(api: Api) -> None:
    [only] = await api.data("/api-keys")
    expired = await made_key(api, expiresAt=format_ms(now_ms() + HOUR_MS))
    change(api, "UPDATE api_keys SET expires_at_ms = 1 WHERE key_id = ?", expired["id"])
    error_of(await api.delete(f"/api-keys?id={only['id']}"), 409, "CONFLICT")
    revoked = data_of(await api.delete(f"/api-keys?id={expired['id']}"))
    assert revoked["expiresAt"] == "1970-01-01T00:00:00.001Z"
    assert revoked["revokedAt"] is not None


# -- suspension ------------------------------------------------------------------------------------


@pytest.mark.clause("W12")
async def test_a_suspended_operators_request_under_way_is_finished_and_its_data_stays(
    tmp_path: Path, db: str
) -> None:
    async with serving_api(tmp_path / "data", db=db, auth_cache_s=0) as (api, other_api):
        data_of(await api.post("/entities", player("before")), 201)
        store = await open_store(api.settings.database_url)
        [ours] = [one for one in await store.operators() if one.name == api.operator]
        sent_first, suspended = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            sent_first.set()
            await suspended.wait()
            yield json.dumps([player("during")]).encode()

        under_way = asyncio.create_task(api.request("POST", "/batch/entities", content=slowly()))
        await sent_first.wait()
        await store.suspend_operator(ours.operator_id, None, now_ms())
        error_of(await api.get("/entities"), 401, "UNAUTHORIZED")
        error_of(await api.post("/entities", player("after")), 401, "UNAUTHORIZED")
        suspended.set()
        all_succeeded(await under_way, 1)
        assert live_entities(api) == ["before", "during"]
        assert (await other_api.get("/entities")).status_code == 200

        await store.resume_operator(ours.operator_id)
        await store.close()
        items = (await api.data("/entities"))["items"]
        assert [item["externalId"] for item in items] == ["before", "during"]
