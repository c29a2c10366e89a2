"""A database spread over several nodes by Citus: finding out, and making it so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from opdata.errors import StartupError
from opdata.storage.postgres.connection import Connection

COLUMN: Final = "operator_id"
DISTRIBUTED: Final = (
    *("operators", "entities", "events", "event_keys", "states", "jobs"),
    *("idempotency_records", "erasure_ledger", "legal_holds", "rate_buckets", "write_marks"),
    *("audit_log", "audit_locks", "data_keys", "archive_files", "retention_leases"),
    *("queued_batches", "queued_erasures", "queue_heads"),
)
"""Split by operator; all of an operator's rows are on one node. The first decides where."""
ON_EVERY_NODE: Final = ("api_keys",)
"""Small, and looked up before it is known whose a row is."""

_MIN_CITUS: Final = 11


class Distribution(Struct, frozen=True):
    """Which tables are distributed, which are on every node, and over how many nodes."""

    citus: str
    tables: frozenset[str]
    reference_tables: frozenset[str]
    nodes: int

    @property
    def summary(self) -> str:
        """In a few words, for `opdata db check`."""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"by {COLUMN} over {nodes} (Citus {self.citus})"


async def find_distribution(connection: Connection) -> Distribution | None:
    """How the database is distributed; None when none of its tables are."""
    version = await connection.fetchval(
        "SELECT extversion FROM pg_extension WHERE extname = 'citus'"
    )
    if version is None:
        return None
    found = await connection.fetch(
        "SELECT c.relname, p.partmethod::text FROM pg_dist_partition AS p"
        " JOIN pg_class AS c ON c.oid = p.logicalrelid"
        " WHERE c.relnamespace = 'opdata'::regnamespace"
    )
    tables = frozenset(name for name, method in found if method == "h")
    if not tables:
        return None
    return Distribution(
        citus=version,
        tables=tables,
        reference_tables=frozenset(name for name, method in found if method == "n"),
        nodes=await connection.fetchval(
            "SELECT count(DISTINCT nodeid) FROM pg_dist_placement AS p"
            " JOIN pg_dist_shard AS s USING (shardid)"
            " JOIN pg_dist_node AS n USING (groupid)"
            " WHERE s.logicalrelid = 'opdata.operators'::regclass AND n.isactive"
        ),
    )


async def distribute(connection: Connection) -> Sequence[str]:
    """Distribute every table that is not yet, with the rows it has; return what was done, in words.

    Rows move table by table, each in a transaction: interrupted, it goes on from there the next time.
    Raises `StartupError` where the server has no Citus, or one that is too old.
    """
    await _create_extension(connection)
    before = await find_distribution(connection)
    tables = before.tables if before else frozenset()
    reference = before.reference_tables if before else frozenset()
    done = []
    # Reference tables first: they may be joined with the others at any moment.
    for table in ON_EVERY_NODE:
        if table not in reference:
            await connection.execute(f"SELECT create_reference_table('opdata.{table}')")
            done.append(f"{table}: on every node")
    for table in DISTRIBUTED:
        if table not in tables:
            first = table == DISTRIBUTED[0]
            together = "none" if first else f"opdata.{DISTRIBUTED[0]}"
            await connection.execute(
                f"SELECT create_distributed_table('opdata.{table}', '{COLUMN}',"
                f" colocate_with => '{together}')"
            )
            done.append(f"{table}: distributed by {COLUMN}")
    for table in (*ON_EVERY_NODE, *DISTRIBUTED):
        # The rows have been copied to their nodes. What stays behind could not be erased any more.
        await connection.execute(
            f"SELECT truncate_local_data_after_distributing_table('opdata.{table}')"
        )
    return done


async def _create_extension(connection: Connection) -> None:
    available = await connection.fetchval(
        "SELECT default_version FROM pg_available_extensions WHERE name = 'citus'"
    )
    if available is None:
        message = (
            "This server has no Citus extension, so its tables stay where they are: install Citus "
            f"{_MIN_CITUS} or newer on every node, set shared_preload_libraries = 'citus', and "
            "run this again. Nothing was changed."
        )
        raise StartupError(message)
    if int(available.partition(".")[0]) < _MIN_CITUS:
        message = f"Citus {available} is too old; {_MIN_CITUS} or newer is needed"
        raise StartupError(message)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS citus")
