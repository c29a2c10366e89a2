-- Every tenant table carries operator_id first in its keys, as on every store.
-- Times are milliseconds since the epoch; data, value and output are JSON text as it was sent.

CREATE TABLE operators (
    operator_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    key_salt BLOB NOT NULL,
    template_id TEXT,
    data_retention_days INTEGER,
    retention_policy TEXT,
    limits TEXT NOT NULL DEFAULT '{}',
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    operator_id INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    label TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    masked_key TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    last_used_at_ms INTEGER,
    revoked_at_ms INTEGER,
    PRIMARY KEY (operator_id, key_id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX api_keys_by_hash ON api_keys (key_hash);

-- entity_no is the internal number that events and states refer to: small, and in insertion order,
-- so that new rows go to the end of the table. AUTOINCREMENT: a number is never given out twice.
CREATE TABLE entities (
    entity_no INTEGER PRIMARY KEY AUTOINCREMENT,
    operator_id INTEGER NOT NULL,
    external_id TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    data TEXT NOT NULL,
    sealed BLOB,
    fingerprint BLOB,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    deleted_at_ms INTEGER
) STRICT;

-- A deleted entity's row stays as a tombstone; the same external_id may live again beside it.
CREATE UNIQUE INDEX live_entities ON entities (operator_id, external_id)
    WHERE deleted_at_ms IS NULL;

-- event_no is the order of recording. The table only ever grows at its end.
CREATE TABLE events (
    event_no INTEGER PRIMARY KEY,
    operator_id INTEGER NOT NULL,
    entity_no INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    data TEXT NOT NULL,
    occurred_at_ms INTEGER NOT NULL,
    recorded_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX entity_events ON events (operator_id, entity_no, occurred_at_ms);

-- The permanent idempotency keys of events (W42), apart from them so that they outlive retention.
CREATE TABLE event_keys (
    operator_id INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    event_id BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (operator_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE states (
    operator_id INTEGER NOT NULL,
    entity_no INTEGER NOT NULL,
    state_key TEXT NOT NULL,
    value TEXT NOT NULL,
    observed_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (operator_id, entity_no, state_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    operator_id INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    progress INTEGER NOT NULL,
    output TEXT,
    error TEXT,
    created_at_ms INTEGER NOT NULL,
    completed_at_ms INTEGER,
    PRIMARY KEY (operator_id, job_id)
) STRICT;

CREATE INDEX jobs_newest ON jobs (operator_id, created_at_ms, job_id);

-- Answers given under an Idempotency-Key (W40), kept 24 hours.
CREATE TABLE idempotency_records (
    operator_id INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (operator_id, idempotency_key, method, path)
) STRICT;

CREATE INDEX idempotency_records_oldest ON idempotency_records (created_at_ms);

-- What tells the right master key from a wrong one (W49).
CREATE TABLE master_keys (
    key_id INTEGER PRIMARY KEY,
    check_value BLOB NOT NULL
) STRICT;
