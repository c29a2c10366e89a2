-- The embedded store's statements. Lists travel as one JSON array and come back as one, because
-- every row that crosses into Python may have to wait for the interpreter's lock.
--
-- Bulk inserts say OR FAIL: with the default, OR ABORT, SQLite copies every page that a statement of
-- many rows touches, in case it has to take half of it back. A write that fails is rolled back as a
-- whole, so nobody needs that, and random keys make it half of the time.

-- name: find_live_entities
-- [position, entity_no, entity_id, hex(fingerprint)] of those names that are live.
-- CROSS JOIN fixes the order: a lookup for each name, never a scan of the table.
SELECT json_group_array(json_array(names.key, e.entity_no, e.entity_id, hex(e.fingerprint)))
FROM json_each(?1) AS names
CROSS JOIN entities AS e
    ON e.operator_id = ?2 AND e.external_id = names.value AND e.deleted_at_ms IS NULL

-- name: find_entity_numbers
-- [position, entity_no] of those names that are live.
SELECT json_group_array(json_array(names.key, e.entity_no))
FROM json_each(?1) AS names
CROSS JOIN entities AS e
    ON e.operator_id = ?2 AND e.external_id = names.value AND e.deleted_at_ms IS NULL

-- name: upsert_entities
-- A row with an entity_no replaces that one; NULL makes a new one. External id, entity_id and
-- created_at_ms of an existing row stay (W26).
INSERT OR FAIL INTO entities (
    entity_no, operator_id, external_id, entity_id, entity_type, data, sealed, fingerprint,
    created_at_ms, updated_at_ms
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (entity_no) DO UPDATE SET
    entity_type = excluded.entity_type, data = excluded.data, sealed = excluded.sealed,
    fingerprint = excluded.fingerprint, updated_at_ms = excluded.updated_at_ms

-- name: append_events
INSERT OR FAIL INTO events (
    operator_id, entity_no, event_id, event_type, data, occurred_at_ms, recorded_at_ms, idempotency_key
) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: find_event_keys
-- [position, hex(event_id), hex(fingerprint)] of those idempotency keys that are taken.
SELECT json_group_array(json_array(names.key, hex(k.event_id), hex(k.fingerprint)))
FROM json_each(?1) AS names
CROSS JOIN event_keys AS k ON k.operator_id = ?2 AND k.idempotency_key = names.value

-- name: add_event_keys
INSERT OR FAIL INTO event_keys (operator_id, idempotency_key, event_id, fingerprint) VALUES (?, ?, ?, ?)

-- name: overwrite_states
INSERT OR FAIL INTO states (
    operator_id, entity_no, state_key, value, observed_at_ms, updated_at_ms
) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (operator_id, entity_no, state_key) DO UPDATE SET
    value = excluded.value, observed_at_ms = excluded.observed_at_ms,
    updated_at_ms = excluded.updated_at_ms

-- name: observe_states
-- As overwrite_states, unless what is stored was observed later (W28).
INSERT OR FAIL INTO states (
    operator_id, entity_no, state_key, value, observed_at_ms, updated_at_ms
) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (operator_id, entity_no, state_key) DO UPDATE SET
    value = excluded.value, observed_at_ms = excluded.observed_at_ms,
    updated_at_ms = excluded.updated_at_ms
WHERE excluded.observed_at_ms >= states.observed_at_ms

-- name: bury_entity
-- The record becomes a tombstone; the person's part of it goes (W51).
UPDATE entities SET deleted_at_ms = ?1, sealed = NULL, fingerprint = NULL
WHERE operator_id = ?2 AND external_id = ?3 AND deleted_at_ms IS NULL

-- name: live_entity_id
SELECT entity_id FROM entities
WHERE operator_id = ?1 AND external_id = ?2 AND deleted_at_ms IS NULL

-- name: add_to_ledger
INSERT INTO erasure_ledger (operator_id, entity_id, erased_at_ms, reason) VALUES (?, ?, ?, ?)
ON CONFLICT (operator_id, entity_id) DO NOTHING

-- name: is_held
SELECT 1 FROM legal_holds WHERE operator_id = ?1 AND external_id = ?2

-- name: place_hold
-- One that is there keeps its time.
INSERT INTO legal_holds (operator_id, external_id, reason, placed_at_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (operator_id, external_id) DO UPDATE SET reason = excluded.reason

-- name: lift_hold
DELETE FROM legal_holds WHERE operator_id = ?1 AND external_id = ?2

-- name: change_template
UPDATE operators SET template_id = ?2 WHERE operator_id = ?1

-- name: change_data_retention_days
UPDATE operators SET data_retention_days = ?2 WHERE operator_id = ?1

-- name: change_retention_policy
UPDATE operators SET retention_policy = ?2 WHERE operator_id = ?1

-- name: add_job
INSERT INTO jobs (
    operator_id, job_id, type, status, progress, output, created_at_ms, completed_at_ms
) VALUES (?, ?, ?, 'completed', 100, ?, ?, ?)

-- name: find_idempotency_record
SELECT fingerprint, status, body FROM idempotency_records
WHERE operator_id = ?1 AND idempotency_key = ?2 AND method = ?3 AND path = ?4 AND created_at_ms > ?5

-- name: add_idempotency_record
-- An expired record of the same key gives way.
INSERT OR REPLACE INTO idempotency_records (
    operator_id, idempotency_key, method, path, fingerprint, status, body, created_at_ms
) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: purge_idempotency_records
DELETE FROM idempotency_records WHERE rowid IN (
    SELECT rowid FROM idempotency_records WHERE created_at_ms <= ?1 LIMIT ?2
)

-- name: entity
SELECT entity_id, external_id, entity_type, data, sealed, created_at_ms, updated_at_ms
FROM entities
WHERE operator_id = ?1 AND external_id = ?2 AND deleted_at_ms IS NULL

-- name: entities
-- A page in the order of the index live_entities.
SELECT entity_id, external_id, entity_type, data, NULL, created_at_ms, updated_at_ms
FROM entities INDEXED BY live_entities
WHERE operator_id = ?1 AND external_id > ?2 AND deleted_at_ms IS NULL
    AND (?3 IS NULL OR entity_type = ?3)
ORDER BY external_id LIMIT ?4

-- name: entity_number
SELECT entity_no FROM entities
WHERE operator_id = ?1 AND external_id = ?2 AND deleted_at_ms IS NULL

-- name: events
-- A page in the reverse order of the index entity_events.
SELECT event_id, event_type, data, occurred_at_ms, recorded_at_ms, event_no
FROM events INDEXED BY entity_events
WHERE operator_id = ?1 AND entity_no = ?2
    AND occurred_at_ms >= ?3 AND (occurred_at_ms, event_no) < (?4, ?5)
    AND (?6 IS NULL OR event_type = ?6)
ORDER BY occurred_at_ms DESC, event_no DESC LIMIT ?7

-- name: states
SELECT state_key, value, updated_at_ms FROM states
WHERE operator_id = ?1 AND entity_no = ?2 AND (?3 IS NULL OR state_key = ?3)
ORDER BY state_key

-- name: walk_end
-- The last of so many entities after a name; no row when there are fewer.
SELECT external_id FROM entities INDEXED BY live_entities
WHERE operator_id = ?1 AND external_id > ?2 AND deleted_at_ms IS NULL
ORDER BY external_id LIMIT 1 OFFSET ?3 - 1

-- name: rest_of_events
-- What an entity has after one of its events, in the order of the index entity_events.
SELECT e.external_id, v.idempotency_key, v.event_id, v.event_type, v.data, v.occurred_at_ms,
    v.recorded_at_ms, v.event_no
FROM entities AS e INDEXED BY live_entities
CROSS JOIN events AS v INDEXED BY entity_events
    ON v.operator_id = e.operator_id AND v.entity_no = e.entity_no
WHERE e.operator_id = ?1 AND e.external_id = ?2 AND e.deleted_at_ms IS NULL
    AND (v.occurred_at_ms, v.event_no) > (?3, ?4)
    AND v.occurred_at_ms >= ?5 AND v.occurred_at_ms < ?6 AND (?7 IS NULL OR v.event_type = ?7)
ORDER BY v.occurred_at_ms, v.event_no LIMIT ?8

-- name: all_events
-- Events of the entities between two names, the second included: both in the order of their indexes.
SELECT e.external_id, v.idempotency_key, v.event_id, v.event_type, v.data, v.occurred_at_ms,
    v.recorded_at_ms, v.event_no
FROM entities AS e INDEXED BY live_entities
CROSS JOIN events AS v INDEXED BY entity_events
    ON v.operator_id = e.operator_id AND v.entity_no = e.entity_no
WHERE e.operator_id = ?1 AND e.external_id > ?2 AND e.external_id <= ?3 AND e.deleted_at_ms IS NULL
    AND v.occurred_at_ms >= ?4 AND v.occurred_at_ms < ?5 AND (?6 IS NULL OR v.event_type = ?6)
ORDER BY e.external_id, v.occurred_at_ms, v.event_no LIMIT ?7

-- name: all_states
-- States of the entities from a name on to another one, after a key of the first.
SELECT e.external_id, s.observed_at_ms, s.state_key, s.value, s.updated_at_ms
FROM entities AS e INDEXED BY live_entities
CROSS JOIN states AS s ON s.operator_id = e.operator_id AND s.entity_no = e.entity_no
WHERE e.operator_id = ?1 AND e.external_id >= ?2 AND e.external_id <= ?4 AND e.deleted_at_ms IS NULL
    AND (e.external_id > ?2 OR s.state_key > ?3) AND (?5 IS NULL OR s.state_key = ?5)
ORDER BY e.external_id, s.state_key LIMIT ?6

-- name: ledger
SELECT entity_id, erased_at_ms, reason FROM erasure_ledger
WHERE operator_id = ?1 AND entity_id > ?2
ORDER BY entity_id LIMIT ?3

-- name: returned
-- A page in the order of the index live_entities, each row looked up in the ledger.
SELECT e.external_id, e.entity_id
FROM entities AS e INDEXED BY live_entities
CROSS JOIN erasure_ledger AS l ON l.operator_id = e.operator_id AND l.entity_id = e.entity_id
WHERE e.operator_id = ?1 AND e.external_id > ?2 AND e.deleted_at_ms IS NULL
ORDER BY e.external_id LIMIT ?3

-- name: holds
SELECT external_id, reason, placed_at_ms FROM legal_holds
WHERE operator_id = ?1 ORDER BY external_id

-- name: job
SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms
FROM jobs WHERE operator_id = ?1 AND job_id = ?2

-- name: jobs
SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms
FROM jobs
WHERE (?1 IS NULL OR operator_id = ?1) AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR type = ?3)
    AND (created_at_ms, job_id) < (?4, ?5)
ORDER BY created_at_ms DESC, job_id DESC LIMIT ?6

-- name: create_operator
INSERT INTO operators (name, key_salt, created_at_ms) VALUES (?, ?, ?)
ON CONFLICT (name) DO NOTHING RETURNING operator_id

-- name: operators
SELECT operator_id, name, key_salt, template_id, data_retention_days, retention_policy, limits,
    created_at_ms, suspended_at_ms, suspension_reason
FROM operators WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY operator_id

-- name: set_limits
UPDATE operators SET limits = ?2 WHERE operator_id = ?1

-- name: suspend_operator
-- One that is suspended already stays so since then, under the new reason if there is one.
UPDATE operators SET
    suspended_at_ms = coalesce(suspended_at_ms, ?2),
    suspension_reason = coalesce(?3, suspension_reason)
WHERE operator_id = ?1

-- name: resume_operator
UPDATE operators SET suspended_at_ms = NULL, suspension_reason = NULL
WHERE operator_id = ?1 AND suspended_at_ms IS NOT NULL

-- name: create_key
INSERT INTO api_keys (
    operator_id, key_id, label, key_hash, masked_key, created_at_ms, scopes, expires_at_ms
) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: keys
SELECT key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms
FROM api_keys WHERE operator_id = ?1 AND (?2 IS NULL OR key_id = ?2)
ORDER BY created_at_ms, key_id

-- name: authenticate
SELECT key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms
FROM api_keys
WHERE key_hash = ?1 AND revoked_at_ms IS NULL AND (expires_at_ms IS NULL OR expires_at_ms > ?2)

-- name: relabel_key
UPDATE api_keys SET label = ?3 WHERE operator_id = ?1 AND key_id = ?2

-- name: revoke_key
UPDATE api_keys SET revoked_at_ms = ?3
WHERE operator_id = ?1 AND key_id = ?2 AND revoked_at_ms IS NULL

-- name: touch_keys
UPDATE api_keys SET last_used_at_ms = used.value
FROM json_each(?1) AS used
WHERE api_keys.key_id = used.key
    AND (api_keys.last_used_at_ms IS NULL OR api_keys.last_used_at_ms < used.value)

-- name: key_checks
SELECT key_id, check_value FROM master_keys

-- name: add_key_check
INSERT INTO master_keys (key_id, check_value) VALUES (?, ?) ON CONFLICT (key_id) DO NOTHING
