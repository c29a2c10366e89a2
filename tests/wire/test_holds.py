"""An entity under a legal hold: what is refused, what is said, and what goes on."""

from __future__ import annotations

import pytest

from opdata.audit import SERVER
from opdata.erasure import lift_hold, place_hold
from opdata.storage import open_store
from tests.support.api import Api, deposit, player
from tests.wire.answers import all_succeeded, data_of, error_of

pytestmark = pytest.mark.clause("W53")

REASON = "case 2026-114 Montgolfier"
MESSAGE = "The entity is under legal hold and cannot be erased"


async def hold(api: Api, external_id: str, *, lift: bool = False) -> None:
    """Place a hold as an administrator does, beside the server."""
    store = await open_store(api.settings.database_url)
    try:
        [operator] = [one for one in await store.operators() if one.name == api.operator]
        if lift:
            assert await lift_hold(store, operator, external_id, actor=SERVER)
        else:
            assert await place_hold(store, operator, external_id, REASON, actor=SERVER)
    finally:
        await store.close()


async def test_it_is_not_erased_and_the_reason_is_not_told(api: Api) -> None:
    data_of(await api.post("/entities", player("p", first_name="Aurelie")), 201)
    before = api.rows("SELECT * FROM entities")
    await hold(api, "p")

    answer = await api.delete("/entities/p")

    assert error_of(answer, 409, "CONFLICT") == MESSAGE
    assert "retry-after" not in answer.headers
    assert REASON not in answer.text
    assert api.rows("SELECT * FROM entities") == before
    assert api.rows("SELECT count(*) FROM erasure_ledger") == [(0,)]
    assert (await api.data("/entities/p"))["data"]["first_name"] == "Aurelie"


async def test_everything_else_goes_on(api: Api, other_api: Api) -> None:
    for one in (api, other_api):
        data_of(await one.post("/entities", player("p")), 201)
    await hold(api, "p")
    assert data_of(await api.post("/entities", player("p", vip_level=3)))["action"] == "updated"
    all_succeeded(await api.post("/batch/events", [deposit("p")]), 1)
    data_of(await api.put("/entities/p/state/balance", 5))
    # Another operator's entity of that name is another one.
    data_of(await other_api.delete("/entities/p"))


async def test_it_is_erased_once_the_hold_is_lifted(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    await hold(api, "p")
    error_of(await api.delete("/entities/p"), 409, "CONFLICT")
    await hold(api, "p", lift=True)
    data_of(await api.delete("/entities/p"))
    assert api.rows("SELECT sealed FROM entities") == [(None,)]
    [(entity_id,)] = api.rows("SELECT entity_id FROM erasure_ledger")
    assert api.rows("SELECT entity_id FROM entities") == [(entity_id,)]


@pytest.mark.clause("W41")
async def test_the_refusal_is_the_answer_under_its_idempotency_key(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    await hold(api, "p")
    keyed = {"Idempotency-Key": "k"}
    first = await api.delete("/entities/p", headers=keyed)
    error_of(first, 409, "CONFLICT")
    await hold(api, "p", lift=True)

    again = await api.delete("/entities/p", headers=keyed)
    assert (again.status_code, again.content) == (409, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert (await api.data("/entities/p"))["externalId"] == "p"
    data_of(await api.delete("/entities/p", headers={"Idempotency-Key": "another"}))
