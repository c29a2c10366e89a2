-- Queued batches (storage/queue.py). An operator's lease, and how far the batch under way has come, are in
-- queue_heads; payloads are read once and written once.

-- name: queue_size
SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(max(queue_no), 0)
FROM queued_batches WHERE operator_id = ?1

-- name: queue_batch
INSERT INTO queued_batches (
    operator_id, job_id, queue_no, template_id, ndjson, item_count, size_bytes, accepted_at_ms, payload
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: queue_job
INSERT INTO jobs (operator_id, job_id, type, status, progress, created_at_ms)
VALUES (?, ?, ?, 'queued', 0, ?)

-- name: add_queue_head
INSERT INTO queue_heads (operator_id, holder) VALUES (?1, '') ON CONFLICT (operator_id) DO NOTHING

-- name: queued_operators
-- One that ends in more than a minute was taken by a clock that was wrong.
SELECT h.operator_id FROM queue_heads AS h
JOIN operators AS o ON o.operator_id = h.operator_id
WHERE o.suspended_at_ms IS NULL
    AND (h.holder IN ('', ?1) OR h.expires_at_ms <= ?2 OR h.expires_at_ms > ?2 + 60000)
    AND EXISTS (SELECT 1 FROM queued_batches AS q WHERE q.operator_id = h.operator_id)

-- name: take_queue
UPDATE queue_heads SET holder = ?2, expires_at_ms = ?3
WHERE operator_id = ?1
    AND (holder IN ('', ?2) OR expires_at_ms <= ?4 OR expires_at_ms > ?4 + 60000)
RETURNING operator_id

-- name: renew_queue
UPDATE queue_heads SET expires_at_ms = ?3 WHERE operator_id = ?1 AND holder = ?2
RETURNING operator_id

-- name: give_back_queue
UPDATE queue_heads SET holder = '' WHERE operator_id = ?1 AND holder = ?2

-- name: next_in_queue
-- The batch under way, before those that are older by their number.
SELECT q.job_id, j.type, q.template_id, q.ndjson, q.item_count, q.accepted_at_ms, q.payload,
    iif(q.job_id = h.job_id, h.position, 0), j.output
FROM queue_heads AS h
CROSS JOIN queued_batches AS q ON q.operator_id = h.operator_id
CROSS JOIN jobs AS j ON j.operator_id = q.operator_id AND j.job_id = q.job_id
WHERE h.operator_id = ?1 AND q.job_id = coalesce(h.job_id, (
    SELECT n.job_id FROM queued_batches AS n WHERE n.operator_id = ?1
    ORDER BY n.queue_no, n.job_id LIMIT 1
))

-- name: begin_queued
UPDATE queue_heads SET job_id = ?2, position = ?3 WHERE operator_id = ?1

-- name: process_job
UPDATE jobs SET status = 'processing' WHERE operator_id = ?1 AND job_id = ?2

-- name: advance_queue
UPDATE queue_heads SET position = ?5, expires_at_ms = ?6
WHERE operator_id = ?1 AND holder = ?2 AND job_id = ?3 AND position = ?4
RETURNING operator_id

-- name: progress_job
UPDATE jobs SET progress = ?3, output = ?4 WHERE operator_id = ?1 AND job_id = ?2

-- name: complete_job
UPDATE jobs SET status = 'completed', progress = 100, output = ?3, completed_at_ms = ?4
WHERE operator_id = ?1 AND job_id = ?2

-- name: end_job
UPDATE jobs SET status = ?3, error = ?4, completed_at_ms = ?5 WHERE operator_id = ?1 AND job_id = ?2

-- name: leave_queue
DELETE FROM queued_batches WHERE operator_id = ?1 AND job_id = ?2

-- name: forget_queued_erasures
DELETE FROM queued_erasures WHERE operator_id = ?1 AND job_id = ?2

-- name: clear_queue_head
-- Whoever has the lease gives it back with the job.
UPDATE queue_heads SET holder = '', job_id = NULL, position = 0 WHERE operator_id = ?1 AND job_id = ?2

-- name: note_queued_erasure
INSERT OR IGNORE INTO queued_erasures (operator_id, job_id, external_id)
SELECT operator_id, job_id, ?2 FROM queued_batches WHERE operator_id = ?1

-- name: queued_erasures
SELECT external_id FROM queued_erasures WHERE operator_id = ?1 AND job_id = ?2

-- name: queued_count
SELECT count(*) FROM queued_batches

-- name: queued_payloads
SELECT job_id, coalesce(substr(payload, 2, 4), x'') FROM queued_batches
WHERE operator_id = ?1 ORDER BY queue_no, job_id

-- name: queued_payload
SELECT payload FROM queued_batches WHERE operator_id = ?1 AND job_id = ?2

-- name: reseal_queued
UPDATE queued_batches SET payload = ?4 WHERE operator_id = ?1 AND job_id = ?2 AND payload = ?3
RETURNING operator_id
