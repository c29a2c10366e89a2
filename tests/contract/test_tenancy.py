"""One operator sees and touches nothing of another (W3)."""

from __future__ import annotations

from opdata.errors import Conflict
from opdata.storage.reads import JobQuery
from opdata.storage.work import ChangeSettings, Reply
from tests.contract.tenant import (
    NOW_MS,
    Seal,
    Tenant,
    claim,
    entity_row,
    event_row,
    job_draft,
    state_row,
)


async def test_one_external_id_of_two_operators_is_two_entities(
    ours: Tenant, theirs: Tenant
) -> None:
    await ours.upsert(entity_row("p1", '["ours"]'), seal=lambda _: [b"our seal"])
    written = await theirs.upsert(entity_row("p1", '["theirs"]'), seal=lambda _: [b"their seal"])
    assert written.outcome is not None
    assert list(written.outcome.created) == [True]
    mine, other = await ours.entity("p1"), await theirs.entity("p1")
    assert mine is not None
    assert other is not None
    assert mine.entity_id != other.entity_id
    assert (mine.data, mine.sealed) == ('["ours"]', b"our seal")
    assert (other.data, other.sealed) == ('["theirs"]', b"their seal")


async def test_another_operators_fingerprint_keeps_nobodys_row_from_being_written(
    ours: Tenant, theirs: Tenant
) -> None:
    row = entity_row("p1")
    await ours.upsert(row)
    seal = Seal()
    await theirs.upsert(row, seal=seal)
    assert seal.calls == [[0]]


async def test_nothing_of_another_operator_can_be_read(ours: Tenant, theirs: Tenant) -> None:
    draft = job_draft()
    await theirs.create("p1", job=draft)
    await theirs.append(event_row("p1"))
    await theirs.set_states(state_row("p1", "1"))
    assert await ours.entity("p1") is None
    assert await ours.listed() == []
    assert await ours.events("p1") is None
    assert await ours.store.states(ours.id, "p1") is None
    assert await ours.store.states(ours.id, "p1", "balance") is None
    assert await ours.store.job(ours.id, draft.job_id) is None
    assert (await ours.store.jobs(JobQuery(10, ours.id))).rows == []


async def test_nothing_of_another_operator_can_be_written(ours: Tenant, theirs: Tenant) -> None:
    await theirs.create("p1")
    await theirs.set_states(state_row("p1", "1"))
    assert (await ours.append(event_row("p1"))).refused == {0: "NOT_FOUND"}
    assert (await ours.set_states(state_row("p1", "2"))).refused == {0: "NOT_FOUND"}
    assert (await ours.delete("p1")).refused == {0: "NOT_FOUND"}
    assert await theirs.entity("p1") is not None
    assert await theirs.event_data("p1") == []
    assert await theirs.values("p1") == {"balance": "1"}


async def test_events_and_states_go_to_the_operators_own_entity_of_that_name(
    ours: Tenant, theirs: Tenant
) -> None:
    for tenant, data in ((ours, '"ours"'), (theirs, '"theirs"')):
        await tenant.create("p1")
        await tenant.append(event_row("p1", data))
        await tenant.set_states(state_row("p1", data))
    assert await ours.event_data("p1") == ['"ours"']
    assert await theirs.event_data("p1") == ['"theirs"']
    assert await ours.values("p1") == {"balance": '"ours"'}
    assert await theirs.values("p1") == {"balance": '"theirs"'}


async def test_erasing_an_entity_leaves_another_operators_of_that_name(
    ours: Tenant, theirs: Tenant
) -> None:
    for tenant in (ours, theirs):
        await tenant.upsert(entity_row("p1"), seal=Seal())
        await tenant.append(event_row("p1", "1"))
    await ours.delete("p1")
    entity = await theirs.entity("p1")
    assert entity is not None
    assert entity.sealed == b"sealed 0"
    assert await theirs.event_data("p1") == ["1"]


async def test_idempotency_keys_of_events_are_the_operators_own(
    ours: Tenant, theirs: Tenant
) -> None:
    """W42."""
    for tenant, data in ((ours, "1"), (theirs, "2")):
        await tenant.create("p1")
        written = await tenant.append(event_row("p1", data, key="k"))
        assert (written.refused, written.duplicates) == ({}, {})
    assert await ours.event_data("p1") == ["1"]
    assert await theirs.event_data("p1") == ["2"]


async def test_claims_are_the_operators_own(ours: Tenant, theirs: Tenant) -> None:
    """W40."""
    for tenant, body in ((ours, b"1"), (theirs, b"2")):
        written = await tenant.create("p1", claim=claim(body=body), reply=Reply(200, body))
        assert not written.reply.replayed
        assert (await tenant.create("p1", claim=claim(body=body))).reply.body == body


async def test_settings_are_the_operators_own(ours: Tenant, theirs: Tenant) -> None:
    await ours.change(ChangeSettings(template_id="tpl_1", data_retention_days=30))
    operator = await theirs.store.operator(theirs.id)
    assert operator == theirs.operator


async def test_keys_of_another_operator_are_not_listed_relabelled_or_revoked(
    ours: Tenant, theirs: Tenant
) -> None:
    store = ours.store
    await ours.add_key("ours")
    key, _ = await theirs.add_key("theirs"), await theirs.add_key("second", NOW_MS + 1)
    assert [one.label for one in await store.keys(ours.id)] == ["ours"]
    assert await store.relabel_key(ours.id, key.key_id, "stolen") is None
    try:
        assert await store.revoke_key(ours.id, key.key_id, NOW_MS) is None
    except Conflict as error:  # it would tell that the key exists
        raise AssertionError from error
    assert [one.label for one in await store.keys(theirs.id)] == ["theirs", "second"]
    assert await store.authenticate(key.key_hash, NOW_MS) is not None
