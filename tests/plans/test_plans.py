"""EXPLAIN guards: the hot statements use the indexes they are meant to, on tables of some size.

As the server sees them: parameters unknown, prepared on a session with the store's own settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import msgspec
import pytest

from opdata.storage.postgres.connection import SQL, ConnectionOptions, connect_arguments
from tests.faults.counts import COUNTS
from tests.support.postgres import drop_database, migrated_database, postgres_server, run_sql

ROWS = 100_000
FILL = (
    """INSERT INTO opdata.operators (operator_id, name, key_salt, created_at_ms)
    SELECT n, 'operator ' || n, '', 1 FROM generate_series(1, 50) AS n""",
    f"""INSERT INTO opdata.entities (operator_id, external_id, entity_no, entity_id, entity_type, data,
        created_at_ms, updated_at_ms)
    SELECT 1 + n %% 50, 'player_' || n, n, 'ent_' || n, 'player', '{{}}', 1, 1
    FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.events (operator_id, entity_no, occurred_at_ms, event_no, recorded_at_ms,
        event_id, event_type, data)
    SELECT 1 + n %% 50, 1 + n %% 1000, n, n, n, '', 'session', '{{}}'
    FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.states (operator_id, entity_no, state_key, value, observed_at_ms, updated_at_ms)
    SELECT 1 + n %% 50, n, 'balance', '1', 1, 1 FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.event_keys (operator_id, idempotency_key, event_id, fingerprint)
    SELECT 1 + n %% 50, 'key ' || n, '', '' FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.jobs (operator_id, job_id, type, status, progress, created_at_ms)
    SELECT 1 + n %% 50, 'job_' || n, 'batch_ingest_entities', 'completed', 100, n
    FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.idempotency_records (operator_id, idempotency_key, method, path, fingerprint,
        status, body, created_at_ms)
    SELECT 1 + n %% 50, 'key ' || n, 'POST', '/batch/events', '', 200, '', n
    FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.api_keys (operator_id, key_id, label, key_hash, masked_key, created_at_ms)
    SELECT 1 + n %% 50, 'key_' || n, '', sha256(n::text::bytea), '', 1
    FROM generate_series(1, {ROWS}) AS n""",
    f"""INSERT INTO opdata.erasure_ledger (operator_id, entity_id, erased_at_ms)
    SELECT 1 + n %% 50, 'ent_' || n, 1 FROM generate_series(1, {ROWS}, 2) AS n""",
    f"""INSERT INTO opdata.legal_holds (operator_id, external_id, reason, placed_at_ms)
    SELECT 1 + n %% 50, 'player_' || n, '', 1 FROM generate_series(1, {ROWS}, 10) AS n""",
    f"""INSERT INTO opdata.audit_log (operator_id, seq, at_ms, action, actor, detail, hash)
    SELECT 1 + n %% 50, n, n, 'key.created', '', '', '' FROM generate_series(1, {ROWS}) AS n""",
    """INSERT INTO opdata.rate_buckets (operator_id, category, full_at_us, now_us, interval_us, bucket_us)
    SELECT n, 'read', 1, 1, 1, 1 FROM generate_series(1, 50) AS n""",
)

# The index of each statement, and the columns that its look-up goes by.
EXPECTED: dict[str, dict[str, set[str]]] = {
    "find_live_entities": {"entities_pkey": {"operator_id", "external_id", "tombstone_no"}},
    "find_entity_numbers": {
        "operators_pkey": {"operator_id"},
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
    },
    "erasures": {"operators_pkey": {"operator_id"}},
    "find_event_keys": {"event_keys_pkey": {"operator_id", "idempotency_key"}},
    "find_idempotency_record": {
        "idempotency_records_pkey": {"operator_id", "idempotency_key", "method", "path"}
    },
    "settle_claim": {
        "idempotency_records_pkey": {"operator_id", "idempotency_key", "method", "path"}
    },
    "bury_entity": {"entities_pkey": {"operator_id", "external_id", "tombstone_no"}},
    "lock_live_entity": {"entities_pkey": {"operator_id", "external_id", "tombstone_no"}},
    "is_held": {"legal_holds_pkey": {"operator_id", "external_id"}},
    "ledger": {"erasure_ledger_pkey": {"operator_id", "entity_id"}},
    "returned": {
        "entities_pkey": {"operator_id", "external_id"},
        "erasure_ledger_pkey": {"operator_id", "entity_id"},
    },
    "holds": {"legal_holds_pkey": {"operator_id"}},
    "entity": {"entities_pkey": {"operator_id", "external_id", "tombstone_no"}},
    "entities": {"entities_pkey": {"operator_id", "external_id", "tombstone_no"}},
    "events": {
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms"},
    },
    "states": {
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
        "states_pkey": {"operator_id", "entity_no"},
    },
    "walk_end": {"entities_pkey": {"operator_id", "external_id"}},
    "rest_of_events": {
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms", "event_no"},
    },
    "all_events": {
        "entities_pkey": {"operator_id", "external_id"},
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms"},
    },
    "all_states": {
        "entities_pkey": {"operator_id", "external_id"},
        "states_pkey": {"operator_id", "entity_no"},
    },
    "job": {"jobs_pkey": {"operator_id", "job_id"}},
    "jobs": {"jobs_newest": {"operator_id", "created_at_ms"}},
    "operator": {"operators_pkey": {"operator_id"}},
    "renew_lease": {"retention_leases_pkey": {"operator_id"}},
    "lease": {"retention_leases_pkey": {"operator_id"}},
    "lock_holds": {"operators_pkey": {"operator_id"}},
    "archive_files": {"archive_files_pkey": {"operator_id"}},
    "archive_walk_end": {"entities_pkey": {"operator_id", "external_id", "tombstone_no"}},
    "tombstone_walk_end": {"tombstones": {"operator_id", "deleted_at_ms", "entity_no"}},
    "tally_events": {
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms"},
        "legal_holds_pkey": {"operator_id", "external_id"},
    },
    "rest_of_old_events": {
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms", "event_no"},
        "legal_holds_pkey": {"operator_id", "external_id"},
    },
    "old_events": {
        "entities_pkey": {"operator_id", "external_id", "tombstone_no"},
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms"},
        "legal_holds_pkey": {"operator_id", "external_id"},
    },
    "tally_states": {
        "tombstones": {"operator_id", "deleted_at_ms", "entity_no"},
        "states_pkey": {"operator_id", "entity_no"},
        "legal_holds_pkey": {"operator_id", "external_id"},
    },
    "old_states": {
        "tombstones": {"operator_id", "deleted_at_ms", "entity_no"},
        "states_pkey": {"operator_id", "entity_no"},
        "legal_holds_pkey": {"operator_id", "external_id"},
    },
    "held_entities": {
        "legal_holds_pkey": {"operator_id"},
        "entities_pkey": {"operator_id", "external_id"},
    },
    "remove_event": {
        "events_pkey": {"operator_id", "entity_no", "occurred_at_ms", "event_no"},
    },
    "remove_state": {"states_pkey": {"operator_id", "entity_no", "state_key"}},
    "remove_tombstones": {
        "tombstones": {"operator_id", "deleted_at_ms", "entity_no"},
        "events_pkey": {"operator_id", "entity_no"},
        "states_pkey": {"operator_id", "entity_no"},
        "legal_holds_pkey": {"operator_id", "external_id"},
    },
    "authenticate": {"api_keys_by_hash": {"key_hash"}},
    "touch_keys": {"api_keys_by_id": {"key_id"}},
    "bucket": {"rate_buckets_pkey": {"operator_id", "category"}},
    "purge_step": {"idempotency_records_oldest": {"operator_id", "created_at_ms"}},
    "purge_idempotency_records": {"idempotency_records_oldest": {"operator_id", "created_at_ms"}},
    "audit_head": {"audit_log_pkey": {"operator_id"}},
    "audit_chain": {"audit_log_pkey": {"operator_id", "seq"}},
    "audit_entries": {"audit_times": {"operator_id", "at_ms"}},
    "operators_with_expired_records": {
        "operators_pkey": set(),
        "idempotency_records_oldest": {"operator_id", "created_at_ms"},
    },
}
IN_ORDER = {
    *("archive_walk_end", "tombstone_walk_end", "rest_of_old_events", "old_events"),
    *("entities", "events", "walk_end", "rest_of_events", "all_events", "all_states", "jobs"),
    *("ledger", "returned", "purge_step", "audit_head", "audit_chain", "audit_entries"),
}
"""Statements whose rows come in the order of the index, so that a page never sorts a whole operator."""

Plan = dict[str, Any]


@pytest.fixture(scope="module", params=[18, 16] if COUNTS.is_long else [18])
def plans(request: pytest.FixtureRequest) -> Iterator[dict[str, Plan]]:
    url = migrated_database(postgres_server(request.param).url)
    for statement in FILL:
        run_sql(url, statement.replace("%%", "%"))
    run_sql(url, "ANALYZE")
    yield asyncio.run(explained(url))
    drop_database(url)


async def explained(url: str) -> dict[str, Plan]:
    """The generic plan of each statement."""
    options = ConnectionOptions(url, busy_timeout_s=10, statement_timeout_s=60)
    connection = await asyncpg.connect(**connect_arguments(options))
    try:
        found = {}
        for name in EXPECTED:
            prepared = await connection.prepare(SQL[name])
            kinds = [kind.name for kind in prepared.get_parameters()]
            nulls = ", ".join(f"NULL::{kind}" for kind in kinds)
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            await connection.execute(f"PREPARE guarded ({', '.join(kinds)}) AS {SQL[name]}")
            text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE guarded ({nulls})")
            await connection.execute("DEALLOCATE guarded")
            [explanation] = msgspec.json.decode(text)
            found[name] = explanation["Plan"]
        return found
    finally:
        await connection.close()


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_hot_statement_goes_by_its_index(name: str, plans: dict[str, Plan]) -> None:
    scans = [node for node in nodes(plans[name]) if "Index Name" in node]
    assert {node["Index Name"] for node in scans} == set(EXPECTED[name]), plans[name]
    for node in scans:
        columns = EXPECTED[name][node["Index Name"]]
        missing = {one for one in columns if one not in node.get("Index Cond", "")}
        assert not missing, node


@pytest.mark.parametrize("name", EXPECTED)
def test_a_hot_statement_never_reads_a_whole_table(name: str, plans: dict[str, Plan]) -> None:
    kinds = {node["Node Type"] for node in nodes(plans[name])}
    assert not kinds & {"Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"}, kinds


@pytest.mark.parametrize("name", sorted(IN_ORDER))
def test_a_page_is_read_in_the_order_of_the_index(name: str, plans: dict[str, Plan]) -> None:
    limited = [node for node in nodes(plans[name]) if node["Node Type"] == "Limit"]
    assert limited
    for limit in limited:
        assert "Sort" not in {node["Node Type"] for node in nodes(limit)}, plans[name]
