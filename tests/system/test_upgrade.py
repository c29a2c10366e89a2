"""A database that an older version made is brought up to date with what is in it."""

from __future__ import annotations

from pathlib import Path

from opdata.model import ALL_SCOPES
from opdata.storage import migrate_store, open_store
from tests.contract.tenant import NOW_MS, EventRow, Tenant, event_row
from tests.contract.test_listings import events_of
from tests.support.stored import stored_at


def rows() -> list[EventRow]:
    return [event_row("p", "1", key="k1"), event_row("p", "2"), event_row("p", "3", key="k3")]


async def test_events_are_given_the_keys_they_were_sent_under(tmp_path: Path, db: str) -> None:
    url = db or f"sqlite:///{tmp_path / 'opdata.db'}"
    store = await open_store(url)
    tenants = [
        Tenant(store, await store.create_operator(name, bytes(32), NOW_MS)) for name in ("a", "b")
    ]
    for tenant in tenants:
        await tenant.create("p")
        await tenant.append(*rows())
    await store.close()
    # As 0001 made it.
    stored = stored_at(url)
    stored.change("ALTER TABLE events DROP COLUMN idempotency_key")
    stored.change("DELETE FROM migrations WHERE name = '0002_listed_events.sql'")

    assert await migrate_store(url) == ["0002_listed_events.sql"]

    store = await open_store(url)
    for tenant in tenants:
        [page] = await events_of(tenant.through(store))
        assert [one.idempotency_key for one in page] == ["k1", None, "k3"]
        assert (await tenant.through(store).append(*rows())).duplicates.keys() == {0, 2}
    assert stored.problems() == []
    await store.close()


async def test_keys_may_do_everything_as_before_and_no_operator_is_suspended(
    tmp_path: Path, db: str
) -> None:
    """W11, W12."""
    url = db or f"sqlite:///{tmp_path / 'opdata.db'}"
    store = await open_store(url)
    tenant = Tenant(store, await store.create_operator("a", bytes(32), NOW_MS))
    made = await tenant.add_key("old")
    [before] = await store.keys(tenant.id)
    await store.close()
    # As 0002 made it.
    stored = stored_at(url)
    for table, column in (
        ("api_keys", "scopes"),
        ("api_keys", "expires_at_ms"),
        ("operators", "suspended_at_ms"),
        ("operators", "suspension_reason"),
    ):
        stored.change(f"ALTER TABLE {table} DROP COLUMN {column}")
    stored.change("DELETE FROM migrations WHERE name = '0003_limited_keys.sql'")

    assert await migrate_store(url) == ["0003_limited_keys.sql"]

    store = await open_store(url)
    found = await store.authenticate(made.key_hash, NOW_MS + 10**12)
    assert found == (before, tenant.operator)
    assert before.scopes == ALL_SCOPES
    limited = await tenant.through(store).add_key(scopes=frozenset({"read"}))
    assert [key.scopes for key in await store.keys(tenant.id) if key.key_id == limited.key_id] == [
        {"read"}
    ]
    assert stored.problems() == []
    await store.close()


async def test_erasures_of_before_there_was_a_ledger_are_entered_in_it(
    tmp_path: Path, db: str
) -> None:
    url = db or f"sqlite:///{tmp_path / 'opdata.db'}"
    store = await open_store(url)
    tenant = Tenant(store, await store.create_operator("a", bytes(32), NOW_MS))
    await tenant.create("p", "q")
    await tenant.delete("p", now_ms=NOW_MS + 5)
    before = await tenant.erasures()
    assert len(before) == 1
    await store.close()
    # As 0003 made it.
    stored = stored_at(url)
    for table in ("erasure_ledger", "legal_holds"):
        stored.change(f"DROP TABLE {table}")
    stored.change("DELETE FROM migrations WHERE name = '0004_erasure_ledger.sql'")

    assert await migrate_store(url) == ["0004_erasure_ledger.sql"]

    store = await open_store(url)
    tenant = tenant.through(store)
    assert await tenant.erasures() == before
    assert await tenant.held() == []
    assert await tenant.returned() == []
    assert stored.problems() == []
    await store.close()
