"""Erasing a person: what is gone, from where, and what stays."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import all_succeeded, batch_of, data_of, error_of
from tests.wire.database import raw_bytes, row_counts

pytestmark = pytest.mark.clause("W51")

PERSONAL = {"first_name": "Aurelie", "last_name": "Montgolfier", "phone": "+44 7700 900123"}
NONCE_AT = 5
"""A sealed record begins with a version and a key id, which all of them share."""


def sealed_records(api: Api) -> set[bytes]:
    return {sealed for (sealed,) in api.rows("SELECT sealed FROM entities") if sealed}


def traces(records: Iterable[bytes], stored: bytes, size: int = 16) -> set[bytes]:
    """Those records of which so many bytes in a row, and some more, are still there."""
    return {
        record
        for record in records
        if any(
            record[at : at + size] in stored
            for at in range(NONCE_AT, len(record) - size + 1, size // 2)
        )
    }


async def erased_in_time(api: Api, left_in: Callable[[bytes], object]) -> None:
    """What is looked for leaves what the store holds as soon as its documentation says."""
    deadline = time.monotonic() + api.stored.erased_within_s
    while left := left_in(api.stored.held_bytes("entities")):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


async def test_the_sealed_bytes_leave_the_database_with_its_log_or_its_old_versions(
    api: Api, other_api: Api
) -> None:
    names = [f"p{n}" for n in range(50)]
    all_succeeded(await api.post("/batch/entities", [player(n, **PERSONAL) for n in names]), 50)
    data_of(await other_api.post("/entities", player("p7", **PERSONAL)), 201)
    await api.post("/batch/entities", [player("p7", **PERSONAL, note=1)])
    erased_id = "SELECT sealed FROM entities WHERE external_id = 'p7' AND operator_id = 2"
    [(erased,)] = api.rows(erased_id)
    assert traces([erased], raw_bytes(api)) == {erased}

    data_of(await api.delete("/entities/p7"))

    assert api.rows(erased_id) == [(None,)]
    await erased_in_time(api, lambda held: traces([erased], held))
    # Nobody else lost anything.
    assert len(sealed_records(api)) == 50
    assert (await api.data("/entities/p8"))["data"]["phone"] == PERSONAL["phone"]
    assert (await other_api.data("/entities/p7"))["data"]["phone"] == PERSONAL["phone"]


async def test_earlier_versions_leave_with_it(api: Api) -> None:
    every: set[bytes] = set()
    for version in range(20):
        long_or_short = "x" * (version * 37 % 400)
        item = player("p", **PERSONAL, last_name_at_birth=version) | {}
        item["data"]["email"] = long_or_short
        all_succeeded(await api.post("/batch/entities", [item]), 1)
        every |= sealed_records(api)
    assert len(every) == 20

    data_of(await api.delete("/entities/p"))

    await erased_in_time(api, lambda held: traces(every, held))


async def test_no_whole_record_stays_behind_where_rows_were_moved_about(api: Api) -> None:
    # Rows that grow and shrink are moved between pages by the database, which leaves broken pieces of
    # them in unused bytes; docs/operating.md says so, and what clears those.
    names = [f"p{n}" for n in range(300)]
    every: set[bytes] = set()
    for version, length in enumerate((10, 60, 200, 20, 500, 30)):
        items = [
            player(name, first_name="x" * (length + (at * 7 + version) % 30))
            for at, name in enumerate(names)
        ]
        all_succeeded(await api.post("/batch/entities", items), 300)
        every |= sealed_records(api)
    assert len(every) == 1_800

    for name in names:
        data_of(await api.delete(f"/entities/{name}"))

    assert sealed_records(api) == set()
    await erased_in_time(api, lambda held: [record for record in every if record in held])


async def test_the_tombstone_keeps_the_record_and_nothing_to_recognise_the_person(
    api: Api,
) -> None:
    made = data_of(await api.post("/entities", player("p", **PERSONAL)), 201)
    [(fingerprint,)] = api.rows("SELECT fingerprint FROM entities")
    assert fingerprint in raw_bytes(api)

    data_of(await api.delete("/entities/p"))

    columns = "external_id, entity_id, entity_type, sealed, fingerprint, deleted_at_ms IS NOT NULL"
    rows = api.rows(f"SELECT {columns} FROM entities")
    assert rows == [("p", made["id"], "player", None, None, 1)]
    [(data,)] = api.rows("SELECT data FROM entities")
    assert {json.loads(data).get(name) for name in (*PERSONAL, "email")} == {"[encrypted]"}
    await erased_in_time(api, lambda held: fingerprint in held)


async def test_an_erased_entity_and_all_of_its_can_no_longer_be_read(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    all_succeeded(await api.post("/batch/events", [deposit("p")]), 1)
    all_succeeded(await api.post("/batch/states", [state("p", 1)]), 1)

    data_of(await api.delete("/entities/p"))

    for path in ("", "/events", "/state", "/state/balance"):
        message = error_of(await api.get(f"/entities/p{path}"), 404, "NOT_FOUND")
        assert message == "Entity not found"
    assert await api.data("/entities") == {"items": [], "nextCursor": None}


@pytest.mark.clause("W23", "W27", "W28")
async def test_later_events_and_states_for_it_are_not_found(api: Api) -> None:
    all_succeeded(await api.post("/batch/entities", [player("p"), player("q")]), 2)
    data_of(await api.delete("/entities/p"))
    before = row_counts(api)

    events = batch_of(await api.post("/batch/events", [deposit("p"), deposit("q")]), 2)
    states = batch_of(await api.post("/batch/states", [state("q", 1), state("p", 1)]), 2)
    event = await api.post("/entities/p/events", {"eventType": "session", "data": {}})
    value = await api.put("/entities/p/state/balance", 1)

    assert [(one["index"], one["code"]) for one in events["errors"]] == [(0, "NOT_FOUND")]
    assert [(one["index"], one["code"]) for one in states["errors"]] == [(1, "NOT_FOUND")]
    for answer in (event, value):
        error_of(answer, 404, "NOT_FOUND")
    after = {**before, "events": before["events"] + 1, "states": before["states"] + 1}
    assert row_counts(api) == after


@pytest.mark.clause("W26")
async def test_who_comes_back_brings_nothing_of_the_erased_one_along(api: Api) -> None:
    data_of(await api.post("/entities", player("p", **PERSONAL)), 201)
    erased = sealed_records(api)
    data_of(await api.delete("/entities/p"))
    data_of(await api.post("/entities", player("p", first_name="Somebody")), 201)
    found = await api.data("/entities/p")
    assert found["data"] == player("p", first_name="Somebody")["data"]
    await erased_in_time(api, lambda held: traces(erased, held))


@pytest.mark.clause("W40", "W41")
async def test_the_answer_of_an_erasure_is_replayed_without_the_person(api: Api) -> None:
    keyed = {"Idempotency-Key": "k"}
    await api.post("/entities", player("p", **PERSONAL), headers={"Idempotency-Key": "made"})
    erased = sealed_records(api)
    first = await api.delete("/entities/p", headers=keyed)
    again = await api.delete("/entities/p", headers=keyed)
    assert again.content == first.content
    await erased_in_time(api, lambda held: traces(erased, held))
    stored = raw_bytes(api)
    for text in PERSONAL.values():
        assert text.encode() not in stored
