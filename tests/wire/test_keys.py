"""Keys: making, listing, relabelling and revoking them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, serving_api
from tests.wire.answers import KEY_ID, TIME, data_of, error_of

pytestmark = pytest.mark.clause("W3")

MEMBERS = [
    *("id", "label", "maskedKey", "createdAt", "lastUsedAt", "revokedAt"),
    *("scopes", "expiresAt"),
]


async def made_key(api: Api, label: str) -> dict[str, str]:
    made = data_of(await api.post("/api-keys", {"label": label}), 201)
    assert isinstance(made, dict)
    return made


def stored_keys(api: Api) -> list[tuple[Any, ...]]:
    return api.rows(
        "SELECT key_id, label, revoked_at_ms IS NOT NULL FROM api_keys"
        " JOIN operators USING (operator_id) WHERE name = ? ORDER BY api_keys.created_at_ms, key_id",
        api.operator,
    )


async def test_a_new_key_is_shown_once_and_works(api: Api) -> None:
    answer = await api.post("/api-keys", {"label": "Nightly sync"})

    made = data_of(answer, 201)
    assert list(made) == ["id", "key", "label", "createdAt", "scopes", "expiresAt"]
    assert made["label"] == "Nightly sync"
    assert len(made["key"]) == len("oh_live_") + 64
    shown = {"Authorization": f"Bearer {made['key']}"}
    assert (await api.get("/settings", headers=shown)).status_code == 200
    assert made["key"] not in (await api.get("/api-keys")).text
    assert (made["id"], "Nightly sync", 0) in stored_keys(api)


async def test_keys_are_listed_oldest_first_and_masked(api: Api) -> None:
    made = [await made_key(api, label) for label in ("second", "third")]

    listed = await api.data("/api-keys")

    assert all(list(key) == MEMBERS for key in listed)
    assert listed[0]["label"] == "test"
    assert sorted(key["label"] for key in listed[1:]) == ["second", "third"]
    assert [key["createdAt"] for key in listed] == sorted(key["createdAt"] for key in listed)
    for key in listed:
        assert KEY_ID.fullmatch(key["id"])
        assert TIME.fullmatch(key["createdAt"])
        assert key["lastUsedAt"] is key["revokedAt"] is None
    masks = {key["id"]: key["maskedKey"] for key in listed}
    for one in made:
        secret = one["key"].removeprefix("oh_live_")
        masked = masks[one["id"]]
        assert masked == f"oh_live_{secret[:4]}…{secret[-4:]}"


async def test_a_key_is_relabelled(api: Api) -> None:
    made = await made_key(api, "old")

    changed = data_of(
        await api.request("PATCH", "/api-keys", json={"id": made["id"], "label": "new"})
    )

    assert list(changed) == MEMBERS
    assert (changed["id"], changed["label"]) == (made["id"], "new")
    assert (made["id"], "new", 0) in stored_keys(api)


async def test_a_key_is_revoked_and_stays_in_the_list(api: Api) -> None:
    made = await made_key(api, "second")

    revoked = data_of(await api.delete(f"/api-keys?id={made['id']}"))
    again = data_of(await api.delete(f"/api-keys?id={made['id']}"))

    assert list(revoked) == MEMBERS
    assert TIME.fullmatch(revoked["revokedAt"])
    assert again == revoked
    assert revoked in await api.data("/api-keys")
    assert (made["id"], "second", 1) in stored_keys(api)


async def test_the_last_active_key_is_not_revocable(api: Api) -> None:
    made = await made_key(api, "second")
    [first] = [key["id"] for key in await api.data("/api-keys") if key["label"] == "test"]
    shown = {"Authorization": f"Bearer {made['key']}"}
    # A key may revoke itself, as long as another one is left.
    data_of(await api.delete(f"/api-keys?id={first}"))

    answer = await api.delete(f"/api-keys?id={made['id']}", headers=shown)

    error_of(answer, 409, "CONFLICT")
    assert "retry-after" not in answer.headers
    assert stored_keys(api) == [(first, "test", 1), (made["id"], "second", 0)]
    assert (await api.get("/settings", headers=shown)).status_code == 200


async def test_keys_of_another_operator_cannot_be_told_from_none(api: Api, other_api: Api) -> None:
    theirs = await made_key(other_api, "theirs")
    for key_id in (theirs["id"], "key_0000000000000000", "nonsense"):
        for answer in (
            await api.delete("/api-keys", params={"id": key_id}),
            await api.request("PATCH", "/api-keys", json={"id": key_id, "label": "mine"}),
        ):
            assert error_of(answer, 404, "NOT_FOUND") == "Key not found"
    assert theirs["id"] not in (await api.get("/api-keys")).text
    assert (theirs["id"], "theirs", 0) in stored_keys(other_api)


NO_LABELS = [
    b"",
    b"[]",
    b"{}",
    b'{"label":null}',
    b'{"label":5}',
    b'{"label":""}',
    b'{"label":"%s"}' % (b"x" * 101),
    b'{"label":"a\xff"}',
    rb'{"label":"a\u0000b"}',
    rb'{"label":"a\ud800b"}',
]


@pytest.mark.clause("W9")
async def test_a_label_that_is_none_is_refused(api: Api) -> None:
    before = stored_keys(api)
    [(key_id, _, _)] = before
    for body in NO_LABELS:
        error_of(await api.post("/api-keys", body), 400, "INVALID_INPUT")
        changing = body.replace(b"{", b'{"id":"%s",' % key_id.encode()).replace(b",}", b"}")
        error_of(await api.request("PATCH", "/api-keys", content=changing), 400, "INVALID_INPUT")
    assert stored_keys(api) == before


async def test_revoking_needs_an_id(api: Api) -> None:
    for path in ("/api-keys", "/api-keys?key=x", "/api-keys?id=a&id=b"):
        error_of(await api.delete(path), 400, "INVALID_INPUT")
    assert [revoked for *_, revoked in stored_keys(api)] == [0]


async def test_when_a_key_was_last_used_is_written_down(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db) as (api, other_api):
        await api.get("/settings")
        unused = await made_key(other_api, "unused")
    # Stopping the server writes it down, as the housekeeping does every few seconds.
    rows = api.rows("SELECT key_id, last_used_at_ms >= created_at_ms FROM api_keys")
    assert {used for key_id, used in rows if key_id != unused["id"]} == {1}
    assert (unused["id"], None) in rows


async def test_keys_are_not_under_the_base_path(api: Api) -> None:
    answer = await api.client.get("/operator-data-api/api-keys")
    error_of(answer, 404, "NOT_FOUND")
