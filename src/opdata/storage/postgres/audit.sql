-- The audit log's statements. None changes or removes an entry.

-- name: lock_audit_chain
-- Locked until the transaction ends, by making the row or touching it.
INSERT INTO opdata.audit_locks AS l (operator_id, entries) VALUES ($1, 1)
ON CONFLICT (operator_id) DO UPDATE SET entries = l.entries + 1

-- name: audit_head
SELECT seq, hash FROM opdata.audit_log WHERE operator_id = $1 ORDER BY seq DESC LIMIT 1

-- name: add_audit_entry
INSERT INTO opdata.audit_log (operator_id, seq, at_ms, action, actor, subject, detail, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: audit_chain
SELECT operator_id, seq, at_ms, action, actor, subject, detail, hash
FROM opdata.audit_log WHERE operator_id = $1 AND seq > $2 ORDER BY seq LIMIT $3

-- name: audit_entries
-- A page in the reverse order of the index audit_times. What a text takes is known without reading it.
SELECT operator_id, seq, at_ms, action, actor, subject, detail, hash, bytes_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(octet_length(detail)) OVER (
        ORDER BY at_ms DESC, seq DESC ROWS UNBOUNDED PRECEDING
    ) AS bytes_so_far
    FROM (
        SELECT operator_id, seq, at_ms, action, actor, subject, detail, hash
        FROM opdata.audit_log
        WHERE operator_id = $1 AND at_ms >= $2 AND (at_ms, seq) < ($3, $4)
            AND ($5::text IS NULL OR action = $5)
        ORDER BY at_ms DESC, seq DESC LIMIT $6
    ) AS found
) AS page
WHERE bytes_so_far - octet_length(detail) <= 8388608
ORDER BY at_ms DESC, seq DESC

-- name: audited_operators
-- Of every operator: whose heads are then looked up one by one, each on its own shard.
SELECT operator_id FROM opdata.operators ORDER BY operator_id
