-- Batches that were accepted to be worked off later (W30). payload is the body as it was sent, sealed. The
-- row goes when its job is done. queue_no is the order in which an operator's were accepted.
CREATE TABLE opdata.queued_batches (
    operator_id BIGINT NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    queue_no BIGINT NOT NULL,
    template_id TEXT COLLATE "C" NOT NULL,
    ndjson INTEGER NOT NULL,
    item_count BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    accepted_at_ms BIGINT NOT NULL,
    payload BYTEA NOT NULL,
    PRIMARY KEY (operator_id, job_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- With the size, so that a queue is counted without a look at its payloads.
CREATE INDEX queued_batches_next ON opdata.queued_batches (operator_id, queue_no, size_bytes);

-- Entities that were erased while a batch was queued: it must not bring them back (W51).
CREATE TABLE opdata.queued_erasures (
    operator_id BIGINT NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    external_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (operator_id, job_id, external_id)
);

-- Who works off an operator's batches and for how long yet, and the one under way: its items before
-- position are done. A chunk, a cancellation and whoever takes the lease over lock this row, and come one
-- after the other.
CREATE TABLE opdata.queue_heads (
    operator_id BIGINT NOT NULL,
    holder TEXT COLLATE "C" NOT NULL DEFAULT '',
    expires_at_ms BIGINT NOT NULL DEFAULT 0,
    job_id TEXT COLLATE "C",
    position BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (operator_id)
) WITH (fillfactor = 20);
