"""The server store: PostgreSQL through asyncpg."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from opdata.storage.postgres import distribution, schema
from opdata.storage.postgres.connection import ConnectionOptions, check_url, connect, translated
from opdata.storage.postgres.store import PostgresStore

__all__ = ["PostgresStore", "distribute", "migrate", "open_"]

_MIGRATION_STATEMENT_S = 24 * 3600.0  # an index on a large table takes as long as it takes


async def open_(
    url: str,
    *,
    busy_timeout_s: float,
    statement_timeout_s: float,
    connections: int,
    migrate: bool,
) -> PostgresStore:
    """Open the database of a `postgresql://` URL, which must exist; see `open_store`."""
    options = ConnectionOptions(url, busy_timeout_s, statement_timeout_s)
    async with _connected(_for_migrations(options) if migrate else options) as connection:
        if migrate:
            await schema.migrate(connection)
        await schema.require_ready(connection)
    return await PostgresStore.open(options, connections=connections)


async def migrate(url: str, *, busy_timeout_s: float, dry_run: bool) -> Sequence[str]:
    """Apply pending migrations, or with `dry_run` only name them."""
    options = ConnectionOptions(url, busy_timeout_s, _MIGRATION_STATEMENT_S)
    async with _connected(options) as connection:
        return await schema.migrate(connection, dry_run=dry_run)


async def distribute(url: str, *, busy_timeout_s: float) -> Sequence[str]:
    """Spread a migrated database over the nodes of its Citus cluster; see `distribution.distribute`."""
    options = ConnectionOptions(url, busy_timeout_s, _MIGRATION_STATEMENT_S)
    async with _connected(options) as connection:
        await schema.require_ready(connection)
        return await distribution.distribute(connection)


@asynccontextmanager
async def _connected(
    options: ConnectionOptions,
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection for a moment. Raises `ConfigError`, `StartupError`, `Unavailable`."""
    check_url(options.url)
    connection = await connect(options)
    try:
        with translated():
            yield connection
    finally:
        connection.terminate()


def _for_migrations(options: ConnectionOptions) -> ConnectionOptions:
    return ConnectionOptions(options.url, options.busy_timeout_s, _MIGRATION_STATEMENT_S)
