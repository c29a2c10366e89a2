"""The server store: PostgreSQL through asyncpg."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from opdata.master_keys import SealedWith
from opdata.storage.postgres import distribution, schema
from opdata.storage.postgres.connection import UNHURRIED_S, ConnectionOptions, connected
from opdata.storage.postgres.store import PostgresStore
from opdata.storage.postgres.transfer import source, target

__all__ = ["PostgresStore", "distribute", "migrate", "open_", "sealed_with", "source", "target"]


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
    async with connected(replace(options, statement_timeout_s=UNHURRIED_S)) as connection:
        if migrate:
            await schema.migrate(connection)
        await schema.require_ready(connection)
    return await PostgresStore.open(options, connections=connections)


async def sealed_with(url: str, *, busy_timeout_s: float) -> SealedWith:
    """What the database says of master keys; see `schema.find_sealed_with`."""
    options = ConnectionOptions(url, busy_timeout_s, UNHURRIED_S)
    async with connected(options) as connection:
        return await schema.find_sealed_with(connection)


async def migrate(url: str, *, busy_timeout_s: float, dry_run: bool) -> Sequence[str]:
    """Apply pending migrations, or with `dry_run` only name them."""
    options = ConnectionOptions(url, busy_timeout_s, UNHURRIED_S)
    async with connected(options) as connection:
        return await schema.migrate(connection, dry_run=dry_run)


async def distribute(url: str, *, busy_timeout_s: float) -> Sequence[str]:
    """Spread a migrated database over the nodes of its Citus cluster; see `distribution.distribute`."""
    options = ConnectionOptions(url, busy_timeout_s, UNHURRIED_S)
    async with connected(options) as connection:
        await schema.require_ready(connection)
        return await distribution.distribute(connection)
