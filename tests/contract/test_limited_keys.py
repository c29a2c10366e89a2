"""Keys that may not do everything or not for ever, and operators whose keys are not taken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from opdata.errors import Conflict
from opdata.model import ALL_SCOPES, ApiKey, Scope, Suspension
from opdata.storage.base import Store
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Tenant, event_row

READ: frozenset[Scope] = frozenset({"read"})
SENDER: frozenset[Scope] = frozenset({"ingest"})
MANAGER: frozenset[Scope] = frozenset({"admin"})


async def listed(tenant: Tenant) -> Sequence[ApiKey]:
    return await tenant.store.keys(tenant.id)


# -- scopes and expiry ---------------------------------------------------------------------------


@pytest.mark.parametrize("scopes", [READ, READ | SENDER, MANAGER, ALL_SCOPES])
async def test_a_keys_limits_read_back_as_they_were_stored(
    ours: Tenant, reopen: Opener, scopes: frozenset[Scope]
) -> None:
    """W11, W12."""
    made = await ours.add_key(scopes=scopes, expires_at_ms=NOW_MS + 5)
    for store in (ours.store, await reopen()):
        found = await store.authenticate(made.key_hash, NOW_MS)
        assert found is not None
        [key] = await store.keys(ours.id)
        for one in (found[0], key):
            assert (one.scopes, one.expires_at_ms) == (scopes, NOW_MS + 5)


async def test_what_is_said_of_a_key_later_leaves_its_limits(ours: Tenant) -> None:
    made = await ours.add_key(scopes=READ, expires_at_ms=NOW_MS + 5)
    await ours.add_key()
    await ours.store.touch_keys({made.key_id: NOW_MS + 1})
    changed = [
        await ours.store.relabel_key(ours.id, made.key_id, "new"),
        await ours.store.revoke_key(ours.id, made.key_id, NOW_MS + 2),
        await ours.store.revoke_key(ours.id, made.key_id, NOW_MS + 3),
    ]
    assert [key and (key.scopes, key.expires_at_ms) for key in changed] == [(READ, NOW_MS + 5)] * 3


async def test_a_key_is_taken_until_the_millisecond_before_it_expires(ours: Tenant) -> None:
    """W12."""
    made = await ours.add_key(expires_at_ms=NOW_MS + 1_000)
    taken = [
        await ours.store.authenticate(made.key_hash, NOW_MS + after) is not None
        for after in (0, 999, 1_000, 1_001)
    ]
    assert taken == [True, True, False, False]
    assert [key.revoked_at_ms for key in await listed(ours)] == [None]


async def test_the_last_key_that_can_make_others_is_not_revoked_unless_told_so(
    ours: Tenant,
) -> None:
    """W11."""
    manager, sender = await ours.add_key(scopes=MANAGER), await ours.add_key(scopes=SENDER)
    with pytest.raises(Conflict, match="scope admin"):
        await ours.store.revoke_key(ours.id, manager.key_id, NOW_MS)
    assert [key.revoked_at_ms for key in await listed(ours)] == [None, None]
    # The other one can make none, and so may go.
    assert await ours.store.revoke_key(ours.id, sender.key_id, NOW_MS) is not None
    with pytest.raises(Conflict, match="last active key;"):
        await ours.store.revoke_key(ours.id, manager.key_id, NOW_MS)
    gone = await ours.store.revoke_key(ours.id, manager.key_id, NOW_MS, keep_last=False)
    assert gone is not None
    assert gone.revoked_at_ms == NOW_MS


async def test_a_key_of_all_scopes_keeps_a_manager_revocable(ours: Tenant) -> None:
    manager, _ = await ours.add_key(scopes=MANAGER), await ours.add_key()
    assert await ours.store.revoke_key(ours.id, manager.key_id, NOW_MS) is not None


async def test_keys_of_a_loader_are_rotated_where_the_operator_manages_none_itself(
    ours: Tenant,
) -> None:
    old, new = [await ours.add_key(scopes=SENDER) for _ in range(2)]
    assert await ours.store.revoke_key(ours.id, old.key_id, NOW_MS) is not None
    with pytest.raises(Conflict):
        await ours.store.revoke_key(ours.id, new.key_id, NOW_MS)


async def test_an_expired_key_keeps_nobody_in_and_can_always_be_revoked(ours: Tenant) -> None:
    """W12."""
    expired = await ours.add_key(expires_at_ms=NOW_MS)
    last = await ours.add_key(expires_at_ms=NOW_MS + 1)
    with pytest.raises(Conflict):
        await ours.store.revoke_key(ours.id, last.key_id, NOW_MS)
    assert await ours.store.revoke_key(ours.id, expired.key_id, NOW_MS) is not None


# -- suspension ----------------------------------------------------------------------------------


async def suspension_of(store: Store, tenant: Tenant) -> Suspension | None:
    operator = await store.operator(tenant.id)
    assert operator is not None
    return operator.suspension


async def test_no_key_of_a_suspended_operator_is_taken_until_it_is_resumed(
    ours: Tenant, theirs: Tenant, reopen: Opener
) -> None:
    """W12."""
    keys = [await ours.add_key(), await ours.add_key()]
    other = await theirs.add_key()
    await ours.store.suspend_operator(ours.id, "unpaid ü", NOW_MS + 1)
    for store in (ours.store, await reopen()):
        assert [await store.authenticate(key.key_hash, NOW_MS) for key in keys] == [None, None]
        assert await store.authenticate(other.key_hash, NOW_MS) is not None
        assert await suspension_of(store, ours) == Suspension(NOW_MS + 1, "unpaid ü")
        assert await suspension_of(store, theirs) is None
    assert [operator.suspension for operator in await ours.store.operators()] == [
        Suspension(NOW_MS + 1, "unpaid ü"),
        None,
    ]

    await ours.store.resume_operator(ours.id)

    for store in (ours.store, await reopen()):
        found = await store.authenticate(keys[0].key_hash, NOW_MS)
        assert found is not None
        assert found[1] == ours.operator


async def test_suspending_again_replaces_the_reason_and_not_the_time(ours: Tenant) -> None:
    for at, reason in enumerate((None, "first", None, "second")):
        await ours.store.suspend_operator(ours.id, reason, NOW_MS + at)
    assert await suspension_of(ours.store, ours) == Suspension(NOW_MS, "second")
    await ours.store.resume_operator(ours.id)
    await ours.store.resume_operator(ours.id)
    await ours.store.suspend_operator(ours.id, None, NOW_MS + 9)
    assert await suspension_of(ours.store, ours) == Suspension(NOW_MS + 9, None)


async def test_a_suspension_leaves_all_data_and_what_is_under_way_is_written(ours: Tenant) -> None:
    """W12."""
    await ours.create("p1")
    await ours.append(event_row("p1", "1"))
    await ours.store.suspend_operator(ours.id, None, NOW_MS)
    await ours.append(event_row("p1", "2"))
    assert await ours.event_data("p1") == ["2", "1"]
