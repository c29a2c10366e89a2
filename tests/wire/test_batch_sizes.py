"""How many items a batch may have, and the shape of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import all_succeeded, batch_of, data_of, error_of
from tests.wire.database import live_entities, row_counts

Maker = Callable[[int], dict[str, Any]]

KINDS: list[tuple[str, int, Maker]] = [
    ("entities", 1_000, lambda n: player(f"p{n}")),
    ("events", 5_000, lambda n: deposit("p", n)),
    ("states", 1_000, lambda n: state(f"p{n}", n)),
]


@pytest.mark.clause("W20", "W21")
@pytest.mark.parametrize(("kind", "most", "item"), KINDS)
async def test_the_maximum_is_taken_and_one_more_is_not(
    api: Api, kind: str, most: int, item: Maker
) -> None:
    if kind == "events":
        data_of(await api.post("/entities", player("p")), 201)
    if kind == "states":
        all_succeeded(
            await api.post("/batch/entities", [player(f"p{n}") for n in range(most)]), most
        )
    before = row_counts(api)

    refused = await api.post(f"/batch/{kind}", [item(n) for n in range(most + 1)])

    message = error_of(refused, 400, "INVALID_INPUT")
    assert str(most) in message
    assert str(most + 1) in message
    assert row_counts(api) == before

    all_succeeded(await api.post(f"/batch/{kind}", [item(n) for n in range(most)]), most)
    assert row_counts(api)[kind] == before[kind] + most


@pytest.mark.clause("W20")
@pytest.mark.parametrize("kind", ["entities", "events", "states"])
async def test_what_is_no_array_of_items_is_refused(api: Api, kind: str) -> None:
    before = row_counts(api)
    for body in (b"[]", b" [ ] ", b"{}", b"null", b"true", b"0", b'"[]"', b'{"items":[{}]}'):
        error_of(await api.post(f"/batch/{kind}", body), 400, "INVALID_INPUT")
    assert row_counts(api) == before


@pytest.mark.clause("W20", "W22")
@pytest.mark.parametrize(("kind", "most", "item"), KINDS)
async def test_too_many_items_are_refused_whatever_they_are(
    api: Api, kind: str, most: int, item: Maker
) -> None:
    before = row_counts(api)
    message = error_of(await api.post(f"/batch/{kind}", [5] * (most + 1)), 400, "INVALID_INPUT")
    assert str(most + 1) in message
    data = batch_of(await api.post(f"/batch/{kind}", [5] * most), most)
    assert data["failed"] == most
    assert row_counts(api) == {**before, "jobs": before["jobs"] + (kind == "entities")}


@pytest.mark.clause("W21")
async def test_the_members_of_the_answer_come_in_order(api: Api) -> None:
    entities = data_of(await api.post("/batch/entities", [player("p"), 5]))
    events = data_of(await api.post("/batch/events", [deposit("p"), 5]))
    states = data_of(await api.post("/batch/states", [state("p", 1), 5]))
    assert list(entities) == ["jobId", "succeeded", "failed", "errors"]
    assert list(events) == list(states) == ["succeeded", "failed", "errors"]
    for data in (entities, events, states):
        assert (data["succeeded"], data["failed"]) == (1, 1)


@pytest.mark.clause("W21", "W23")
async def test_bad_items_never_stop_their_neighbours(api: Api) -> None:
    items = [player(f"p{n}") if n % 3 else {"externalId": f"p{n}"} for n in range(300)]
    data = batch_of(await api.post("/batch/entities", items), 300)
    assert (data["succeeded"], data["failed"]) == (200, 100)
    assert [error["index"] for error in data["errors"]] == list(range(0, 300, 3))
    assert [error["externalId"] for error in data["errors"]] == [f"p{n}" for n in range(0, 300, 3)]
    assert live_entities(api) == sorted(f"p{n}" for n in range(300) if n % 3)
