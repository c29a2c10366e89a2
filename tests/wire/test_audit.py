"""The audit log: what requests leave in it, and what its operator sees of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opdata.api.reveals import Reveals
from opdata.api.table import ENDPOINTS
from opdata.audit import Head, Record, flaw, head_at
from opdata.keys import hash_key
from tests.support.api import Api, player, serving_api
from tests.wire.answers import Answer, all_succeeded, data_of, error_of

pytestmark = pytest.mark.clause("W54")

READING = {"list_audit_log", "get_settings", "list_keys"}
"""Endpoints for administrators that change nothing."""


async def log_of(api: Api, **params: Any) -> list[dict[str, Any]]:
    """The operator's part of the log, oldest first, without what was done before the test."""
    found: list[dict[str, Any]] = (await api.data("/audit", params=params))["items"]
    return [one for one in reversed(found) if one["seq"] > 1]


def key_id(api: Api) -> str:
    """The id of the key that these requests are made with."""
    shown = api.client.headers["Authorization"]
    key_hash = hash_key(shown.removeprefix("Bearer "))
    [(found,)] = api.rows("SELECT key_id FROM api_keys WHERE key_hash = ?", key_hash)
    return str(found)


def stored(api: Api) -> list[tuple[Any, ...]]:
    """Action and subject of what is stored of all operators, since the test began."""
    return api.rows("SELECT action, subject FROM audit_log WHERE seq > 1 ORDER BY operator_id, seq")


async def add_key(api: Api) -> str:
    return str(data_of(await api.post("/api-keys", {"label": "second"}), 201)["id"])


async def change_settings(api: Api) -> Answer:
    return await api.put("/settings", {"dataRetentionDays": 90})


async def create_key(api: Api) -> Answer:
    return await api.post("/api-keys", {"label": "A. Person", "scopes": ["read"]})


async def relabel_key(api: Api) -> Answer:
    body = json.dumps({"id": key_id(api), "label": "A. Person"}).encode()
    return await api.request("PATCH", "/api-keys", content=body)


async def revoke_key(api: Api) -> Answer:
    return await api.delete(f"/api-keys?id={await add_key(api)}")


async def erase(api: Api) -> Answer:
    data_of(await api.post("/entities", player("A. Person")), 201)
    return await api.delete("/entities/A.%20Person")


async def reveal(api: Api) -> Answer:
    data_of(await api.post("/entities", player("A. Person", first_name="A.")), 201)
    return await api.get("/entities/A.%20Person")


RECORDED: dict[str, tuple[str, Callable[[Api], Awaitable[Answer]]]] = {
    "put_settings": ("settings.changed", change_settings),
    "create_key": ("key.created", create_key),
    "relabel_key": ("key.relabelled", relabel_key),
    "revoke_key": ("key.revoked", revoke_key),
    "delete_entity": ("entity.erased", erase),
    "get_entity": ("personal.revealed", reveal),
}


def test_every_endpoint_for_administrators_is_known_to_these_tests() -> None:
    for_administrators = {row.name for row in ENDPOINTS if row.scopes == ("admin",)}
    assert for_administrators <= RECORDED.keys() | READING


@pytest.mark.parametrize("name", RECORDED)
async def test_an_action_leaves_one_entry_that_names_nobody(api: Api, name: str) -> None:
    action, act = RECORDED[name]
    answer = await act(api)
    assert answer.status_code in (200, 201), answer.text
    entries = await log_of(api, action=action)
    [entry] = entries
    assert entry["actor"] == f"key:{key_id(api)}"
    assert stored(api)[-1] == (action, entry["subject"])
    assert "Person" not in repr(api.rows("SELECT * FROM audit_log"))


async def test_an_entry_says_what_was_acted_on(api: Api) -> None:
    for name in ("put_settings", "create_key", "relabel_key", "revoke_key", "delete_entity"):
        assert (await RECORDED[name][1](api)).is_success
    [(erased,)] = api.rows("SELECT entity_id FROM entities")
    [(made,)] = api.rows(
        "SELECT key_id FROM api_keys WHERE revoked_at_ms IS NULL AND scopes = 'read'"
    )
    settings, created, relabelled, second, revoked, gone = await log_of(api)
    assert settings["detail"] == {"dataRetentionDays": 90}
    assert settings["subject"] is None
    assert created["subject"] == made
    assert created["detail"] == {"expiresAt": None, "scopes": ["read"]}
    assert (relabelled["subject"], relabelled["detail"]) == (key_id(api), {})
    assert second["action"] == "key.created"
    assert revoked["subject"] == second["subject"]
    assert (gone["subject"], gone["detail"]) == (erased, {})


async def test_an_operator_sees_its_own_part_and_can_check_it(api: Api, other_api: Api) -> None:
    for act in (erase, reveal, change_settings):
        assert (await act(api)).is_success
    data_of(await change_settings(other_api))
    assert [one["action"] for one in await log_of(other_api)] == ["settings.changed"]
    answer = await api.get("/audit")
    page = msgspec.json.decode(answer.content, type=dict[str, msgspec.Raw])
    listed = msgspec.json.decode(page["data"], type=dict[str, msgspec.Raw])
    items = msgspec.json.decode(listed["items"], type=list[dict[str, msgspec.Raw]])
    [(operator_id,)] = api.rows("SELECT operator_id FROM operators WHERE name = ?", api.operator)
    times = dict(api.rows("SELECT seq, at_ms FROM audit_log WHERE operator_id = ?", operator_id))
    head = Head(operator_id)
    for item in reversed(items):
        text = {name: json.loads(bytes(value)) for name, value in item.items()}
        record = Record(
            *(operator_id, text["seq"], times[text["seq"]], text["action"], text["actor"]),
            *(text["subject"], bytes(item["detail"]).decode(), bytes.fromhex(text["hash"])),
        )
        assert flaw(record, head) is None
        head = head_at(record)
    assert head.seq == 4


async def test_it_is_listed_by_action_and_time_and_in_pages(api: Api) -> None:
    for days in (1, 2, 3):
        data_of(await api.put("/settings", {"dataRetentionDays": days}))
    await add_key(api)
    seen: list[int] = []
    params: dict[str, Any] = {"limit": 2, "action": "settings.changed"}
    while True:
        page = await api.data("/audit", params=params)
        seen += [one["seq"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        params["cursor"] = page["nextCursor"]
    assert seen == [4, 3, 2, 1]
    newest = (await api.data("/audit", params={"limit": 1}))["items"][0]
    assert newest["action"] == "key.created"
    since = await api.data("/audit", params={"from": newest["at"]})
    assert newest in since["items"]
    assert newest not in (await api.data("/audit", params={"to": newest["at"]}))["items"]


@pytest.mark.parametrize(
    ("query", "named"),
    [("action=keys", "action"), ("from=now", "from"), ("cursor=x", "cursor"), ("limit=0", "limit")],
)
async def test_a_parameter_that_is_not_right_is_named(api: Api, query: str, named: str) -> None:
    assert named in error_of(await api.get(f"/audit?{query}"), 400, "INVALID_INPUT")


async def test_it_is_for_administrators(api: Api) -> None:
    made = data_of(await api.post("/api-keys", {"label": "r", "scopes": ["read"]}), 201)
    headers = {"Authorization": f"Bearer {made['key']}"}
    error_of(await api.get("/audit", headers=headers), 403, "FORBIDDEN")


async def test_what_is_refused_undone_or_answered_before_is_not_recorded(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    error_of(await api.delete("/entities/nobody"), 404, "NOT_FOUND")
    error_of(await api.delete(f"/api-keys?id={key_id(api)}"), 409, "CONFLICT")
    error_of(await api.put("/settings", {"templateId": "none"}), 400, "INVALID_INPUT")
    data_of(await api.put("/settings", {}))
    assert stored(api) == []
    for _ in range(3):
        data_of(await api.delete("/entities/p", headers={"Idempotency-Key": "once"}))
    assert [action for action, _ in stored(api)] == ["entity.erased"]


async def test_with_the_store_failing_there_is_neither_action_nor_entry(api: Api) -> None:
    before = api.rows("SELECT count(*) FROM api_keys")
    with api.stored.failing_writes("audit_log"):
        error_of(await create_key(api), 500, "INTERNAL_ERROR")
        error_of(await change_settings(api), 500, "INTERNAL_ERROR")
    assert api.rows("SELECT count(*) FROM api_keys") == before
    assert api.rows("SELECT data_retention_days FROM operators WHERE name = 'ours'") == [(None,)]
    assert stored(api) == []


async def test_an_entity_without_personal_fields_is_no_reveal(api: Api) -> None:
    item = {"entityType": "game", "externalId": "g", "data": {"name": "Chess"}}
    data_of(await api.post("/entities", item), 201)
    data_of(await api.get("/entities/g"))
    data_of(await api.get("/entities"))
    assert stored(api) == []


async def test_many_reveals_at_once_share_entries_and_none_is_left_out(api: Api) -> None:
    people = [player(f"p{at}", first_name="A") for at in range(40)]
    all_succeeded(await api.post("/batch/entities", people), 40)
    for answer in await asyncio.gather(*(api.get(f"/entities/p{at}") for at in range(40))):
        assert data_of(answer)["data"]["first_name"] == "A"
    entries = await log_of(api, action="personal.revealed")
    assert len(entries) < 40
    revealed = [one for entry in entries for one in entry["detail"]["entities"]]
    assert sorted(revealed) == sorted(one for (one,) in api.rows("SELECT entity_id FROM entities"))


async def test_what_cannot_be_recorded_is_not_revealed(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, busy_timeout_s=0.2) as (api, _):
        data_of(await api.post("/entities", player("p", first_name="Aurelie")), 201)
        with api.stored.locked():
            refused = await api.get("/entities/p")
        error_of(refused, 503, "UNAVAILABLE")
        assert "Aurelie" not in refused.text
        assert refused.headers["retry-after"]
        assert stored(api) == []
        assert data_of(await api.get("/entities/p"))["data"]["first_name"] == "Aurelie"
        assert [action for action, _ in stored(api)] == ["personal.revealed"]


async def test_who_is_erased_while_a_reveal_is_recorded_is_shown_to_nobody(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W51: what an erasure that was acknowledged has taken is in no answer that comes after it."""
    data_of(await api.post("/entities", player("p", first_name="Aurelie")), 201)
    record = Reveals.record

    async def slowly(reveals: Reveals, *arguments: Any) -> None:
        data_of(await api.delete("/entities/p"))
        await record(reveals, *arguments)

    monkeypatch.setattr(Reveals, "record", slowly)
    answer = await api.get("/entities/p")
    error_of(answer, 404, "NOT_FOUND")
    assert "Aurelie" not in answer.text
