-- Laid out to be distributed by operator_id (docs/scaling.md): operator_id is BIGINT everywhere and
-- comes first in every key of a tenant table, and nothing is unique beyond its operator. One statement
-- ends at each ";" that ends a line, and is executed by itself.
--
-- Times are milliseconds since the epoch; data, value and output are JSON text as it was sent: json
-- keeps the text, jsonb would rewrite its numbers (W7). Names sort by code point: COLLATE "C".

-- Every write takes one block, and with it 8,192 numbers for its new entities or events: no call for
-- each row, and numbers that grow with time.
CREATE SEQUENCE opdata.blocks AS BIGINT;

-- erasures counts the operator's deletions: whoever remembers what names mean looks here whether
-- that still holds.
CREATE TABLE opdata.operators (
    operator_id BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    key_salt BYTEA NOT NULL,
    template_id TEXT,
    data_retention_days BIGINT,
    retention_policy JSON,
    limits JSON NOT NULL DEFAULT '{}',
    erasures BIGINT NOT NULL DEFAULT 0,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (operator_id)
) WITH (fillfactor = 50);

CREATE TABLE opdata.api_keys (
    operator_id BIGINT NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    label TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    masked_key TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    last_used_at_ms BIGINT,
    revoked_at_ms BIGINT,
    PRIMARY KEY (operator_id, key_id)
) WITH (fillfactor = 50);

-- Not unique: a hash of 256 random bits is, and a unique index would have to know its operator.
CREATE INDEX api_keys_by_hash ON opdata.api_keys (key_hash);

CREATE INDEX api_keys_by_id ON opdata.api_keys (key_id);

-- tombstone_no is 0 for a live entity and its entity_no for a deleted one: one index makes the live
-- name unique, finds it, and lists entities in order.
CREATE TABLE opdata.entities (
    operator_id BIGINT NOT NULL,
    external_id TEXT COLLATE "C" NOT NULL,
    tombstone_no BIGINT NOT NULL DEFAULT 0,
    entity_no BIGINT NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL,
    entity_type TEXT COLLATE "C" NOT NULL,
    data JSON NOT NULL,
    sealed BYTEA,
    fingerprint BYTEA,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    deleted_at_ms BIGINT,
    PRIMARY KEY (operator_id, external_id, tombstone_no)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- The key is the order events are read in, backwards, and holds the time, as partitioning by time
-- would ask of it.
CREATE TABLE opdata.events (
    operator_id BIGINT NOT NULL,
    entity_no BIGINT NOT NULL,
    occurred_at_ms BIGINT NOT NULL,
    event_no BIGINT NOT NULL,
    recorded_at_ms BIGINT NOT NULL,
    event_id BYTEA NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    data JSON NOT NULL,
    PRIMARY KEY (operator_id, entity_no, occurred_at_ms, event_no)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- The permanent idempotency keys of events (W42), apart from them so that they outlive retention.
CREATE TABLE opdata.event_keys (
    operator_id BIGINT NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    event_id BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    PRIMARY KEY (operator_id, idempotency_key)
);

-- unconditional: the value was set whatever stood there; it stands here because ON CONFLICT may compute
-- with nothing but columns.
CREATE TABLE opdata.states (
    operator_id BIGINT NOT NULL,
    entity_no BIGINT NOT NULL,
    state_key TEXT COLLATE "C" NOT NULL,
    value JSON NOT NULL,
    observed_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    unconditional BOOLEAN NOT NULL DEFAULT false,
    PRIMARY KEY (operator_id, entity_no, state_key)
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

CREATE TABLE opdata.jobs (
    operator_id BIGINT NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    progress INTEGER NOT NULL,
    output JSON,
    error JSON,
    created_at_ms BIGINT NOT NULL,
    completed_at_ms BIGINT,
    PRIMARY KEY (operator_id, job_id)
);

CREATE INDEX jobs_newest ON opdata.jobs (operator_id, created_at_ms, job_id);

-- Answers given under an Idempotency-Key (W40), kept 24 hours. status 0 is a claim whose write is
-- under way; no other transaction ever sees it.
CREATE TABLE opdata.idempotency_records (
    operator_id BIGINT NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    method TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    fingerprint BYTEA NOT NULL,
    status INTEGER NOT NULL,
    body BYTEA NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (operator_id, idempotency_key, method, path)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX idempotency_records_oldest ON opdata.idempotency_records (operator_id, created_at_ms);

-- Token buckets (docs/decisions/0003-rate-limits.md). What the last request brought with it stands
-- beside the result, because ON CONFLICT may compute with nothing but columns.
CREATE TABLE opdata.rate_buckets (
    operator_id BIGINT NOT NULL,
    category TEXT COLLATE "C" NOT NULL,
    full_at_us BIGINT NOT NULL,
    now_us BIGINT NOT NULL,
    interval_us BIGINT NOT NULL,
    bucket_us BIGINT NOT NULL,
    PRIMARY KEY (operator_id, category)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- A row for each write, made by its own transaction: whoever finds it knows that the write was
-- committed. Looked for when a commit was not answered, and forgotten within the hour. A barred one was
-- made by whoever looked and did not find it, so that it is settled for good.
CREATE TABLE opdata.write_marks (
    operator_id BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    barred BOOLEAN NOT NULL,
    made_at_ms BIGINT NOT NULL,
    PRIMARY KEY (operator_id, mark)
) WITH (autovacuum_vacuum_scale_factor = 0.1);

-- What tells the right master key from a wrong one (W49).
CREATE TABLE opdata.master_keys (
    key_id BIGINT NOT NULL,
    check_value BYTEA NOT NULL,
    PRIMARY KEY (key_id)
);
