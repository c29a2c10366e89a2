"""A database that an older version made is brought up to date with what is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from opdata import server
from opdata.config import Settings
from opdata.errors import MasterKeyMismatch, MasterKeyMissing
from opdata.master_keys import MASTER_KEY_FILE
from opdata.model import ALL_SCOPES, DataKey
from opdata.pii import sealer_of
from opdata.storage import migrate_store, open_store
from tests.contract.tenant import NOW_MS, EventRow, Tenant, event_row
from tests.contract.test_listings import events_of
from tests.support.stored import Stored, stored_at

SEALED_BEFORE = bytes.fromhex(
    "010000000106d2c8a6dbb251d97ad07b92b2a83c2db7dfd0a523f2dd2abed257e48dbddac7bc5fd18efb1435c8c101b38b"
    "ab237374b915b11814"
)
"""For entity p1 of operator 1, by master key 20…3f and salt 00…1f."""
FINGERPRINT_BEFORE = bytes.fromhex("23819bb83c7e317bb4dd87b942fac52e")


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


def as_0004_made_it(url: str) -> Stored:
    """The database without data keys: each operator's was derived from its own salt."""
    stored = stored_at(url)
    stored.change("DROP TABLE data_keys")
    stored.change("DELETE FROM migrations WHERE name = '0005_data_keys.sql'")
    return stored


async def test_what_was_sealed_before_there_were_data_keys_opens(tmp_path: Path, db: str) -> None:
    """W49."""
    url = db or f"sqlite:///{tmp_path / 'opdata.db'}"
    store = await open_store(url)
    operator = await store.create_operator("a", bytes(range(32)), NOW_MS)
    await store.create_operator("b", bytes(32), NOW_MS + 1)
    await store.close()
    stored = as_0004_made_it(url)

    assert await migrate_store(url) == ["0005_data_keys.sql"]

    store = await open_store(url)
    [mine, other] = await store.data_keys.all()
    assert mine == DataKey(operator.operator_id, 1, 1, bytes(range(32)), None, NOW_MS)
    assert (other.salt, other.created_at_ms) == (bytes(32), NOW_MS + 1)
    # Sealed and fingerprinted by the last version that knew one key only, for this salt.
    own = sealer_of({1: bytes(range(32, 64))}, [mine])
    assert own.open("p1", SEALED_BEFORE) == b'{"email":"a@example.com"}'
    assert own.fingerprint(b"player", b"{}", b"secret") == FINGERPRINT_BEFORE
    assert stored.problems() == []
    await store.close()


async def test_without_the_right_master_key_nothing_is_migrated(tmp_path: Path, db: str) -> None:
    """W49."""
    settings = Settings(db=db, data_dir=str(tmp_path / "data"))
    await server.initialise(settings, with_key=False)
    stored = as_0004_made_it(settings.database_url)
    before = {name: stored.rows(f"SELECT * FROM {name}") for name in stored.tables()}
    path = tmp_path / "data" / MASTER_KEY_FILE
    right = path.read_text()

    path.write_text("ab" * 32)
    with pytest.raises(MasterKeyMismatch, match="Nothing was touched"):
        await server.initialise(settings, with_key=False)
    path.write_text("2:" + "ab" * 32)
    with pytest.raises(MasterKeyMissing, match=r"sealed under master key 1.*Nothing was touched"):
        await server.initialise(settings, with_key=False)
    path.unlink()
    with pytest.raises(MasterKeyMissing, match="Nothing was touched"):
        await server.initialise(settings, with_key=False)

    assert not path.exists()
    assert before == {name: stored.rows(f"SELECT * FROM {name}") for name in stored.tables()}
    # A key more than is needed does no harm.
    path.write_text(f"{right}2:{'cd' * 32}")
    path.chmod(0o600)
    await server.initialise(settings, with_key=False)
    assert "data_keys" in stored.tables()
