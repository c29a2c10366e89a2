"""Entities: upserts in batches and one by one, in order, and after an erasure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.api import PLAYER, Api, deposit, player, state
from tests.wire.answers import ENTITY_ID, TIME, all_succeeded, batch_of, data_of, error_of
from tests.wire.database import change, live_entities, row_counts

GAME = {"entityType": "game", "externalId": "p", "data": {"name": "Roulette"}}


def stored(api: Api, external_id: str) -> list[tuple[Any, ...]]:
    """Type, id and masked data of an entity's rows, dead ones included, oldest first."""
    return api.rows(
        "SELECT entity_type, entity_id, data, deleted_at_ms IS NULL FROM entities"
        " WHERE external_id = ? ORDER BY entity_no",
        external_id,
    )


def make_older(api: Api) -> None:
    """Move what is stored an hour back, so that a new time cannot be taken for an old one."""
    change(
        api,
        "UPDATE entities SET created_at_ms = created_at_ms - 3600000,"
        " updated_at_ms = updated_at_ms - 3600000",
    )


@pytest.mark.clause("W26")
async def test_a_first_upsert_creates(api: Api) -> None:
    answer = data_of(await api.post("/entities", player("p", vip_level=3)), 201)

    assert list(answer) == ["id", "externalId", "entityType", "action"]
    assert ENTITY_ID.fullmatch(answer["id"])
    assert (answer["externalId"], answer["entityType"]) == ("p", "player")
    assert answer["action"] == "created"
    masked = json.dumps({**PLAYER, "email": "[encrypted]", "vip_level": 3}, separators=(",", ":"))
    assert stored(api, "p") == [("player", answer["id"], masked, 1)]


@pytest.mark.clause("W26")
async def test_an_upsert_replaces_data_as_a_whole_and_keeps_id_and_creation(api: Api) -> None:
    made = data_of(await api.post("/entities", player("p", phone="1", vip_level=3)), 201)
    make_older(api)
    before = await api.data("/entities/p")

    changed = data_of(await api.post("/entities", player("p", country="MT")), 200)

    assert changed == {**made, "action": "updated"}
    after = await api.data("/entities/p")
    assert list(after) == ["id", "externalId", "entityType", "data", "created_at", "updated_at"]
    assert after["data"] == {**PLAYER, "country": "MT"}
    assert (after["id"], after["created_at"]) == (before["id"], before["created_at"])
    assert after["updated_at"] > before["updated_at"]
    assert len(stored(api, "p")) == 1


@pytest.mark.clause("W26")
async def test_an_upsert_sets_the_type(api: Api) -> None:
    made = data_of(await api.post("/entities", player("p", phone="1")), 201)
    changed = data_of(await api.post("/entities", GAME), 200)
    assert changed == {**made, "entityType": "game", "action": "updated"}
    found = await api.data("/entities/p")
    assert (found["entityType"], found["data"]) == ("game", {"name": "Roulette"})
    assert stored(api, "p") == [("game", made["id"], '{"name":"Roulette"}', 1)]
    assert api.rows("SELECT sealed FROM entities") == [(None,)]


@pytest.mark.clause("W26")
async def test_an_upsert_that_changes_nothing_leaves_the_time_of_update(api: Api) -> None:
    await api.post("/entities", player("p", first_name="Alice"))
    make_older(api)
    before = await api.data("/entities/p")
    assert (
        data_of(await api.post("/entities", player("p", first_name="Alice")))["action"] == "updated"
    )
    all_succeeded(await api.post("/batch/entities", [player("p", first_name="Alice")]), 1)
    assert await api.data("/entities/p") == before

    # A personal field alone, a type alone and the text of a number alone are changes.
    for item in (
        json.dumps(player("p", first_name="Alicia")),
        json.dumps(player("p", first_name="Alicia", x=0)).replace('"x": 0', '"x": 1.0'),
        json.dumps(player("p", first_name="Alicia", x=0)).replace('"x": 0', '"x": 1.00'),
    ):
        make_older(api)
        data_of(await api.post("/entities", item.encode()))
        after = await api.data("/entities/p")
        assert after["updated_at"] > before["updated_at"]
        assert after["created_at"] < before["created_at"]
    assert after["data"]["first_name"] == "Alicia"


@pytest.mark.clause("W26", "W27", "W28")
async def test_an_upsert_after_an_erasure_starts_a_new_entity(api: Api) -> None:
    first = data_of(await api.post("/entities", player("p", phone="1")), 201)
    await api.post("/batch/events", [deposit("p", 1)])
    await api.post("/batch/states", [state("p", 1)])
    data_of(await api.delete("/entities/p"))

    second = data_of(await api.post("/entities", player("p")), 201)

    assert second["action"] == "created"
    assert second["id"] != first["id"]
    assert (await api.data("/entities/p"))["data"] == PLAYER
    assert await api.data("/entities/p/events") == {"items": [], "nextCursor": None}
    assert await api.data("/entities/p/state") == []
    error_of(await api.get("/entities/p/state/balance"), 404, "NOT_FOUND")
    assert [(entity_id, live) for _, entity_id, _, live in stored(api, "p")] == [
        (first["id"], 0),
        (second["id"], 1),
    ]
    all_succeeded(await api.post("/batch/events", [deposit("p", 2)]), 1)
    [event] = (await api.data("/entities/p/events"))["items"]
    assert event["data"]["amount"] == 2


@pytest.mark.clause("W26")
async def test_an_erased_entity_can_come_back_in_a_batch_again_and_again(api: Api) -> None:
    ids = set()
    for _ in range(3):
        all_succeeded(await api.post("/batch/entities", [player("p"), player("q")]), 2)
        ids.add((await api.data("/entities/p"))["id"])
        data_of(await api.delete("/entities/p"))
    assert len(ids) == 3
    assert live_entities(api) == ["q"]
    assert len(stored(api, "p")) == 3


@pytest.mark.clause("W24")
async def test_of_entities_with_one_name_the_last_valid_one_wins(api: Api) -> None:
    items = [
        player("p", country="A", phone="1"),
        player("q", country="Q"),
        player("p", country="B"),
        {**player("p", country="C"), "entityType": "nonsense"},
        player("p", email=None, country="D"),
    ]
    data = batch_of(await api.post("/batch/entities", items), 5)

    assert data["succeeded"] == 3
    assert [error["index"] for error in data["errors"]] == [3, 4]
    found = await api.data("/entities/p")
    assert found["data"] == {**PLAYER, "country": "B"}
    assert live_entities(api) == ["p", "q"]
    assert len(stored(api, "p")) == 1


@pytest.mark.clause("W24")
async def test_of_entities_with_one_name_the_last_one_gives_the_type(api: Api) -> None:
    all_succeeded(await api.post("/batch/entities", [player("p"), GAME]), 2)
    assert (await api.data("/entities/p"))["entityType"] == "game"
    all_succeeded(await api.post("/batch/entities", [GAME, player("p"), GAME, player("p")]), 4)
    found = await api.data("/entities/p")
    assert (found["entityType"], found["data"]) == ("player", PLAYER)
    assert len(stored(api, "p")) == 1


@pytest.mark.clause("W24")
async def test_a_value_that_comes_and_goes_within_a_batch_ends_as_the_last_one(api: Api) -> None:
    data_of(await api.post("/entities", player("p", country="A")), 201)
    items = [player("p", country="B"), player("p", country="A")]
    all_succeeded(await api.post("/batch/entities", items), 2)
    assert (await api.data("/entities/p"))["data"]["country"] == "A"


async def test_every_type_of_the_template_is_taken(api: Api) -> None:
    items = [
        player("p"),
        {"entityType": "operator", "externalId": "o", "data": {"name": "House"}},
        {"entityType": "game", "externalId": "g", "data": {"name": "Slots", "rtp": 0.96}},
    ]
    for item in items:
        answer = data_of(await api.post("/entities", item), 201)
        assert answer["entityType"] == item["entityType"]
        assert (await api.data(f"/entities/{item['externalId']}"))["data"] == item["data"]
    assert live_entities(api) == ["g", "o", "p"]


async def test_what_is_no_entity_is_not_found(api: Api) -> None:
    before = row_counts(api)
    for method, path in (
        ("GET", "/entities/nobody"),
        ("DELETE", "/entities/nobody"),
        ("GET", "/entities/nobody/events"),
        ("GET", "/entities/nobody/state"),
        ("GET", "/entities/nobody/state/balance"),
    ):
        assert error_of(await api.request(method, path), 404, "NOT_FOUND") == "Entity not found"
    assert row_counts(api) == before


async def test_an_entity_is_deleted_once(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    assert data_of(await api.delete("/entities/p")) == {"externalId": "p", "deleted": True}
    error_of(await api.delete("/entities/p"), 404, "NOT_FOUND")
    assert [live for *_, live in stored(api, "p")] == [0]


async def test_entities_are_listed_by_name_and_type(api: Api) -> None:
    names = ["b", "a", "B", "ä", "😀", "\ufb01", "10", "9", " "]
    all_succeeded(await api.post("/batch/entities", [player(name) for name in names]), len(names))
    all_succeeded(await api.post("/batch/entities", [{**GAME, "externalId": "game"}]), 1)

    everything = await api.data("/entities")
    players = await api.data("/entities", params={"entityType": "player"})
    games = await api.data("/entities", params={"entityType": "game"})
    none = await api.data("/entities", params={"entityType": "nonsense"})

    assert list(everything) == ["items", "nextCursor"]
    assert [one["externalId"] for one in players["items"]] == sorted(names)
    assert [one["externalId"] for one in games["items"]] == ["game"]
    assert len(everything["items"]) == len(names) + 1
    assert none == {"items": [], "nextCursor": None}
    for one in everything["items"]:
        assert list(one) == ["id", "externalId", "entityType", "data", "created_at", "updated_at"]
        assert TIME.fullmatch(one["created_at"])
        assert TIME.fullmatch(one["updated_at"])
    assert {one["data"]["email"] for one in players["items"]} == {"[encrypted]"}
    assert live_entities(api) == sorted([*names, "game"])
