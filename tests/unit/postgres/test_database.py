"""Transactions when the server fails them: never in doubt, never half done, tried again where it helps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import psycopg
import pytest

from opdata.clock import now_ms
from opdata.errors import IdempotencyInFlight, Unavailable
from opdata.storage import open_store
from opdata.storage.postgres import PostgresStore
from opdata.storage.postgres.connection import (
    SQL,
    ConnectionOptions,
    connect_arguments,
    translated,
)
from opdata.storage.postgres.database import Database, Transaction
from tests.contract.tenant import HOUR_MS, NOW_MS, Tenant, claim, entity_row, event_row, state_row
from tests.support.postgres import drop_database, migrated_database, postgres_server, run_sql

BUSY_S = 1.0


@pytest.fixture
def url() -> Any:
    made = migrated_database(postgres_server(18).url)
    yield made
    drop_database(made)


@pytest.fixture
async def tenant(url: str) -> AsyncIterator[Tenant]:
    store = await open_store(url, busy_timeout_s=BUSY_S)
    yield Tenant(store, await store.create_operator("ours", bytes(32), NOW_MS))
    await store.close()


class Wire:
    """Breaks the connection around a statement, as a network or a server that dies does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken = 0
        self._execute = asyncpg.Connection.execute
        monkeypatch.setattr(asyncpg.Connection, "execute", self._run_statement())
        self._statement: str | None = None
        self._arrives = False

    def break_at(self, statement: str, *, arrives: bool) -> None:
        """The next such statement is not answered; `arrives` says whether the server has done it."""
        self._statement, self._arrives = statement, arrives

    def _run_statement(self) -> Callable[..., Any]:
        wire = self

        async def execute(
            connection: Any,
            query: str,
            *args: Any,
            timeout: float | None = None,  # noqa: ASYNC109 - the driver's signature
        ) -> Any:
            if query != wire._statement:
                return await wire._execute(connection, query, *args, timeout=timeout)
            wire._statement = None
            wire.broken += 1
            if wire._arrives:
                await wire._execute(connection, query, *args, timeout=timeout)
            connection.terminate()
            raise ConnectionResetError("cut")

        return execute


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


async def test_a_commit_that_was_done_and_not_answered_is_a_success(
    tenant: Tenant, wire: Wire
) -> None:
    """W25: also an event without any key, which a retry would double."""
    await tenant.create("p1")
    wire.break_at("COMMIT", arrives=True)

    written = await tenant.append(event_row("p1", "1"))

    assert (wire.broken, written.refused) == (1, {})
    assert await tenant.event_data("p1") == ["1"]


async def test_a_commit_that_never_arrived_is_unavailable_and_nothing_is_written(
    tenant: Tenant, wire: Wire
) -> None:
    await tenant.create("p1")
    wire.break_at("COMMIT", arrives=False)

    with pytest.raises(Unavailable) as raised:
        await tenant.append(event_row("p1", "1"))

    assert isinstance(raised.value.__cause__, ConnectionResetError)
    assert await tenant.event_data("p1") == []
    assert (await tenant.append(event_row("p1", "2"))).refused == {}


async def test_a_commit_whose_outcome_cannot_be_learnt_says_so(
    tenant: Tenant, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.create("p1")

    fetchval = asyncpg.Connection.fetchval

    async def away(connection: Any, query: str, *args: Any, **rest: Any) -> Any:
        if query == SQL["is_barred"]:
            raise ConnectionRefusedError("away")
        return await fetchval(connection, query, *args, **rest)

    wire.break_at("COMMIT", arrives=True)
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "fetchval", away)
        started = time.monotonic()
        store = tenant.store
        assert isinstance(store, PostgresStore)

        async def work(transaction: Transaction) -> None:
            await transaction.connection.execute("SELECT 1")

        with pytest.raises(Unavailable, match="written whole or not at all"):
            await store._database.transaction(work)
    assert BUSY_S <= time.monotonic() - started < 10 * BUSY_S


async def test_a_connection_cut_before_the_commit_leaves_nothing(tenant: Tenant, url: str) -> None:
    store = tenant.store
    assert isinstance(store, PostgresStore)

    async def work(transaction: Transaction) -> None:
        await transaction.connection.execute(
            "UPDATE opdata.operators SET name = 'changed' WHERE operator_id = $1", tenant.id
        )
        run_sql(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE state = 'idle in transaction' AND datname = current_database()",
        )
        await transaction.connection.execute("SELECT 1")

    with pytest.raises(Unavailable):
        await store._database.transaction(work)
    assert [one.name for one in await store.operators()] == ["ours"]


async def test_a_transaction_that_lost_a_deadlock_is_done_over(url: str) -> None:
    options = ConnectionOptions(url, busy_timeout_s=30, statement_timeout_s=30)
    database = await Database.open(options, connections=2)
    run_sql(
        url,
        "INSERT INTO opdata.operators (operator_id, name, key_salt, created_at_ms)"
        " VALUES (1, 'a', '', 0), (2, 'b', '', 0)",
    )
    both = asyncio.Barrier(2)
    attempts: list[int] = []

    def crosswise(first: int, second: int) -> Callable[[Transaction], Any]:
        async def work(transaction: Transaction) -> None:
            attempts.append(transaction.attempt)
            count_up = "UPDATE opdata.operators SET erasures = erasures + 1 WHERE operator_id = $1"
            await transaction.connection.execute(count_up, first)
            if transaction.attempt == 0:
                await both.wait()
            await transaction.connection.execute(count_up, second)

        return work

    await asyncio.gather(
        database.transaction(crosswise(1, 2)), database.transaction(crosswise(2, 1))
    )

    # On a slow machine the one may meet the other's lock again.
    assert sorted(attempts)[:3] == [0, 0, 1], "one of the two was done over"
    assert run_sql(url, "SELECT erasures FROM opdata.operators") == [(2,), (2,)]
    await database.close()


async def test_states_of_both_kinds_in_opposite_orders_do_not_wait_crosswise(
    tenant: Tenant, url: str
) -> None:
    """W28."""
    await tenant.create("a", "b")
    await asyncio.gather(
        *(
            tenant.set_states(
                state_row(first, str(at)), state_row(second, str(at), observed_at_ms=NOW_MS + at)
            )
            for at in range(30)
            for first, second in (("a", "b"), ("b", "a"))
        )
    )
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert run_sql(url, deadlocks) == [(0,)]


async def test_a_work_is_tried_again_until_it_wins_and_not_for_ever(tenant: Tenant) -> None:
    store = tenant.store
    assert isinstance(store, PostgresStore)
    attempts: list[int] = []

    async def lose(transaction: Transaction) -> int:
        attempts.append(transaction.attempt)
        if len(attempts) < wins_at:
            await transaction.connection.execute(
                "DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$"
            )
        return transaction.attempt

    wins_at = 4
    assert await store._database.transaction(lose) == 3
    assert attempts == [0, 1, 2, 3]
    attempts.clear()
    wins_at = 1_000
    with pytest.raises(Unavailable):
        await store._database.transaction(lose)
    assert 4 < len(attempts) < 20


async def test_a_claim_that_is_under_way_elsewhere_for_long_is_in_flight(
    tenant: Tenant, url: str
) -> None:
    """W41: 409 after a short wait, and done once the other has gone."""
    await tenant.create("p1")
    with psycopg.connect(url) as elsewhere:
        elsewhere.execute(
            "INSERT INTO opdata.idempotency_records VALUES"
            f" ({tenant.id}, 'key-1', 'POST', '/batch/events', '', 0, '', {NOW_MS})"
        )
        with pytest.raises(IdempotencyInFlight):
            await tenant.append(event_row("p1", "1"), claim=claim())
        elsewhere.rollback()
    assert (await tenant.append(event_row("p1", "1"), claim=claim())).refused == {}
    assert await tenant.event_data("p1") == ["1"]


async def test_a_lock_that_is_held_for_long_makes_a_write_unavailable(
    tenant: Tenant, url: str
) -> None:
    with psycopg.connect(url) as elsewhere:
        elsewhere.execute("LOCK TABLE opdata.entities IN EXCLUSIVE MODE")
        with pytest.raises(Unavailable):
            await tenant.create("p1")
        assert await tenant.entity("p1") is None
    await tenant.create("p1")
    assert await tenant.listed() == ["p1"]


async def test_a_statement_that_takes_too_long_is_unavailable(url: str) -> None:
    options = ConnectionOptions(url, busy_timeout_s=1, statement_timeout_s=0.2)
    database = await Database.open(options, connections=1)

    async def sleep(transaction: Transaction) -> None:
        await transaction.connection.execute("SELECT pg_sleep(30)")

    started = time.monotonic()
    with pytest.raises(Unavailable):
        await database.transaction(sleep)
    assert time.monotonic() - started < 20
    await database.close()


async def test_whoever_waits_too_long_for_a_connection_is_told(url: str) -> None:
    options = ConnectionOptions(url, busy_timeout_s=0.2, statement_timeout_s=5)
    database = await Database.open(options, connections=1)
    async with database.connection():
        with pytest.raises(Unavailable):
            await database.row("last_operator")
    assert await database.row("last_operator") is not None
    await database.close()


async def test_a_row_made_meanwhile_by_somebody_else_is_replaced(tenant: Tenant, url: str) -> None:
    """The optimistic COPY of rows that were not there meets one that is: the upsert does it over."""
    sealed: list[list[int]] = []

    def seal(positions: Any) -> list[None]:
        if not sealed:  # between the look-up and the COPY
            run_sql(
                url,
                "INSERT INTO opdata.entities (operator_id, external_id, entity_no, entity_id,"
                " entity_type, data, created_at_ms, updated_at_ms)"
                f" VALUES ({tenant.id}, 'p2', 1, 'ent_theirs', 'player', '1', 1, 1)",
            )
        sealed.append(list(positions))
        return [None] * len(positions)

    written = await tenant.upsert(
        entity_row("p1", "2"), entity_row("p2", "2"), entity_row("p3", "2"), seal=seal
    )

    assert written.outcome is not None
    assert list(written.outcome.created) == [True, False, True]
    assert written.outcome.entity_ids[1] == "ent_theirs"
    entity = await tenant.entity("p2")
    assert entity is not None
    assert (entity.entity_id, entity.data, entity.created_at_ms) == ("ent_theirs", "2", 1)
    assert sealed == [[0, 1, 2], [0, 1, 2]]


async def test_an_erasure_vacuums_its_old_version_away(tenant: Tenant, url: str) -> None:
    """W51."""
    await tenant.create("p1")
    await tenant.delete("p1")
    deadline = time.monotonic() + 30
    vacuumed = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'entities'"
    while run_sql(url, vacuumed) == [(0,)]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_what_the_database_says_of_values_goes_no_further(url: str) -> None:
    """W49: its details hold them; its messages hold types and names."""
    options = ConnectionOptions(url, busy_timeout_s=1, statement_timeout_s=5)
    database = await Database.open(options, connections=1)

    async def fail(transaction: Transaction) -> None:
        await transaction.connection.execute("""SELECT '{"email": canary@mail.example}'::json""")

    with pytest.raises(asyncpg.PostgresError) as raised:
        await database.transaction(fail)
    assert "canary" not in str(raised.value)
    await database.close()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InvalidPasswordError("changed"),
        asyncpg.InvalidCatalogNameError("dropped"),
        asyncpg.TargetServerAttributeNotMatched("no primary"),
        asyncpg.AdminShutdownError("bye"),
        asyncpg.CannotConnectNowError("starting"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.DiskFullError("full"),
        asyncpg.QueryCanceledError("too long"),
        asyncpg.ReadOnlySQLTransactionError("standby"),
        asyncpg.InterfaceError("pool is closing"),
        ConnectionRefusedError("away"),
        TimeoutError("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_unavailable_and_keeps_its_cause(error: Exception) -> None:
    with pytest.raises(Unavailable) as raised, translated():
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError("twice"),
        asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"),
        asyncpg.UndefinedTableError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_of_ours_stays_one(error: Exception) -> None:
    with pytest.raises(type(error)), translated():
        raise error


async def test_what_became_of_a_transaction_is_told_the_same_however_often_it_is_asked(
    tenant: Tenant, url: str
) -> None:
    """Also when the first answer was lost: a look that found nothing settles that nothing comes."""
    store = tenant.store
    assert isinstance(store, PostgresStore)
    [(written,)] = run_sql(url, "SELECT max(mark) FROM opdata.write_marks")
    for mark, committed in ((written, True), (12345, False)):
        operator_id = 0  # of whoever created the operator
        for _ in range(2):
            asked = store._database._was_committed(operator_id, mark, Unavailable())
            assert await asked is committed
    with psycopg.connect(url) as late, pytest.raises(psycopg.errors.UniqueViolation):
        late.execute("INSERT INTO opdata.write_marks VALUES (0, 12345, false, 0)")


async def test_a_commit_that_the_server_lost_is_unavailable(
    tenant: Tenant, wire: Wire, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a standby that is promoted before the commit has reached it: its rows are what counts."""
    await tenant.create("p1")
    fetchval = asyncpg.Connection.fetchval

    async def promoted(connection: Any, query: str, *args: Any, **rest: Any) -> Any:
        if query == SQL["is_barred"]:
            run_sql(url, "DELETE FROM opdata.write_marks")
            run_sql(url, "DELETE FROM opdata.events")
        return await fetchval(connection, query, *args, **rest)

    wire.break_at("COMMIT", arrives=True)
    monkeypatch.setattr(asyncpg.Connection, "fetchval", promoted)
    with pytest.raises(Unavailable):
        await tenant.append(event_row("p1", "1"))


async def test_marks_are_forgotten_when_nobody_can_ask_for_them_any_more(
    tenant: Tenant, url: str
) -> None:
    await tenant.create("p1")
    marks = "SELECT count(*) FROM opdata.write_marks"
    assert run_sql(url, marks) == [(2,)]
    await tenant.store.purge(now_ms())
    assert run_sql(url, marks) == [(2,)]
    await tenant.store.purge(now_ms() + 2 * HOUR_MS)
    assert run_sql(url, marks) == [(0,)]


async def test_the_session_is_what_the_statements_count_on(url: str) -> None:
    options = ConnectionOptions(url, busy_timeout_s=2.5, statement_timeout_s=7)
    connection = await asyncpg.connect(**connect_arguments(options, synchronous_commit="off"))
    try:
        shown = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in (
                *("application_name", "lock_timeout", "statement_timeout", "enable_seqscan"),
                *("transaction_isolation", "synchronous_commit"),
            )
        }
    finally:
        await connection.close()
    assert shown == {
        "application_name": "opdata",
        "lock_timeout": "2500ms",
        "statement_timeout": "7s",
        "enable_seqscan": "off",
        "transaction_isolation": "read committed",
        "synchronous_commit": "off",
    }


async def test_thirty_two_writers_of_the_same_keys_in_opposite_orders_do_not_fail(
    tenant: Tenant, url: str
) -> None:
    """1,000 items each over the same 5,000 names; whoever is last has won, with a whole batch."""
    stores = [await open_store(url, busy_timeout_s=30) for _ in range(4)]

    async def write(number: int) -> None:
        names = [f"p{(number * 500 + at * 3) % 5_000:04}" for at in range(1_000)]
        rows = {name: entity_row(name, str(number)) for name in names}
        ordered = list(rows.values()) if number % 2 else list(rows.values())[::-1]
        await tenant.through(stores[number % 4]).upsert(*ordered)

    await asyncio.gather(*map(write, range(32)))
    listed = run_sql(url, "SELECT count(*), count(DISTINCT external_id) FROM opdata.entities")
    assert listed == [(5_000, 5_000)]
    for store in stores:
        with suppress(Unavailable):
            await store.close()
