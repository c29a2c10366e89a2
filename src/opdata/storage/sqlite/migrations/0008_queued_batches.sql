-- Batches that were accepted to be worked off later (W30). payload is the body as it was sent, sealed. The
-- row goes when its job is done. queue_no is the order in which an operator's were accepted.
CREATE TABLE queued_batches (
    operator_id INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    queue_no INTEGER NOT NULL,
    template_id TEXT NOT NULL,
    ndjson INTEGER NOT NULL,
    item_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    accepted_at_ms INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (operator_id, job_id)
) STRICT;

-- With the size, so that a queue is counted without a look at its payloads.
CREATE INDEX queued_batches_next ON queued_batches (operator_id, queue_no, size_bytes);

-- Entities that were erased while a batch was queued: it must not bring them back (W51).
CREATE TABLE queued_erasures (
    operator_id INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    external_id TEXT NOT NULL,
    PRIMARY KEY (operator_id, job_id, external_id)
) STRICT, WITHOUT ROWID;

-- Who works off an operator's batches and for how long yet, and the one under way: its items before
-- position are done. Apart from the payload, which would be written anew with every chunk.
CREATE TABLE queue_heads (
    operator_id INTEGER NOT NULL,
    holder TEXT NOT NULL DEFAULT '',
    expires_at_ms INTEGER NOT NULL DEFAULT 0,
    job_id TEXT,
    position INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (operator_id)
) STRICT, WITHOUT ROWID;
