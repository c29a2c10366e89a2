-- Queued batches (storage/queue.py). An operator's lease, and how far the batch under way has come, are in
-- queue_heads; payloads are read once and written once. Locks are taken in this order: the claim, the head,
-- then what every write takes, then the queued batch.

-- name: lock_queueing
-- One batch of an operator is queued after the other: they are counted and numbered.
SELECT operator_id FROM opdata.operators WHERE operator_id = $1 FOR NO KEY UPDATE

-- name: queue_size
SELECT count(*), coalesce(sum(size_bytes), 0)::bigint, coalesce(max(queue_no), 0)
FROM opdata.queued_batches WHERE operator_id = $1

-- name: queue_batch
INSERT INTO opdata.queued_batches (
    operator_id, job_id, queue_no, template_id, ndjson, item_count, size_bytes, accepted_at_ms, payload
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: queue_job
INSERT INTO opdata.jobs (operator_id, job_id, type, status, progress, created_at_ms)
VALUES ($1, $2, $3, 'queued', 0, $4)

-- name: add_queue_head
INSERT INTO opdata.queue_heads (operator_id, holder) VALUES ($1, '')
ON CONFLICT (operator_id) DO NOTHING

-- name: queued_operators
-- Of every operator, for a worker that looks for something to do. A lease that ends in more than a minute
-- was taken by a clock that was wrong.
SELECT h.operator_id FROM opdata.queue_heads AS h
JOIN opdata.operators AS o ON o.operator_id = h.operator_id
WHERE o.suspended_at_ms IS NULL
    AND (h.holder IN ('', $1) OR h.expires_at_ms <= $2 OR h.expires_at_ms > $2 + 60000)
    AND EXISTS (SELECT 1 FROM opdata.queued_batches AS q WHERE q.operator_id = h.operator_id)

-- name: take_queue
UPDATE opdata.queue_heads SET holder = $2, expires_at_ms = $3
WHERE operator_id = $1
    AND (holder IN ('', $2) OR expires_at_ms <= $4 OR expires_at_ms > $4 + 60000)
RETURNING operator_id

-- name: renew_queue
UPDATE opdata.queue_heads SET expires_at_ms = $3 WHERE operator_id = $1 AND holder = $2
RETURNING operator_id

-- name: give_back_queue
UPDATE opdata.queue_heads SET holder = '' WHERE operator_id = $1 AND holder = $2

-- name: queue_head
-- Locked until the transaction ends: no chunk is written meanwhile, and nothing is cancelled.
SELECT job_id, position FROM opdata.queue_heads WHERE operator_id = $1 FOR UPDATE

-- name: oldest_in_queue
SELECT job_id FROM opdata.queued_batches WHERE operator_id = $1 ORDER BY queue_no, job_id LIMIT 1

-- name: queued_batch
SELECT q.job_id, j.type, q.template_id, q.ndjson, q.item_count, q.accepted_at_ms, q.payload, j.output
FROM opdata.queued_batches AS q
JOIN opdata.jobs AS j ON j.operator_id = q.operator_id AND j.job_id = q.job_id
WHERE q.operator_id = $1 AND q.job_id = $2

-- name: begin_queued
UPDATE opdata.queue_heads SET job_id = $2, position = $3 WHERE operator_id = $1

-- name: process_job
UPDATE opdata.jobs SET status = 'processing' WHERE operator_id = $1 AND job_id = $2

-- name: advance_queue
-- Locked until the transaction ends, as by queue_head.
UPDATE opdata.queue_heads SET position = $5, expires_at_ms = $6
WHERE operator_id = $1 AND holder = $2 AND job_id = $3 AND position = $4
RETURNING operator_id

-- name: progress_job
UPDATE opdata.jobs SET progress = $3, output = $4 WHERE operator_id = $1 AND job_id = $2

-- name: complete_job
UPDATE opdata.jobs SET status = 'completed', progress = 100, output = $3, completed_at_ms = $4
WHERE operator_id = $1 AND job_id = $2

-- name: end_job
UPDATE opdata.jobs SET status = $3, error = $4, completed_at_ms = $5
WHERE operator_id = $1 AND job_id = $2

-- name: leave_queue
-- Waits for an erasure that has found the batch queued, and has noted so or is about to.
DELETE FROM opdata.queued_batches WHERE operator_id = $1 AND job_id = $2

-- name: forget_queued_erasures
DELETE FROM opdata.queued_erasures WHERE operator_id = $1 AND job_id = $2
RETURNING external_id

-- name: clear_queue_head
-- Whoever has the lease gives it back with the job.
UPDATE opdata.queue_heads SET holder = '', job_id = NULL, position = 0
WHERE operator_id = $1 AND job_id = $2

-- name: hold_queued_batches
-- Those that an erasure is noted for; they do not leave the queue before it is committed.
SELECT job_id FROM opdata.queued_batches WHERE operator_id = $1 ORDER BY job_id FOR KEY SHARE

-- name: note_queued_erasure
INSERT INTO opdata.queued_erasures (operator_id, job_id, external_id)
SELECT o.operator_id, r.job_id, $3::text
FROM opdata.operators AS o
CROSS JOIN unnest(string_to_array($2, E'\x1f')) AS r (job_id)
WHERE o.operator_id = $1
ON CONFLICT (operator_id, job_id, external_id) DO NOTHING

-- name: queued_erasures
SELECT external_id FROM opdata.queued_erasures WHERE operator_id = $1 AND job_id = $2

-- name: queued_count
-- Of every operator, for the metrics.
SELECT count(*) FROM opdata.queued_batches

-- name: queued_payloads
SELECT job_id, substring(payload FROM 2 FOR 4) FROM opdata.queued_batches
WHERE operator_id = $1 ORDER BY queue_no, job_id

-- name: queued_payload
SELECT payload FROM opdata.queued_batches WHERE operator_id = $1 AND job_id = $2

-- name: reseal_queued
UPDATE opdata.queued_batches SET payload = $4
WHERE operator_id = $1 AND job_id = $2 AND payload = $3
RETURNING operator_id
