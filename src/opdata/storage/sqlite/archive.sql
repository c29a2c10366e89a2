-- Retention's statements (storage/archive.py). None of them looks through a live table: events are
-- found by entity and time in the index entity_events, erased entities in the index tombstones.

-- name: take_lease
-- One that ends in more than ten minutes was taken by a clock that was wrong.
INSERT INTO retention_leases (operator_id, holder, taken_at_ms, expires_at_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (operator_id) DO UPDATE SET
    holder = excluded.holder, taken_at_ms = excluded.taken_at_ms, expires_at_ms = excluded.expires_at_ms
WHERE retention_leases.holder IN ('', excluded.holder)
    OR retention_leases.expires_at_ms <= excluded.taken_at_ms
    OR retention_leases.expires_at_ms > excluded.taken_at_ms + 600000
RETURNING operator_id

-- name: renew_lease
UPDATE retention_leases SET expires_at_ms = ?3 WHERE operator_id = ?1 AND holder = ?2
RETURNING operator_id

-- name: end_lease
UPDATE retention_leases SET holder = '', finished_at_ms = coalesce(?3, finished_at_ms)
WHERE operator_id = ?1 AND holder = ?2

-- name: lease
SELECT holder, expires_at_ms, finished_at_ms FROM retention_leases WHERE operator_id = ?1

-- name: archive_files
SELECT file_id, kind, path, state, row_count, size_bytes, sha256, oldest_ms, newest_ms, created_at_ms
FROM archive_files WHERE operator_id = ?1 ORDER BY file_id

-- name: put_archive_file
INSERT INTO archive_files (
    operator_id, file_id, kind, path, state, row_count, size_bytes, sha256, oldest_ms, newest_ms,
    created_at_ms
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (operator_id, file_id) DO UPDATE SET
    state = excluded.state, row_count = excluded.row_count, size_bytes = excluded.size_bytes,
    sha256 = excluded.sha256, oldest_ms = excluded.oldest_ms, newest_ms = excluded.newest_ms

-- name: forget_archive_file
DELETE FROM archive_files WHERE operator_id = ?1 AND file_id = ?2

-- name: walk_event_entities
-- [entity_no] of so many entities that have events, after one: a look-up for each, however many events.
WITH RECURSIVE walked (entity_no, steps) AS (
    SELECT (SELECT min(v.entity_no) FROM events AS v WHERE v.operator_id = ?1 AND v.entity_no > ?2), 1
    UNION ALL
    SELECT (
        SELECT min(v.entity_no) FROM events AS v
        WHERE v.operator_id = ?1 AND v.entity_no > w.entity_no
    ), w.steps + 1
    FROM walked AS w WHERE w.entity_no IS NOT NULL AND w.steps < ?3
)
SELECT json_group_array(entity_no) FROM walked WHERE entity_no IS NOT NULL

-- name: tally_events
-- Of the entities in a JSON array. CROSS JOIN fixes the order: a look-up for each.
SELECT strftime('%Y-%m', v.occurred_at_ms / 1000.0, 'unixepoch') AS month, v.occurred_at_ms < ?5 AS gone,
    EXISTS (
        SELECT 1 FROM legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id
    ) AS held,
    v.recorded_at_ms < ?6 AS settled, count(*), sum(octet_length(v.data))
FROM json_each(?2) AS n
CROSS JOIN entities AS e ON e.entity_no = n.value
CROSS JOIN events AS v INDEXED BY entity_events
    ON v.operator_id = e.operator_id AND v.entity_no = e.entity_no
WHERE e.operator_id = ?1 AND v.occurred_at_ms >= ?3 AND v.occurred_at_ms < ?4
GROUP BY month, gone, held, settled

-- name: old_events
-- Of one entity after one of its events, in the order of the index entity_events.
SELECT v.entity_no, v.event_no, v.event_id, e.entity_id, v.event_type, v.data, v.occurred_at_ms,
    v.recorded_at_ms, v.idempotency_key
FROM entities AS e
CROSS JOIN events AS v INDEXED BY entity_events
    ON v.operator_id = e.operator_id AND v.entity_no = e.entity_no
WHERE e.entity_no = ?2 AND e.operator_id = ?1
    AND (v.occurred_at_ms, v.event_no) > (?3, ?4) AND v.occurred_at_ms < ?5 AND v.recorded_at_ms < ?6
    AND NOT EXISTS (
        SELECT 1 FROM legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id
    )
ORDER BY v.occurred_at_ms, v.event_no LIMIT ?7

-- name: tombstone_walk_end
-- The last of so many erased entities after one; no row when there are fewer.
SELECT deleted_at_ms, entity_no FROM entities INDEXED BY tombstones
WHERE operator_id = ?1 AND deleted_at_ms IS NOT NULL AND (deleted_at_ms, entity_no) > (?2, ?3)
    AND deleted_at_ms < ?4
ORDER BY deleted_at_ms, entity_no LIMIT 1 OFFSET ?5 - 1

-- name: tally_states
-- Of the erased entities between two, the second included.
SELECT strftime('%Y-%m', e.deleted_at_ms / 1000.0, 'unixepoch') AS month, e.deleted_at_ms < ?6 AS gone,
    EXISTS (
        SELECT 1 FROM legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id
    ) AS held,
    true AS settled, count(*), sum(octet_length(s.value))
FROM entities AS e INDEXED BY tombstones
CROSS JOIN states AS s ON s.operator_id = e.operator_id AND s.entity_no = e.entity_no
WHERE e.operator_id = ?1 AND e.deleted_at_ms IS NOT NULL
    AND (e.deleted_at_ms, e.entity_no) > (?2, ?3) AND (e.deleted_at_ms, e.entity_no) <= (?4, ?5)
GROUP BY month, gone, held, settled

-- name: old_states
-- Of the erased entities between two, the second included.
SELECT s.entity_no, s.state_key, e.entity_id, s.value, s.observed_at_ms, s.updated_at_ms,
    e.deleted_at_ms
FROM entities AS e INDEXED BY tombstones
CROSS JOIN states AS s ON s.operator_id = e.operator_id AND s.entity_no = e.entity_no
WHERE e.operator_id = ?1 AND e.deleted_at_ms IS NOT NULL
    AND (e.deleted_at_ms, e.entity_no) > (?2, ?3) AND (e.deleted_at_ms, e.entity_no) <= (?4, ?5)
    AND NOT EXISTS (
        SELECT 1 FROM legal_holds AS h
        WHERE h.operator_id = e.operator_id AND h.external_id = e.external_id
    )
ORDER BY e.deleted_at_ms, e.entity_no, s.state_key

-- name: held_numbers
-- [entity_no] of those entities in a JSON array that are held.
SELECT json_group_array(n.value)
FROM json_each(?2) AS n
CROSS JOIN entities AS e ON e.entity_no = n.value
CROSS JOIN legal_holds AS h ON h.operator_id = e.operator_id AND h.external_id = e.external_id
WHERE e.operator_id = ?1

-- name: remove_event
-- By its id as well: the number of a row that is gone may be another event's by now.
DELETE FROM events WHERE event_no = ?2 AND operator_id = ?1 AND event_id = ?3

-- name: kept_event
SELECT 1 FROM events WHERE event_no = ?2 AND operator_id = ?1 AND event_id = ?3

-- name: kept_state
SELECT 1 FROM states WHERE operator_id = ?1 AND entity_no = ?2 AND state_key = ?3

-- name: remove_state
DELETE FROM states WHERE operator_id = ?1 AND entity_no = ?2 AND state_key = ?3

-- name: remove_tombstones
-- Those between two, the second included, that nothing refers to any more.
DELETE FROM entities INDEXED BY tombstones
WHERE operator_id = ?1 AND deleted_at_ms IS NOT NULL
    AND (deleted_at_ms, entity_no) > (?2, ?3) AND (deleted_at_ms, entity_no) <= (?4, ?5)
    AND NOT EXISTS (
        SELECT 1 FROM events AS v
        WHERE v.operator_id = entities.operator_id AND v.entity_no = entities.entity_no
    )
    AND NOT EXISTS (
        SELECT 1 FROM states AS s
        WHERE s.operator_id = entities.operator_id AND s.entity_no = entities.entity_no
    )
    AND NOT EXISTS (
        SELECT 1 FROM legal_holds AS h
        WHERE h.operator_id = entities.operator_id AND h.external_id = entities.external_id
    )

-- name: held_ids
-- Live ones by their name, erased ones by looking at each: there are few of both.
SELECT e.entity_id
FROM legal_holds AS h
CROSS JOIN entities AS e INDEXED BY live_entities
    ON e.operator_id = h.operator_id AND e.external_id = h.external_id AND e.deleted_at_ms IS NULL
WHERE h.operator_id = ?1
UNION ALL
SELECT e.entity_id
FROM entities AS e INDEXED BY tombstones
CROSS JOIN legal_holds AS h ON h.operator_id = e.operator_id AND h.external_id = e.external_id
WHERE e.operator_id = ?1 AND e.deleted_at_ms IS NOT NULL
