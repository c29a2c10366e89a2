"""The stores that are held to the contract, and a database of one for each test.

A store joins by adding its factory to `FACTORIES`; no test is changed or left out for it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from opdata.storage import distribute_store, migrate_store, open_store
from opdata.storage.base import Store
from opdata.storage.postgres.schema import TABLES
from tests.contract.tenant import NOW_MS, Tenant
from tests.support.postgres import drop_database, migrated_database, postgres_server, run_sql

Opener = Callable[[], Awaitable[Store]]
"""Opens the database, which is the same one every time; a second time, as another process would."""

Factory = Callable[[Path], AbstractAsyncContextManager[Opener]]
"""Makes an empty database, given a folder of the test's own, and takes it away afterwards."""


@asynccontextmanager
async def sqlite_database(folder: Path) -> AsyncIterator[Opener]:
    url = f"sqlite:///{folder / 'contract.db'}"
    yield lambda: open_store(url, busy_timeout_s=30)


def postgres_database(version: int) -> Factory:
    @asynccontextmanager
    async def database(_folder: Path) -> AsyncIterator[Opener]:
        url = migrated_database(postgres_server(version).url)
        yield lambda: open_store(url, busy_timeout_s=30)
        drop_database(url)

    return database


@asynccontextmanager
async def other_postgres_database(_folder: Path) -> AsyncIterator[Opener]:
    url = migrated_database(os.environ["OPDATA_TEST_PG"])
    yield lambda: open_store(url, busy_timeout_s=30)
    drop_database(url)


@asynccontextmanager
async def distributed_database(_folder: Path) -> AsyncIterator[Opener]:
    # Nodes share databases by name, so there is one, and it is emptied.
    url = os.environ["OPDATA_TEST_CITUS"]
    await migrate_store(url)
    await distribute_store(url)
    for table in (*TABLES, "master_keys"):
        run_sql(url, f"TRUNCATE opdata.{table}")
    yield lambda: open_store(url, busy_timeout_s=30)


FACTORIES: dict[str, Factory] = {
    "sqlite": sqlite_database,
    "postgres18": postgres_database(18),
    "postgres16": postgres_database(16),
}
if "OPDATA_TEST_PG" in os.environ:
    FACTORIES["OPDATA_TEST_PG"] = other_postgres_database
if "OPDATA_TEST_CITUS" in os.environ:
    FACTORIES["OPDATA_TEST_CITUS"] = distributed_database


@pytest.fixture(params=FACTORIES)
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the test's database once more; what it opens is closed when the test ends."""
    async with AsyncExitStack() as stack:
        open_database = await stack.enter_async_context(FACTORIES[request.param](tmp_path))

        async def opened() -> Store:
            store = await open_database()
            stack.push_async_callback(store.close)
            return store

        yield opened


@pytest.fixture
async def store(reopen: Opener) -> Store:
    """An open store on an empty database."""
    return await reopen()


@pytest.fixture
async def ours(store: Store) -> Tenant:
    """Our operator."""
    return Tenant(store, await store.create_operator("ours", bytes(range(32)), NOW_MS))


@pytest.fixture
async def theirs(store: Store) -> Tenant:
    """Another operator of the same database."""
    return Tenant(store, await store.create_operator("theirs", bytes(range(32, 64)), NOW_MS))
