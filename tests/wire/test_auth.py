"""Whose key a request shows: the ways to be refused, and how soon a key stops working."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx2
import pytest

from opdata.api.table import ENDPOINTS
from opdata.clock import format_ms, now_ms
from opdata.keys import hash_key
from opdata.storage import open_store
from tests.support.api import Api, key_of, player, serving_api
from tests.support.running import RunningServer
from tests.wire.answers import data_of, error_of
from tests.wire.database import change, live_entities, raw_bytes
from tests.wire.senders import new_operator

pytestmark = pytest.mark.clause("W3")


async def showing(api: Api, authorization: str | None) -> httpx2.Response:
    """The answer to a write with this `Authorization` header, or without one."""
    request = api.client.build_request(
        "POST",
        "/operator-data-api/entities",
        json=player("intruder"),
        headers={"X-Request-Id": "same"},
    )
    del request.headers["authorization"]
    if authorization is not None:
        request.headers.update([(b"Authorization", authorization.encode())])
    return await api.client.send(request)


async def revoked_key(api: Api) -> str:
    made = data_of(await api.post("/api-keys", {"label": "to revoke"}), 201)
    data_of(await api.delete(f"/api-keys?id={made['id']}"))
    return str(made["key"])


async def expired_key(api: Api) -> str:
    expires_at = format_ms(now_ms() + 3_600_000)
    made = data_of(await api.post("/api-keys", {"label": "short", "expiresAt": expires_at}), 201)
    # Its hour passes.
    change(api, "UPDATE api_keys SET expires_at_ms = ? WHERE key_id = ?", now_ms(), made["id"])
    return str(made["key"])


async def suspend(api: Api) -> None:
    store = await open_store(api.settings.database_url)
    [operator] = [one for one in await store.operators() if one.name == api.operator]
    await store.suspend_operator(operator.operator_id, "a reason", now_ms())
    await store.close()


@pytest.mark.clause("W12")
async def test_keys_that_are_not_taken_get_the_same_answer_whyever(
    api: Api, other_api: Api
) -> None:
    """Missing, malformed, unknown, revoked, expired, or of an operator that is suspended."""
    good = key_of(api.client)
    await suspend(other_api)
    shown = [
        None,
        "",
        "Bearer",
        "Bearer ",
        good,
        f"Basic {good}",
        f"Bearer{good}",
        f"Bearer {good[:-1]}",
        f"Bearer {good}0",
        f"Bearer {good.upper()}",
        f"Bearer {good.replace('live', 'test')}",
        f"Bearer {good} {good}",
        f'Bearer "{good}"',
        "Bearer oh_live_YOUR_API_KEY",
        f"Bearer oh_live_{'0' * 64}",
        f"Bearer oh_live_{'é' * 64}",
        f"Bearer {await revoked_key(api)}",
        f"Bearer {await expired_key(api)}",
        f"Bearer {key_of(other_api.client)}",
    ]

    answers = [await showing(api, authorization) for authorization in shown]

    for answer in answers:
        error_of(answer, 401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len({(answer.content, str(answer.headers)) for answer in answers}) == 1
    assert live_entities(api) == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(api: Api, scheme: str) -> None:
    assert (await showing(api, f"{scheme} {key_of(api.client)}")).status_code == 201
    assert live_entities(api) == ["intruder"]


async def test_no_endpoint_answers_without_a_key(api: Api) -> None:
    for endpoint in ENDPOINTS:
        path = re.sub(r"\{\w+\}", "p", endpoint.path)
        answer = await api.request(
            endpoint.method, path, headers={"Authorization": ""}, content=b"["
        )
        error_of(answer, 401, "UNAUTHORIZED")


async def test_a_revoked_key_stops_at_once_where_it_was_revoked(api: Api) -> None:
    made = data_of(await api.post("/api-keys", {"label": "short-lived"}), 201)
    assert (await showing(api, f"Bearer {made['key']}")).status_code == 201

    data_of(await api.delete(f"/api-keys?id={made['id']}"))

    error_of(await showing(api, f"Bearer {made['key']}"), 401, "UNAUTHORIZED")


def test_a_key_revoked_elsewhere_stops_working_within_five_seconds(server: RunningServer) -> None:
    with new_operator(server, "revoking") as client:
        made = client.post(f"{server.url}/api-keys", json={"label": "second"}).json()["data"]
        shown = {"Authorization": f"Bearer {made['key']}"}
        assert client.get("/templates", headers=shown).status_code == 200

        server.command("keys", "revoke", made["id"], "--operator", "revoking")

        deadline, sent_at = time.monotonic() + 5, 0.0
        while client.get("/templates", headers=shown).status_code == 200:
            assert sent_at < deadline
            time.sleep(0.1)
            sent_at = time.monotonic()
        error_of(client.get("/templates", headers=shown), 401, "UNAUTHORIZED")
        assert client.get("/templates").status_code == 200


async def test_only_a_hash_of_a_key_is_stored(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db) as (api, _):
        made = data_of(await api.post("/api-keys", {"label": "second"}), 201)["key"]
        keys = [key_of(api.client), made]
        for key in keys:
            assert (await showing(api, f"Bearer {key}")).status_code in (200, 201)

        stored = raw_bytes(api)

        for key in keys:
            assert hash_key(key) in stored
            secret = key.removeprefix("oh_live_")
            # All but the few digits of `maskedKey`, in any spelling.
            for part in (secret[4:20], secret[20:40], secret[40:60]):
                assert part.encode() not in stored
                assert bytes.fromhex(part) not in stored
