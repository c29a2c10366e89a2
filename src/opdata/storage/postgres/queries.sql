-- The server store's statements. Every one on a tenant table names its operator, so that on a
-- distributed database it goes to one shard; the few that cannot say why.
--
-- Lists travel as one text each, joined by U+001F, which neither a name nor JSON can hold: an array
-- parameter costs the driver eight times as much. INSERT … SELECT takes operator_id from a row of
-- operators rather than from the parameter, which is what tells Citus that one shard will do.
-- DO UPDATE SET computes with columns only, never with a parameter or now(): Citus wants it immutable.

-- name: open_write
-- The transaction's mark, by which it is known to have been committed.
INSERT INTO opdata.write_marks (operator_id, mark, barred, made_at_ms) VALUES ($1, $2, false, $3)

-- name: next_block
-- The transaction's block of numbers. By itself: on a distributed database the sequence is the
-- coordinator's, and a statement on a table is answered by a node.
SELECT nextval('opdata.blocks')

-- name: is_barred
-- false: the transaction of that mark was committed. true: it was not and never will be, because its
-- mark is taken, now or by an earlier look. Waits for one that is still under way.
INSERT INTO opdata.write_marks AS m (operator_id, mark, barred, made_at_ms)
VALUES ($1, $2, true, $3)
ON CONFLICT (operator_id, mark) DO UPDATE SET barred = m.barred
RETURNING barred

-- name: purge_marks
-- Of every operator: there are few, and none is looked up by its time.
DELETE FROM opdata.write_marks WHERE made_at_ms <= $1

-- name: claim
-- Make the claim, or take over an expired one. No row: somebody else has it. Waits for a twin that
-- is under way, on the key's index.
INSERT INTO opdata.idempotency_records (
    operator_id, idempotency_key, method, path, fingerprint, status, body, created_at_ms
) VALUES ($1, $2, $3, $4, $5, 0, '', $6)
ON CONFLICT (operator_id, idempotency_key, method, path) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body,
    created_at_ms = excluded.created_at_ms
WHERE idempotency_records.created_at_ms <= excluded.created_at_ms - 86400000
RETURNING 1

-- name: find_idempotency_record
SELECT fingerprint, status, body FROM opdata.idempotency_records
WHERE operator_id = $1 AND idempotency_key = $2 AND method = $3 AND path = $4

-- name: settle_claim
UPDATE opdata.idempotency_records SET status = $5, body = $6
WHERE operator_id = $1 AND idempotency_key = $2 AND method = $3 AND path = $4

-- name: add_job
INSERT INTO opdata.jobs (
    operator_id, job_id, type, status, progress, output, created_at_ms, completed_at_ms
) VALUES ($1, $2, $3, 'completed', 100, $4, $5, $5)

-- name: find_live_entities
-- Those names that are live, locked until the transaction ends: what is read here stays true. The
-- scan takes the names in the order of the index, so two batches never wait for each other crosswise.
SELECT external_id, entity_id, fingerprint
FROM opdata.entities
WHERE operator_id = $1 AND external_id = ANY (string_to_array($2, E'\x1f')) AND tombstone_no = 0
FOR NO KEY UPDATE

-- name: upsert_entities
-- External id, entity_no, entity_id and created_at_ms of an existing row stay (W26).
INSERT INTO opdata.entities (
    operator_id, external_id, entity_no, entity_id, entity_type, data, sealed, fingerprint,
    created_at_ms, updated_at_ms
)
SELECT
    o.operator_id, r.external_id, r.entity_no, r.entity_id, r.entity_type, r.data::json,
    CASE WHEN r.sealed <> '' THEN decode(r.sealed, 'hex') END, decode(r.fingerprint, 'hex'),
    $2::bigint, $2::bigint
FROM opdata.operators AS o
CROSS JOIN unnest(
    string_to_array($3, E'\x1f'), string_to_array($4, E'\x1f')::bigint[],
    string_to_array($5, E'\x1f'), string_to_array($6, E'\x1f'), string_to_array($7, E'\x1f'),
    string_to_array($8, E'\x1f'), string_to_array($9, E'\x1f')
) AS r (external_id, entity_no, entity_id, entity_type, data, sealed, fingerprint)
WHERE o.operator_id = $1
ON CONFLICT (operator_id, external_id, tombstone_no) DO UPDATE SET
    entity_type = excluded.entity_type, data = excluded.data, sealed = excluded.sealed,
    fingerprint = excluded.fingerprint, updated_at_ms = excluded.updated_at_ms
RETURNING external_id, entity_id

-- name: erasures
SELECT erasures FROM opdata.operators WHERE operator_id = $1

-- name: find_entity_numbers
-- Those names that are live and their numbers, and the operator's erasures as of the same moment.
SELECT found.names, found.numbers, o.erasures
FROM opdata.operators AS o
LEFT JOIN LATERAL (
    SELECT array_agg(external_id) AS names, array_agg(entity_no) AS numbers
    FROM opdata.entities
    WHERE operator_id = o.operator_id AND external_id = ANY (string_to_array($2, E'\x1f'))
        AND tombstone_no = 0
) AS found ON true
WHERE o.operator_id = $1

-- name: add_event_keys
-- Returns the keys that were free. Waits for whoever is about to take one of the others.
INSERT INTO opdata.event_keys (operator_id, idempotency_key, event_id, fingerprint)
SELECT o.operator_id, r.idempotency_key, decode(r.event_id, 'hex'), decode(r.fingerprint, 'hex')
FROM opdata.operators AS o
CROSS JOIN unnest(
    string_to_array($2, E'\x1f'), string_to_array($3, E'\x1f'), string_to_array($4, E'\x1f')
) AS r (idempotency_key, event_id, fingerprint)
WHERE o.operator_id = $1
ON CONFLICT (operator_id, idempotency_key) DO NOTHING
RETURNING idempotency_key

-- name: find_event_keys
SELECT idempotency_key, event_id, fingerprint
FROM opdata.event_keys
WHERE operator_id = $1 AND idempotency_key = ANY (string_to_array($2, E'\x1f'))

-- name: set_states
-- One that was observed does not overwrite what was observed later; one that is unconditional does
-- (W28). Both in one statement, so that every batch locks rows in one order.
INSERT INTO opdata.states (
    operator_id, entity_no, state_key, value, observed_at_ms, unconditional, updated_at_ms
)
SELECT
    o.operator_id, r.entity_no, r.state_key, r.value::json, r.observed_at_ms, r.unconditional,
    $2::bigint
FROM opdata.operators AS o
CROSS JOIN unnest(
    string_to_array($3, E'\x1f')::bigint[], string_to_array($4, E'\x1f'),
    string_to_array($5, E'\x1f'), string_to_array($6, E'\x1f')::bigint[],
    string_to_array($7, E'\x1f')::boolean[]
) AS r (entity_no, state_key, value, observed_at_ms, unconditional)
WHERE o.operator_id = $1
ON CONFLICT (operator_id, entity_no, state_key) DO UPDATE SET
    value = excluded.value, observed_at_ms = excluded.observed_at_ms,
    unconditional = excluded.unconditional, updated_at_ms = excluded.updated_at_ms
WHERE excluded.unconditional OR excluded.observed_at_ms >= states.observed_at_ms

-- name: lock_live_entity
-- Locked until the transaction ends: an erasure and a hold of the same entity come one after the other.
SELECT entity_id FROM opdata.entities
WHERE operator_id = $1 AND external_id = $2 AND tombstone_no = 0
FOR NO KEY UPDATE

-- name: is_held
SELECT 1 FROM opdata.legal_holds WHERE operator_id = $1 AND external_id = $2

-- name: place_hold
-- One that is there keeps its time.
INSERT INTO opdata.legal_holds (operator_id, external_id, reason, placed_at_ms)
VALUES ($1, $2, $3, $4)
ON CONFLICT (operator_id, external_id) DO UPDATE SET reason = excluded.reason

-- name: lift_hold
DELETE FROM opdata.legal_holds WHERE operator_id = $1 AND external_id = $2
RETURNING external_id

-- name: bury_entity
-- The record becomes a tombstone; the person's part of it goes (W51).
UPDATE opdata.entities SET
    tombstone_no = entity_no, deleted_at_ms = $3, sealed = NULL, fingerprint = NULL
WHERE operator_id = $1 AND external_id = $2 AND tombstone_no = 0

-- name: count_erasure
UPDATE opdata.operators SET erasures = erasures + 1 WHERE operator_id = $1

-- name: add_to_ledger
-- An erasure that is in it stays as it is. A reason that is empty is none.
INSERT INTO opdata.erasure_ledger (operator_id, entity_id, erased_at_ms, reason)
SELECT o.operator_id, r.entity_id, r.erased_at_ms, nullif(r.reason, '')
FROM opdata.operators AS o
CROSS JOIN unnest(
    string_to_array($2, E'\x1f'), string_to_array($3, E'\x1f')::bigint[],
    string_to_array($4, E'\x1f')
) AS r (entity_id, erased_at_ms, reason)
WHERE o.operator_id = $1
ON CONFLICT (operator_id, entity_id) DO NOTHING

-- name: vacuum_entities
-- Takes the old versions of erased rows, and of batches they were in, out of the tables. Not in a
-- transaction.
VACUUM (SKIP_LOCKED, TRUNCATE off) opdata.entities, opdata.queued_batches

-- name: sweep_entities
-- The same for whoever waits for it: after another vacuum that is under way.
VACUUM (TRUNCATE off) opdata.entities, opdata.queued_batches

-- name: change_settings
-- A flag before each member says whether it changes.
UPDATE opdata.operators SET
    template_id = CASE WHEN $2 THEN $3 ELSE template_id END,
    data_retention_days = CASE WHEN $4 THEN $5 ELSE data_retention_days END,
    retention_policy = CASE WHEN $6 THEN $7::json ELSE retention_policy END
WHERE operator_id = $1
RETURNING operator_id, name, key_salt, template_id, data_retention_days, retention_policy, limits,
    created_at_ms, suspended_at_ms, suspension_reason

-- name: entity
SELECT entity_id, external_id, entity_type, data, sealed, created_at_ms, updated_at_ms
FROM opdata.entities
WHERE operator_id = $1 AND external_id = $2 AND tombstone_no = 0

-- Listings end where they are large enough: 8388608 is MAX_PAGE_BYTES in storage/reads.py. What a value
-- takes as it is stored is known without reading it, and what it takes uncompressed is not: it counts for
-- eight times as much, which JSON seldom is. is_full tells the process that more may follow.

-- name: entities
-- A page in the order of the primary key.
SELECT entity_id, external_id, entity_type, data, sealed, created_at_ms, updated_at_ms,
    weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (ORDER BY external_id ROWS UNBOUNDED PRECEDING) AS weight_so_far
    FROM (
        SELECT entity_id, external_id, entity_type, data, NULL::bytea AS sealed, created_at_ms, updated_at_ms,
            pg_column_size(data) * CASE WHEN pg_column_compression(data) IS NULL THEN 1 ELSE 8 END AS weight
        FROM opdata.entities
        WHERE operator_id = $1 AND external_id > $2 AND tombstone_no = 0
            AND ($3::text IS NULL OR entity_type = $3)
        ORDER BY external_id LIMIT $4
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY external_id

-- name: events
-- A page in the reverse order of the primary key; a row of nulls for an entity without any.
SELECT event_id, event_type, data, occurred_at_ms, recorded_at_ms, event_no,
    weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (
        ORDER BY occurred_at_ms DESC, event_no DESC ROWS UNBOUNDED PRECEDING
    ) AS weight_so_far
    FROM (
        SELECT v.event_id, v.event_type, v.data, v.occurred_at_ms, v.recorded_at_ms, v.event_no,
            coalesce(
                pg_column_size(v.data) * CASE WHEN pg_column_compression(v.data) IS NULL THEN 1 ELSE 8 END, 0
            ) AS weight
        FROM opdata.entities AS e
        LEFT JOIN LATERAL (
            SELECT event_id, event_type, data, occurred_at_ms, recorded_at_ms, event_no
            FROM opdata.events
            WHERE operator_id = e.operator_id AND entity_no = e.entity_no
                AND occurred_at_ms >= $3 AND (occurred_at_ms, event_no) < ($4, $5)
                AND ($6::text IS NULL OR event_type = $6)
            ORDER BY occurred_at_ms DESC, event_no DESC LIMIT $7
        ) AS v ON true
        WHERE e.operator_id = $1 AND e.external_id = $2 AND e.tombstone_no = 0
        ORDER BY v.occurred_at_ms DESC, v.event_no DESC
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY occurred_at_ms DESC, event_no DESC

-- name: states
-- By key; a row of nulls for an entity without any.
SELECT s.state_key, s.value, s.updated_at_ms
FROM opdata.entities AS e
LEFT JOIN opdata.states AS s
    ON s.operator_id = e.operator_id AND s.entity_no = e.entity_no
    AND ($3::text IS NULL OR s.state_key = $3)
WHERE e.operator_id = $1 AND e.external_id = $2 AND e.tombstone_no = 0
ORDER BY s.state_key

-- name: walk_end
-- The last of so many entities after a name; no row when there are fewer.
SELECT external_id FROM opdata.entities
WHERE operator_id = $1 AND external_id > $2 AND tombstone_no = 0
ORDER BY external_id LIMIT 1 OFFSET $3 - 1

-- name: rest_of_events
-- What an entity has after one of its events, in the order of the primary key.
SELECT external_id, idempotency_key, event_id, event_type, data, occurred_at_ms, recorded_at_ms,
    event_no, weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (
        ORDER BY occurred_at_ms, event_no ROWS UNBOUNDED PRECEDING
    ) AS weight_so_far
    FROM (
        SELECT e.external_id, v.idempotency_key, v.event_id, v.event_type, v.data, v.occurred_at_ms,
            v.recorded_at_ms, v.event_no,
            pg_column_size(v.data) * CASE WHEN pg_column_compression(v.data) IS NULL THEN 1 ELSE 8 END AS weight
        FROM opdata.entities AS e
        CROSS JOIN LATERAL (
            SELECT idempotency_key, event_id, event_type, data, occurred_at_ms, recorded_at_ms, event_no
            FROM opdata.events
            WHERE operator_id = e.operator_id AND entity_no = e.entity_no
                AND (occurred_at_ms, event_no) > ($3, $4)
                AND occurred_at_ms >= $5 AND occurred_at_ms < $6 AND ($7::text IS NULL OR event_type = $7)
            ORDER BY occurred_at_ms, event_no LIMIT $8
        ) AS v
        WHERE e.operator_id = $1 AND e.external_id = $2 AND e.tombstone_no = 0
        ORDER BY v.occurred_at_ms, v.event_no
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY occurred_at_ms, event_no

-- name: all_events
-- Events of the entities between two names, the second included. An entity at a time, so that nothing
-- beyond the page is read.
SELECT external_id, idempotency_key, event_id, event_type, data, occurred_at_ms, recorded_at_ms,
    event_no, weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (
        ORDER BY external_id, occurred_at_ms, event_no ROWS UNBOUNDED PRECEDING
    ) AS weight_so_far
    FROM (
        SELECT e.external_id, v.idempotency_key, v.event_id, v.event_type, v.data, v.occurred_at_ms,
            v.recorded_at_ms, v.event_no,
            pg_column_size(v.data) * CASE WHEN pg_column_compression(v.data) IS NULL THEN 1 ELSE 8 END AS weight
        FROM opdata.entities AS e
        CROSS JOIN LATERAL (
            SELECT idempotency_key, event_id, event_type, data, occurred_at_ms, recorded_at_ms, event_no
            FROM opdata.events
            WHERE operator_id = e.operator_id AND entity_no = e.entity_no
                AND occurred_at_ms >= $4 AND occurred_at_ms < $5 AND ($6::text IS NULL OR event_type = $6)
            ORDER BY occurred_at_ms, event_no LIMIT $7
        ) AS v
        WHERE e.operator_id = $1 AND e.external_id > $2 AND e.external_id <= $3 AND e.tombstone_no = 0
        ORDER BY e.external_id, v.occurred_at_ms, v.event_no LIMIT $7
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY external_id, occurred_at_ms, event_no

-- name: all_states
-- States of the entities from a name on to another one, after a key of the first.
SELECT external_id, observed_at_ms, state_key, value, updated_at_ms,
    weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (
        ORDER BY external_id, state_key ROWS UNBOUNDED PRECEDING
    ) AS weight_so_far
    FROM (
        SELECT e.external_id, s.observed_at_ms, s.state_key, s.value, s.updated_at_ms,
            pg_column_size(s.value) * CASE WHEN pg_column_compression(s.value) IS NULL THEN 1 ELSE 8 END AS weight
        FROM opdata.entities AS e
        CROSS JOIN LATERAL (
            SELECT observed_at_ms, state_key, value, updated_at_ms
            FROM opdata.states
            WHERE operator_id = e.operator_id AND entity_no = e.entity_no
                AND (e.external_id > $2 OR state_key > $3) AND ($5::text IS NULL OR state_key = $5)
            ORDER BY state_key LIMIT $6
        ) AS s
        WHERE e.operator_id = $1 AND e.external_id >= $2 AND e.external_id <= $4 AND e.tombstone_no = 0
        ORDER BY e.external_id, s.state_key LIMIT $6
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY external_id, state_key

-- name: ledger
SELECT entity_id, erased_at_ms, reason FROM opdata.erasure_ledger
WHERE operator_id = $1 AND entity_id > $2
ORDER BY entity_id LIMIT $3

-- name: returned
-- A page in the order of the primary key, each row looked up in the ledger.
SELECT e.external_id, e.entity_id
FROM opdata.entities AS e
JOIN opdata.erasure_ledger AS l ON l.operator_id = e.operator_id AND l.entity_id = e.entity_id
WHERE e.operator_id = $1 AND e.external_id > $2 AND e.tombstone_no = 0
ORDER BY e.external_id LIMIT $3

-- name: holds
SELECT external_id, reason, placed_at_ms FROM opdata.legal_holds
WHERE operator_id = $1 ORDER BY external_id

-- name: job
SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms
FROM opdata.jobs WHERE operator_id = $1 AND job_id = $2

-- name: jobs
SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms,
    weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (
        ORDER BY created_at_ms DESC, job_id DESC ROWS UNBOUNDED PRECEDING
    ) AS weight_so_far
    FROM (
        SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms,
            coalesce(
                pg_column_size(output) * CASE WHEN pg_column_compression(output) IS NULL THEN 1 ELSE 8 END, 0
            ) AS weight
        FROM opdata.jobs
        WHERE operator_id = $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR type = $3)
            AND (created_at_ms, job_id) < ($4, $5)
        ORDER BY created_at_ms DESC, job_id DESC LIMIT $6
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY created_at_ms DESC, job_id DESC

-- name: jobs_of_all
-- Every operator's, for the command line.
SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms,
    weight_so_far > 8388608 AS is_full
FROM (
    SELECT *, sum(weight) OVER (
        ORDER BY created_at_ms DESC, job_id DESC ROWS UNBOUNDED PRECEDING
    ) AS weight_so_far
    FROM (
        SELECT job_id, operator_id, type, status, progress, output, error, created_at_ms, completed_at_ms,
            coalesce(
                pg_column_size(output) * CASE WHEN pg_column_compression(output) IS NULL THEN 1 ELSE 8 END, 0
            ) AS weight
        FROM opdata.jobs
        WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR type = $2)
            AND (created_at_ms, job_id) < ($3, $4)
        ORDER BY created_at_ms DESC, job_id DESC LIMIT $5
    ) AS found
) AS page
WHERE weight_so_far - weight <= 8388608
ORDER BY created_at_ms DESC, job_id DESC

-- name: lock_operator_names
-- Nothing is unique beyond its operator, so a new name is looked up and added under this lock.
SELECT pg_advisory_xact_lock(8025411762441019)

-- name: operator_named
-- Of every operator: a name does not tell which shard it is on.
SELECT operator_id FROM opdata.operators WHERE name = $1

-- name: last_operator
SELECT coalesce(max(operator_id), 0) FROM opdata.operators

-- name: create_operator
INSERT INTO opdata.operators (operator_id, name, key_salt, created_at_ms)
VALUES ($1, $2, $3, $4)
RETURNING operator_id, name, key_salt, template_id, data_retention_days, retention_policy, limits,
    created_at_ms, suspended_at_ms, suspension_reason

-- name: operators
SELECT operator_id, name, key_salt, template_id, data_retention_days, retention_policy, limits,
    created_at_ms, suspended_at_ms, suspension_reason
FROM opdata.operators ORDER BY operator_id

-- name: operator
SELECT operator_id, name, key_salt, template_id, data_retention_days, retention_policy, limits,
    created_at_ms, suspended_at_ms, suspension_reason
FROM opdata.operators WHERE operator_id = $1

-- name: set_limits
UPDATE opdata.operators SET limits = $2 WHERE operator_id = $1

-- name: suspend_operator
-- One that is suspended already stays so since then, under the new reason if there is one.
UPDATE opdata.operators SET
    suspended_at_ms = coalesce(suspended_at_ms, $2),
    suspension_reason = coalesce($3, suspension_reason)
WHERE operator_id = $1

-- name: resume_operator
UPDATE opdata.operators SET suspended_at_ms = NULL, suspension_reason = NULL
WHERE operator_id = $1 AND suspended_at_ms IS NOT NULL

-- name: create_key
INSERT INTO opdata.api_keys (
    operator_id, key_id, label, key_hash, masked_key, created_at_ms, scopes, expires_at_ms
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: keys
SELECT key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms
FROM opdata.api_keys WHERE operator_id = $1
ORDER BY created_at_ms, key_id

-- name: authenticate
-- Keys are on every node, and a hash tells which operator's: the one look-up that begins without it.
SELECT key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms
FROM opdata.api_keys
WHERE key_hash = $1 AND revoked_at_ms IS NULL AND (expires_at_ms IS NULL OR expires_at_ms > $2)

-- name: relabel_key
UPDATE opdata.api_keys SET label = $3 WHERE operator_id = $1 AND key_id = $2
RETURNING key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms

-- name: lock_keys
-- All of an operator's keys, locked in order: whoever revokes one knows which others are active.
SELECT key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms
FROM opdata.api_keys WHERE operator_id = $1
ORDER BY key_id FOR UPDATE

-- name: revoke_key
UPDATE opdata.api_keys SET revoked_at_ms = $3
WHERE operator_id = $1 AND key_id = $2 AND revoked_at_ms IS NULL
RETURNING key_id, operator_id, label, masked_key, created_at_ms, last_used_at_ms, revoked_at_ms,
    scopes, expires_at_ms

-- name: touch_keys
-- Keys of any operators: they are on every node.
UPDATE opdata.api_keys AS k SET last_used_at_ms = used.at_ms
FROM unnest(string_to_array($1, E'\x1f'), string_to_array($2, E'\x1f')::bigint[]) AS used (key_id, at_ms)
WHERE k.key_id = used.key_id AND (k.last_used_at_ms IS NULL OR k.last_used_at_ms < used.at_ms)

-- name: take
-- Move the time at which the bucket is full again on by one interval, unless that takes it further
-- than a whole bucket from now. No row: refused. What is stored is first brought within a bucket of
-- now, for a clock that was set back.
INSERT INTO opdata.rate_buckets AS b (
    operator_id, category, full_at_us, now_us, interval_us, bucket_us
) VALUES ($1, $2, $3::bigint + $4::bigint, $3, $4, $5)
ON CONFLICT (operator_id, category) DO UPDATE SET
    full_at_us = greatest(excluded.now_us, least(b.full_at_us, excluded.now_us + excluded.bucket_us))
        + excluded.interval_us,
    now_us = excluded.now_us, interval_us = excluded.interval_us, bucket_us = excluded.bucket_us
WHERE greatest(excluded.now_us, least(b.full_at_us, excluded.now_us + excluded.bucket_us))
    + excluded.interval_us <= excluded.now_us + excluded.bucket_us
RETURNING full_at_us

-- name: bucket
SELECT full_at_us FROM opdata.rate_buckets WHERE operator_id = $1 AND category = $2

-- name: bring_near
UPDATE opdata.rate_buckets SET full_at_us = least(full_at_us, $3)
WHERE operator_id = $1 AND category = $2

-- name: key_checks
SELECT key_id, check_value FROM opdata.master_keys

-- name: add_key_check
INSERT INTO opdata.master_keys (key_id, check_value) VALUES ($1, $2)
ON CONFLICT (key_id) DO NOTHING

-- name: operators_with_expired_records
-- Of every operator, each looked up in its own part of the index.
SELECT o.operator_id FROM opdata.operators AS o
WHERE EXISTS (
    SELECT 1 FROM opdata.idempotency_records AS r
    WHERE r.operator_id = o.operator_id AND r.created_at_ms <= $1
)

-- name: purge_step
-- The time of the last of the oldest $3 records that expired by $2; null when there are none.
SELECT max(oldest.created_at_ms) FROM (
    SELECT created_at_ms FROM opdata.idempotency_records
    WHERE operator_id = $1 AND created_at_ms <= $2
    ORDER BY created_at_ms LIMIT $3
) AS oldest

-- name: purge_idempotency_records
DELETE FROM opdata.idempotency_records WHERE operator_id = $1 AND created_at_ms <= $2

-- name: applied_migrations
SELECT name FROM opdata.migrations
