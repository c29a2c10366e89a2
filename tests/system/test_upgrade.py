"""A database that an older version made is brought up to date with what is in it."""

from __future__ import annotations

from pathlib import Path

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
    stored.change("DELETE FROM migrations WHERE name > '0002'")

    assert (await migrate_store(url))[0] == "0002_listed_events.sql"

    store = await open_store(url)
    for tenant in tenants:
        [page] = await events_of(tenant.through(store))
        assert [one.idempotency_key for one in page] == ["k1", None, "k3"]
        assert (await tenant.through(store).append(*rows())).duplicates.keys() == {0, 2}
    assert stored.problems() == []
    await store.close()
