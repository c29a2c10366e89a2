-- The audit log's statements. None changes or removes an entry.

-- name: audit_head
SELECT seq, hash FROM audit_log WHERE operator_id = ?1 ORDER BY seq DESC LIMIT 1

-- name: add_audit_entries
INSERT INTO audit_log (operator_id, seq, at_ms, action, actor, subject, detail, hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: audit_chain
SELECT operator_id, seq, at_ms, action, actor, subject, detail, hash
FROM audit_log WHERE operator_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3

-- name: audit_entries
-- A page in the reverse order of the index audit_times.
SELECT operator_id, seq, at_ms, action, actor, subject, detail, hash
FROM audit_log INDEXED BY audit_times
WHERE operator_id = ?1 AND at_ms >= ?2 AND (at_ms, seq) < (?3, ?4) AND (?5 IS NULL OR action = ?5)
ORDER BY at_ms DESC, seq DESC LIMIT ?6

-- name: audit_heads
-- Each chain's end is looked up in its own part of the key, however long it is.
SELECT o.operator_id, a.seq, a.hash
FROM (SELECT 0 AS operator_id UNION ALL SELECT operator_id FROM operators) AS o
CROSS JOIN audit_log AS a ON a.operator_id = o.operator_id AND a.seq = (
    SELECT max(seq) FROM audit_log WHERE operator_id = o.operator_id
)
ORDER BY o.operator_id
