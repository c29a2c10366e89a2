"""The schema `opdata`: creating it, migrating it, and looking it over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from opdata.clock import now_ms
from opdata.config import without_password
from opdata.errors import StartupError, Unavailable
from opdata.master_keys import SealedWith
from opdata.storage.base import StoreReport
from opdata.storage.migrate import Migration, find_migrations, pending, refuse_pending
from opdata.storage.postgres.connection import SQL, Connection
from opdata.storage.postgres.distribution import find_distribution

TABLES: Final = (
    *("operators", "api_keys", "entities", "events", "event_keys", "states", "jobs"),
    *("idempotency_records", "erasure_ledger", "legal_holds", "rate_buckets", "write_marks"),
    *("audit_log", "audit_locks", "data_keys", "archive_files", "retention_leases"),
    *("queued_batches", "queued_erasures", "queue_heads"),
)
"""Those with an `operator_id`."""

_COUNTED: Final = (
    "operators",
    "api_keys",
    "entities",
    "events",
    "states",
    "jobs",
    "queued_batches",
)
_LOCK: Final = 8025411762441018  # any number that is no other program's; advisory, in this database
_CREATE: Final = (
    # Unless whoever may not create one in this database has been given one.
    "CREATE SCHEMA IF NOT EXISTS opdata",
    "CREATE TABLE opdata.migrations (name TEXT PRIMARY KEY, applied_at_ms BIGINT NOT NULL)",
)
# In one snapshot: another process may be migrating.
_WHOSE: Final = """
SELECT coalesce(bool_or(relname = 'migrations'), false) AS ours, count(*) > 0 AS anything
FROM pg_class WHERE relnamespace = to_regnamespace('opdata')
"""
_END_OF_STATEMENT: Final = re.compile(r";[ \t]*$", re.MULTILINE)

# What would stop the database from being distributed, or from staying so (docs/scaling.md).
_RULES: Final = """
SELECT format('key opdata.%s does not begin with operator_id', k.relname)
FROM pg_index AS i
JOIN pg_class AS k ON k.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
WHERE t.relnamespace = 'opdata'::regnamespace AND t.relname = ANY ($1) AND i.indisunique
    AND pg_get_indexdef(i.indexrelid, 1, true) <> 'operator_id'
UNION ALL
SELECT format('opdata.%s.operator_id is not BIGINT NOT NULL', t.relname)
FROM pg_class AS t
LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attname = 'operator_id'
WHERE t.relnamespace = 'opdata'::regnamespace AND t.relname = ANY ($1) AND t.relkind IN ('r', 'p')
    AND (a.atttypid IS DISTINCT FROM 'bigint'::regtype OR NOT a.attnotnull)
UNION ALL
SELECT format('opdata.%s is unlogged: a crash empties it', t.relname)
FROM pg_class AS t
WHERE t.relnamespace = 'opdata'::regnamespace AND t.relpersistence = 'u' AND t.relkind IN ('r', 'p')
UNION ALL
SELECT format('opdata.%s has trigger %s', t.relname, g.tgname)
FROM pg_trigger AS g
JOIN pg_class AS t ON t.oid = g.tgrelid
WHERE t.relnamespace = 'opdata'::regnamespace AND NOT g.tgisinternal
    -- The distributing extension's own, which keep a table on the coordinator from being emptied.
    AND g.tgname NOT LIKE 'truncate\\_trigger%' AND g.tgname NOT LIKE 'citus\\_%'
UNION ALL
SELECT format('index opdata.%s is not valid; REINDEX it', k.relname)
FROM pg_index AS i
JOIN pg_class AS k ON k.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
WHERE t.relnamespace = 'opdata'::regnamespace AND NOT i.indisvalid
"""
_DURABILITY: Final = {
    "fsync": "what was acknowledged is lost when the machine stops",
    "synchronous_commit": "what was acknowledged is lost when the server stops",
    "full_page_writes": "a page that was half written stays broken",
}


async def migrate(connection: Connection, *, dry_run: bool = False) -> Sequence[str]:
    """Apply what is pending, each migration in a transaction; return the names.

    Several processes may do this at once: each looks again once it has the lock, which the
    transaction holds. Killed at any moment, it leaves the schema of before or after a migration.
    Raises `DatabaseTooNew`, `StartupError` for a schema `opdata` that is not ours.
    """
    todo = pending(known_migrations(), await _applied(connection))
    names = []
    for migration in () if dry_run else todo:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            applied = await _applied(connection)
            if migration.name in applied:
                continue
            if not applied:
                for statement in _CREATE:
                    await connection.execute(statement)
            for statement in statements(migration.sql):
                await connection.execute(statement)
            await connection.execute(
                "INSERT INTO opdata.migrations (name, applied_at_ms) VALUES ($1, $2)",
                *(migration.name, now_ms()),
            )
        names.append(migration.name)
    return [migration.name for migration in todo] if dry_run else names


def statements(sql: str) -> Sequence[str]:
    """The statements of a migration, to be executed one by one: each ends a line with its `;`."""
    parts = (part.strip() for part in _END_OF_STATEMENT.split(sql))
    return [part for part in parts if part]


async def require_ready(connection: Connection) -> None:
    """Raise unless the schema is this code's and takes writes.

    `DatabaseNotMigrated`, `DatabaseTooNew`; `Unavailable` for a standby, which may be promoted.
    """
    refuse_pending(pending(known_migrations(), await _applied(connection)))
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        message = "The database is a standby and takes no writes"
        raise Unavailable(message)


async def find_sealed_with(connection: Connection) -> SealedWith:
    """What the database says of master keys, of this schema version or an older one.

    Raises `DatabaseTooNew` and `StartupError`, see `pending`.
    """
    applied = await _applied(connection)
    pending(known_migrations(), applied)
    if not applied:
        return SealedWith({}, frozenset())
    rows = await connection.fetch("SELECT key_id, check_value FROM opdata.master_keys")
    checks = {key_id: bytes(check) for key_id, check in rows}
    if await connection.fetchval("SELECT to_regclass('opdata.data_keys') IS NULL"):
        return SealedWith(checks, frozenset(checks))
    needed = await connection.fetch(
        "SELECT DISTINCT master_key_id FROM opdata.data_keys WHERE retired_at_ms IS NULL"
    )
    return SealedWith(checks, frozenset(key_id for (key_id,) in needed))


async def inspect(connection: Connection, url: str) -> StoreReport:
    """Versions, sizes, row counts, settings that lose data, and rules that are broken."""
    applied = await _applied(connection)
    todo = [migration.name for migration in pending(known_migrations(), applied)]
    problems = [f"migration {name} is pending; run: opdata db migrate" for name in todo]
    for setting, consequence in _DURABILITY.items():
        if await connection.fetchval("SELECT current_setting($1)", setting) == "off":
            problems.append(f"{setting} is off in this database: {consequence}")
    problems += [row[0] for row in await connection.fetch(_RULES, list(TABLES))]
    distribution = await find_distribution(connection)
    size = "citus_total_relation_size" if distribution else "pg_total_relation_size"
    size_bytes = 0
    rows = {}
    present = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'opdata'::regnamespace AND relkind = 'r'"
    )
    for (table,) in present:
        # Those on every node are counted as any other table is.
        spread = distribution is not None and table in distribution.tables
        measure = size if spread else "pg_total_relation_size"
        size_bytes += await connection.fetchval(f"SELECT {measure}('opdata.{table}'::regclass)")
    for table in _COUNTED:
        if any(name == table for (name,) in present):
            rows[table] = await connection.fetchval(f"SELECT count(*) FROM opdata.{table}")
    return StoreReport(
        store="postgresql",
        location=without_password(url),
        version=await connection.fetchval("SHOW server_version"),
        applied=sorted(applied),
        pending=todo,
        size_bytes=size_bytes,
        rows=rows,
        problems=problems,
        distributed=None if distribution is None else distribution.summary,
        clock_ms=await connection.fetchval(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        ),
    )


def known_migrations() -> Sequence[Migration]:
    """All migrations of this store, in order."""
    return find_migrations(__package__)


async def _applied(connection: Connection) -> set[str]:
    whose = await connection.fetchrow(_WHOSE)
    assert whose is not None
    if whose["ours"]:
        return {row[0] for row in await connection.fetch(SQL["applied_migrations"])}
    if whose["anything"]:
        message = "The database has a schema opdata of another program; nothing was touched"
        raise StartupError(message)
    return set()
