-- Retention's statements (storage/archive.py); the rules are those of queries.sql. None of them looks
-- through a live table: entities are walked in the order of their key, erased ones in that of the index
-- tombstones, and the events of each are found by time in the key of events. OFFSET 0 has a subquery
-- looked up for each row, whatever the planner thinks of a table that it knows nothing of yet.

-- name: take_lease
-- One that ends in more than ten minutes was taken by a clock that was wrong.
INSERT INTO opdata.retention_leases (operator_id, holder, taken_at_ms, expires_at_ms)
VALUES ($1, $2, $3, $4)
ON CONFLICT (operator_id) DO UPDATE SET
    holder = excluded.holder, taken_at_ms = excluded.taken_at_ms, expires_at_ms = excluded.expires_at_ms
WHERE retention_leases.holder IN ('', excluded.holder)
    OR retention_leases.expires_at_ms <= excluded.taken_at_ms
    OR retention_leases.expires_at_ms > excluded.taken_at_ms + 600000
RETURNING operator_id

-- name: renew_lease
-- Locked until the transaction ends: nobody takes it over in between.
UPDATE opdata.retention_leases SET expires_at_ms = $3 WHERE operator_id = $1 AND holder = $2
RETURNING operator_id

-- name: end_lease
UPDATE opdata.retention_leases SET holder = '', finished_at_ms = coalesce($3, finished_at_ms)
WHERE operator_id = $1 AND holder = $2

-- name: lease
SELECT holder, expires_at_ms, finished_at_ms FROM opdata.retention_leases WHERE operator_id = $1

-- name: lock_holds
-- Taken by whoever places a hold and whoever removes rows: one comes after the other, and sees it.
SELECT operator_id FROM opdata.operators WHERE operator_id = $1 FOR NO KEY UPDATE

-- name: archive_files
SELECT file_id, kind, path, state, row_count, size_bytes, sha256, oldest_ms, newest_ms, created_at_ms
FROM opdata.archive_files WHERE operator_id = $1 ORDER BY file_id

-- name: put_archive_file
INSERT INTO opdata.archive_files (
    operator_id, file_id, kind, path, state, row_count, size_bytes, sha256, oldest_ms, newest_ms,
    created_at_ms
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (operator_id, file_id) DO UPDATE SET
    state = excluded.state, row_count = excluded.row_count, size_bytes = excluded.size_bytes,
    sha256 = excluded.sha256, oldest_ms = excluded.oldest_ms, newest_ms = excluded.newest_ms

-- name: forget_archive_file
DELETE FROM opdata.archive_files WHERE operator_id = $1 AND file_id = $2

-- name: archive_walk_end
-- The last of so many entities, erased ones included, after one; no row when there are fewer.
SELECT external_id, tombstone_no FROM opdata.entities
WHERE operator_id = $1 AND (external_id, tombstone_no) > ($2, $3)
ORDER BY external_id, tombstone_no LIMIT 1 OFFSET $4 - 1

-- name: tally_events
-- Of the entities between two, the second included.
SELECT to_char(to_timestamp(v.occurred_at_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
    v.occurred_at_ms < $8 AS gone,
    EXISTS (
        SELECT 1 FROM opdata.legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id OFFSET 0
    ) AS held,
    v.recorded_at_ms < $9 AS settled, count(*) AS rows, sum(octet_length(v.data::text)) AS size_bytes
FROM opdata.entities AS e
CROSS JOIN LATERAL (
    SELECT occurred_at_ms, recorded_at_ms, data FROM opdata.events
    WHERE operator_id = e.operator_id AND entity_no = e.entity_no
        AND occurred_at_ms >= $6 AND occurred_at_ms < $7
    OFFSET 0
) AS v
WHERE e.operator_id = $1
    AND (e.external_id, e.tombstone_no) > ($2, $3) AND (e.external_id, e.tombstone_no) <= ($4, $5)
GROUP BY 1, 2, 3, 4

-- name: rest_of_old_events
-- What an entity has after one of its events, in the order of the key.
SELECT e.external_id, e.tombstone_no, e.entity_no, v.event_no, v.event_id, e.entity_id, v.event_type,
    v.data, v.occurred_at_ms, v.recorded_at_ms, v.idempotency_key
FROM opdata.entities AS e
CROSS JOIN LATERAL (
    SELECT event_no, event_id, event_type, data, occurred_at_ms, recorded_at_ms, idempotency_key
    FROM opdata.events
    WHERE operator_id = e.operator_id AND entity_no = e.entity_no
        AND (occurred_at_ms, event_no) > ($4, $5) AND occurred_at_ms < $6 AND recorded_at_ms < $7
    ORDER BY occurred_at_ms, event_no LIMIT $8
) AS v
WHERE e.operator_id = $1 AND e.external_id = $2 AND e.tombstone_no = $3
    AND NOT EXISTS (
        SELECT 1 FROM opdata.legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id OFFSET 0
    )
ORDER BY v.occurred_at_ms, v.event_no

-- name: old_events
-- Of the entities between two, the second included; an entity at a time, so that nothing beyond the
-- page is read.
SELECT e.external_id, e.tombstone_no, e.entity_no, v.event_no, v.event_id, e.entity_id, v.event_type,
    v.data, v.occurred_at_ms, v.recorded_at_ms, v.idempotency_key
FROM opdata.entities AS e
CROSS JOIN LATERAL (
    SELECT event_no, event_id, event_type, data, occurred_at_ms, recorded_at_ms, idempotency_key
    FROM opdata.events
    WHERE operator_id = e.operator_id AND entity_no = e.entity_no
        AND occurred_at_ms >= $6 AND occurred_at_ms < $7 AND recorded_at_ms < $8
    ORDER BY occurred_at_ms, event_no LIMIT $9
) AS v
WHERE e.operator_id = $1
    AND (e.external_id, e.tombstone_no) > ($2, $3) AND (e.external_id, e.tombstone_no) <= ($4, $5)
    AND NOT EXISTS (
        SELECT 1 FROM opdata.legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id OFFSET 0
    )
ORDER BY e.external_id, e.tombstone_no, v.occurred_at_ms, v.event_no LIMIT $9

-- name: tombstone_walk_end
-- The last of so many erased entities after one; no row when there are fewer.
SELECT deleted_at_ms, entity_no FROM opdata.entities
WHERE operator_id = $1 AND deleted_at_ms IS NOT NULL AND (deleted_at_ms, entity_no) > ($2, $3)
    AND deleted_at_ms < $4
ORDER BY deleted_at_ms, entity_no LIMIT 1 OFFSET $5 - 1

-- name: tally_states
-- Of the erased entities between two, the second included.
SELECT to_char(to_timestamp(e.deleted_at_ms / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
    e.deleted_at_ms < $6 AS gone,
    EXISTS (
        SELECT 1 FROM opdata.legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id OFFSET 0
    ) AS held,
    true AS settled, count(*) AS rows, sum(octet_length(s.value::text)) AS size_bytes
FROM opdata.entities AS e
CROSS JOIN LATERAL (
    SELECT value FROM opdata.states
    WHERE operator_id = e.operator_id AND entity_no = e.entity_no
    OFFSET 0
) AS s
WHERE e.operator_id = $1 AND e.deleted_at_ms IS NOT NULL
    AND (e.deleted_at_ms, e.entity_no) > ($2, $3) AND (e.deleted_at_ms, e.entity_no) <= ($4, $5)
GROUP BY 1, 2, 3, 4

-- name: old_states
-- Of the erased entities between two, the second included.
SELECT s.entity_no, s.state_key, e.entity_id, s.value, s.observed_at_ms, s.updated_at_ms,
    e.deleted_at_ms
FROM opdata.entities AS e
CROSS JOIN LATERAL (
    SELECT entity_no, state_key, value, observed_at_ms, updated_at_ms FROM opdata.states
    WHERE operator_id = e.operator_id AND entity_no = e.entity_no
    OFFSET 0
) AS s
WHERE e.operator_id = $1 AND e.deleted_at_ms IS NOT NULL
    AND (e.deleted_at_ms, e.entity_no) > ($2, $3) AND (e.deleted_at_ms, e.entity_no) <= ($4, $5)
    AND NOT EXISTS (
        SELECT 1 FROM opdata.legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id OFFSET 0
    )
ORDER BY e.deleted_at_ms, e.entity_no, s.state_key

-- name: held_entities
-- Erased ones of the same external id included.
SELECT e.entity_no, e.entity_id
FROM opdata.legal_holds AS h
CROSS JOIN LATERAL (
    SELECT entity_no, entity_id FROM opdata.entities
    WHERE operator_id = h.operator_id AND external_id = h.external_id
    OFFSET 0
) AS e
WHERE h.operator_id = $1

-- name: remove_event
DELETE FROM opdata.events
WHERE operator_id = $1 AND entity_no = $2 AND occurred_at_ms = $3 AND event_no = $4 AND event_id = $5
RETURNING event_no

-- name: kept_event
SELECT entity_no, occurred_at_ms, event_no, event_id FROM opdata.events
WHERE operator_id = $1 AND entity_no = $2 AND occurred_at_ms = $3 AND event_no = $4 AND event_id = $5

-- name: kept_state
SELECT entity_no, state_key FROM opdata.states WHERE operator_id = $1 AND entity_no = $2 AND state_key = $3

-- name: remove_state
DELETE FROM opdata.states WHERE operator_id = $1 AND entity_no = $2 AND state_key = $3
RETURNING entity_no

-- name: remove_tombstones
-- Those between two, the second included, that nothing refers to any more.
DELETE FROM opdata.entities AS e
WHERE e.operator_id = $1 AND e.deleted_at_ms IS NOT NULL
    AND (e.deleted_at_ms, e.entity_no) > ($2, $3) AND (e.deleted_at_ms, e.entity_no) <= ($4, $5)
    AND NOT EXISTS (
        SELECT 1 FROM opdata.events AS v
        WHERE v.operator_id = e.operator_id AND v.entity_no = e.entity_no OFFSET 0
    )
    AND NOT EXISTS (
        SELECT 1 FROM opdata.states AS s
        WHERE s.operator_id = e.operator_id AND s.entity_no = e.entity_no OFFSET 0
    )
    AND NOT EXISTS (
        SELECT 1 FROM opdata.legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id OFFSET 0
    )
