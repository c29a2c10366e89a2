"""Operators, their limits and their keys."""

from __future__ import annotations

import msgspec
import pytest

from opdata.errors import Conflict
from opdata.keys import hash_key, new_key
from opdata.model import ApiKey, Operator, OperatorSettings, Quota
from opdata.storage.base import Store
from tests.contract.conftest import Opener
from tests.contract.tenant import NOW_MS, Tenant


async def test_an_operator_reads_back_as_it_was_created(store: Store) -> None:
    salt = bytes(range(100, 132))
    made = await store.create_operator("Acme & Söhne", salt, NOW_MS)
    assert made == Operator(
        made.operator_id, "Acme & Söhne", salt, OperatorSettings(None, None, None), {}, NOW_MS
    )
    assert await store.operator(made.operator_id) == made
    assert list(await store.operators()) == [made]


async def test_a_taken_name_is_a_conflict_and_the_operator_stays(store: Store) -> None:
    made = await store.create_operator("acme", bytes(32), NOW_MS)
    with pytest.raises(Conflict):
        await store.create_operator("acme", bytes(range(32)), NOW_MS + 1)
    assert list(await store.operators()) == [made]
    await store.create_operator("Acme", bytes(32), NOW_MS)


async def test_operators_come_by_id(store: Store) -> None:
    names = ["c", "a", "b"]
    ids = [(await store.create_operator(name, bytes(32), NOW_MS)).operator_id for name in names]
    assert ids == sorted(set(ids))
    assert [operator.name for operator in await store.operators()] == names


async def test_an_unknown_operator_is_none(store: Store) -> None:
    assert await store.operator(12_345) is None
    assert list(await store.operators()) == []


async def test_limits_are_replaced_as_a_whole(ours: Tenant, theirs: Tenant, reopen: Opener) -> None:
    """W60: per operator too."""
    store = ours.store
    await store.set_limits(ours.id, {"read": Quota(5, 60), "admin": Quota(1, 1)})
    await store.set_limits(ours.id, {"read": Quota(6, 60)})
    for one in (store, await reopen()):
        operator = await one.operator(ours.id)
        assert operator is not None
        assert operator.limits == {"read": Quota(6, 60)}
        other = await one.operator(theirs.id)
        assert other is not None
        assert other.limits == {}
    await store.set_limits(ours.id, {})
    operator = await store.operator(ours.id)
    assert operator is not None
    assert operator.limits == {}


# -- keys ----------------------------------------------------------------------------------------


async def test_a_key_authenticates_as_its_operator(ours: Tenant, theirs: Tenant) -> None:
    """W3."""
    await theirs.add_key()
    made = await ours.add_key("my label")
    found = await ours.store.authenticate(hash_key(made.key), NOW_MS)
    assert found is not None
    key, operator = found
    assert operator == ours.operator
    assert key == ApiKey(made.key_id, ours.id, "my label", made.masked_key, NOW_MS, None, None)


async def test_a_hash_of_no_key_authenticates_nobody(ours: Tenant) -> None:
    """W3."""
    made = await ours.add_key()
    assert await ours.store.authenticate(hash_key(new_key().key), NOW_MS) is None
    assert await ours.store.authenticate(b"", NOW_MS) is None
    assert await ours.store.authenticate(made.key_hash[:-1], NOW_MS) is None


async def test_authentication_sees_settings_and_limits_as_they_are_now(ours: Tenant) -> None:
    made = await ours.add_key()
    await ours.store.set_limits(ours.id, {"read": Quota(5, 60)})
    found = await ours.store.authenticate(made.key_hash, NOW_MS)
    assert found is not None
    assert found[1].limits == {"read": Quota(5, 60)}


async def test_a_revoked_key_authenticates_nobody_and_stays_listed(
    ours: Tenant, reopen: Opener
) -> None:
    """W3."""
    made, other = await ours.add_key("first"), await ours.add_key("second", NOW_MS + 1)
    key = await ours.store.revoke_key(ours.id, made.key_id, NOW_MS + 5)
    assert key is not None
    assert key.revoked_at_ms == NOW_MS + 5
    for store in (ours.store, await reopen()):
        assert await store.authenticate(made.key_hash, NOW_MS) is None
        assert await store.authenticate(other.key_hash, NOW_MS) is not None
    listed = await ours.store.keys(ours.id)
    assert [(one.label, one.revoked_at_ms) for one in listed] == [
        ("first", NOW_MS + 5),
        ("second", None),
    ]


async def test_revoking_twice_changes_nothing(ours: Tenant) -> None:
    made = await ours.add_key()
    await ours.add_key()
    first = await ours.store.revoke_key(ours.id, made.key_id, NOW_MS)
    assert await ours.store.revoke_key(ours.id, made.key_id, NOW_MS + 9) == first


async def test_the_last_active_key_is_not_revoked_unless_told_so(ours: Tenant) -> None:
    """WIRE.md §4."""
    revoke = ours.store.revoke_key
    keys = [await ours.add_key(), await ours.add_key()]
    await revoke(ours.id, keys[0].key_id, NOW_MS)
    with pytest.raises(Conflict):
        await revoke(ours.id, keys[1].key_id, NOW_MS)
    assert await ours.store.authenticate(keys[1].key_hash, NOW_MS) is not None
    # Revoking a revoked one is no offence, even while it is not the last.
    assert await revoke(ours.id, keys[0].key_id, NOW_MS) is not None
    await revoke(ours.id, keys[1].key_id, NOW_MS, keep_last=False)
    assert await ours.store.authenticate(keys[1].key_hash, NOW_MS) is None


async def test_a_key_of_another_operator_does_not_keep_the_last_one_revocable(
    ours: Tenant, theirs: Tenant
) -> None:
    await theirs.add_key()
    only = await ours.add_key()
    with pytest.raises(Conflict):
        await ours.store.revoke_key(ours.id, only.key_id, NOW_MS)


async def test_an_unknown_key_is_neither_relabelled_nor_revoked(ours: Tenant) -> None:
    await ours.add_key()
    assert await ours.store.relabel_key(ours.id, "key_unknown", "label") is None
    assert await ours.store.revoke_key(ours.id, "key_unknown", NOW_MS) is None


async def test_keys_come_oldest_first_and_can_be_relabelled(ours: Tenant) -> None:
    made = {at: await ours.add_key(f"label {at}", NOW_MS + at) for at in (3, 1, 2)}
    relabelled = await ours.store.relabel_key(ours.id, made[1].key_id, "new ✓")
    assert relabelled is not None
    assert relabelled.label == "new ✓"
    labels = [key.label for key in await ours.store.keys(ours.id)]
    assert labels == ["new ✓", "label 2", "label 3"]
    assert await ours.store.authenticate(made[1].key_hash, NOW_MS) is not None


async def test_last_use_moves_forward_only(ours: Tenant, theirs: Tenant) -> None:
    used, unused = await ours.add_key("used"), await ours.add_key("unused", NOW_MS + 1)
    other = await theirs.add_key()
    for at_ms in (NOW_MS + 5, NOW_MS + 9, NOW_MS + 7):
        await ours.store.touch_keys({used.key_id: at_ms, other.key_id: at_ms, "unknown": at_ms})
    await ours.store.touch_keys({})
    assert [key.last_used_at_ms for key in await ours.store.keys(ours.id)] == [NOW_MS + 9, None]
    assert [key.last_used_at_ms for key in await ours.store.keys(theirs.id)] == [NOW_MS + 9]
    found = await ours.store.authenticate(unused.key_hash, NOW_MS)
    assert found is not None
    assert found[0].last_used_at_ms is None


async def test_touching_a_key_leaves_all_else_of_it(ours: Tenant) -> None:
    made = await ours.add_key()
    [before] = await ours.store.keys(ours.id)
    await ours.store.touch_keys({made.key_id: NOW_MS + 1})
    [after] = await ours.store.keys(ours.id)
    assert after == msgspec.structs.replace(before, last_used_at_ms=NOW_MS + 1)
