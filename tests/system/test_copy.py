"""`opdata copy`: the target answers as its source did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from opdata.audit import SERVER, Entry
from opdata.auditing import Verdict, verify_chain
from opdata.storage import migrate_store, open_store
from opdata.storage.transfer import TABLES
from tests.support.api import deposit, player
from tests.support.postgres import run_sql
from tests.support.stored import STORES, database_of, stored_at
from tests.system.copying import copied, empty_target, rows_of
from tests.system.installation import (
    KEYED,
    ONE_MOMENT,
    PLAYERS,
    RETRIED,
    RETRIED_KEY,
    Installed,
    everything,
    install,
    serving,
)
from tests.wire.answers import all_succeeded


@pytest.fixture(scope="module")
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """An installation on the store that the test names, no longer served."""
    with database_of(request.param) as db:
        yield asyncio.run(install(tmp_path_factory.mktemp("filled") / "data", db))


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the store that the test names, with nothing in it."""
    with empty_target(request.param, tmp_path) as url:
        yield url


def in_every_direction(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test from each store to each store."""
    for name in ("target", "filled"):
        test = pytest.mark.parametrize(name, STORES, indirect=True)(test)
    return test


@in_every_direction
def test_a_copy_holds_the_rows_of_its_source_and_nothing_else(
    filled: Installed, target: str
) -> None:
    before = rows_of(filled.url)
    assert all(before.values())

    summary = copied(filled.url, target)

    assert rows_of(target) == rows_of(filled.url) == before
    counts = {each["table"]: each["source"]["rows"] for each in summary["tables"]}
    assert counts == {name: len(rows) for name, rows in before.items()}
    assert (summary["ok"], summary["resumed"]) == (True, False)
    assert stored_at(target).problems() == []


@in_every_direction
async def test_a_copy_answers_every_request_as_its_source_does_byte_for_byte(
    filled: Installed, target: str, tmp_path: Path
) -> None:
    """Sealed data opens under the same master key; events and states are their entity's."""
    await asyncio.to_thread(copied, filled.url, target)

    async with serving(filled.url, filled, tmp_path / "before") as apis:
        before = [await everything(api) for api in apis]
    async with serving(target, filled, tmp_path / "after") as apis:
        after = [await everything(api) for api in apis]
    assert after == before
    assert len(before[0]) > 4 * len(PLAYERS)
    assert b'"first_name":"Ann p1"' in before[0]["/entities/p1"]
    assert before[0]["/entities/p1"] != before[1]["/entities/p1"]


@pytest.mark.parametrize(
    ("filled", "target"), [("sqlite", "postgres"), ("postgres", "sqlite")], indirect=True
)
async def test_the_audit_log_is_proven_after_the_copy_and_goes_on(
    filled: Installed, target: str
) -> None:
    """W54."""
    await asyncio.to_thread(copied, filled.url, target)

    store = await open_store(target)
    heads = await store.audit.heads()
    assert len(heads) > 1
    for head in heads:
        assert await verify_chain(store.audit, head.operator_id, [head]) == Verdict(head, None)
        await store.audit.record(head.operator_id, [Entry("hold.placed", SERVER)])
        goes_on = await verify_chain(store.audit, head.operator_id, [head])
        assert (goes_on.head.seq, goes_on.problem) == (head.seq + 1, None)
    await store.close()


@in_every_direction
async def test_what_was_sent_before_the_copy_is_not_done_again_after_it(
    filled: Installed, target: str, tmp_path: Path
) -> None:
    """W40, W42."""
    await asyncio.to_thread(copied, filled.url, target)

    async with serving(target, filled, tmp_path / "data") as (ours, _):
        before = ours.rows("SELECT count(*) FROM events")
        again = await ours.post("/batch/events", RETRIED, headers=RETRIED_KEY)
        assert (again.content, again.headers["idempotent-replayed"]) == (filled.answer, "true")
        data = all_succeeded(await ours.post("/batch/events", KEYED), len(KEYED))
        assert data["duplicates"] == len(KEYED)
        assert ours.rows("SELECT count(*) FROM events") == before
        # An unchanged entity is known by its fingerprint, and left as it is.
        updated = "SELECT updated_at_ms FROM entities WHERE external_id = 'p3'"
        before = ours.rows(updated)
        same = player("p3", first_name="Ann p3", n=10**40)
        all_succeeded(await ours.post("/batch/entities", [same]), 1)
        assert ours.rows(updated) == before


@in_every_direction
async def test_new_rows_get_numbers_of_their_own_and_sort_as_the_newest(
    filled: Installed, target: str, tmp_path: Path
) -> None:
    """An entity_no given out twice would give one person's events to another."""
    await asyncio.to_thread(copied, filled.url, target)

    async with serving(target, filled, tmp_path / "data") as (ours, _):
        [(last_entity,)] = ours.rows("SELECT max(entity_no) FROM entities")
        [(last_event,)] = ours.rows("SELECT max(event_no) FROM events")
        new = [player(f"new {at}") for at in range(50)]
        all_succeeded(await ours.post("/batch/entities", new), len(new))
        at_one_moment = [deposit("p1", amount, occurredAt=ONE_MOMENT) for amount in (7, 8)]
        events = [deposit("new 0", 5), deposit("p1", 6), *at_one_moment]
        all_succeeded(await ours.post("/batch/events", events), len(events))

        for table, number, last, added in (
            ("entities", "entity_no", last_entity, len(new)),
            ("events", "event_no", last_event, len(events)),
        ):
            above = f"SELECT count(DISTINCT {number}) FROM {table} WHERE {number} > ?"
            assert ours.rows(above, last) == [(added,)]
        of_p1 = (await ours.data("/entities/p1/events?limit=100"))["items"]
        assert of_p1[0]["data"]["amount"] == 6
        moment = [e["data"]["amount"] for e in of_p1 if e["occurred_at"][:10] == ONE_MOMENT[:10]]
        assert moment == [8, 7, 2, 1, 0]
        of_new = (await ours.data("/entities/new%200/events"))["items"]
        assert [event["data"]["amount"] for event in of_new] == [5]
        assert (await ours.data("/entities/new%201/events"))["items"] == []


@pytest.mark.parametrize("target", STORES, indirect=True)
@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
async def test_a_number_whose_row_is_gone_is_not_given_out_again(
    filled: Installed, target: str, tmp_path: Path
) -> None:
    gone = 1_000_000
    source = stored_at(filled.url)
    before = source.rows("SELECT name, seq FROM sqlite_sequence ORDER BY name")
    source.change("UPDATE sqlite_sequence SET seq = ?", gone)
    try:
        await asyncio.to_thread(copied, filled.url, target)
    finally:
        for name, number in before:
            source.change("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", number, name)

    async with serving(target, filled, tmp_path / "data") as (ours, _):
        all_succeeded(await ours.post("/batch/entities", [player("new")]), 1)
        [(number,)] = ours.rows("SELECT entity_no FROM entities WHERE external_id = 'new'")
        assert number > gone


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
async def test_every_column_of_the_server_store_is_copied_or_known_to_be_its_own(
    target: str,
) -> None:
    await migrate_store(target)
    sql = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'opdata'"
        " AND table_name NOT IN ('migrations', 'rate_buckets', 'write_marks', 'retention_leases',"
        " 'audit_locks')"
    )
    own = {("entities", "tombstone_no"), ("operators", "erasures"), ("states", "unconditional")}
    copied_columns = {(table.name, column) for table in TABLES for column in table.columns}
    assert set(run_sql(target, sql)) == copied_columns | own


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_a_role_that_owns_the_database_and_nothing_else_will_do(
    filled: Installed, target: str, tmp_path: Path
) -> None:
    name = urlsplit(target).path.strip("/")
    run_sql(target, f"CREATE ROLE {name} LOGIN")
    run_sql(target, f"ALTER DATABASE {name} OWNER TO {name}")
    url = target.replace("opdata@", f"{name}@", 1)
    try:
        copied(filled.url, url)
        back = f"sqlite:///{tmp_path / 'back.db'}"
        copied(url, back)
        assert rows_of(back) == rows_of(filled.url)
    finally:
        run_sql(target, f"ALTER DATABASE {name} OWNER TO opdata")
        run_sql(target, f"DROP OWNED BY {name} CASCADE")
        run_sql(target, f"DROP ROLE {name}")
