-- Data keys, and the sealed records that are moved from one to another. A sealed record has the id of
-- its key in bytes 2 to 5, big-endian, so that bytes compare as the ids do.

-- name: newest_master_key_in_use
-- Of every operator's data keys.
SELECT max(master_key_id) FROM opdata.data_keys

-- name: newest_master_key
SELECT coalesce(max(key_id), 1) FROM opdata.master_keys

-- name: add_data_key
INSERT INTO opdata.data_keys (
    operator_id, key_id, master_key_id, salt, fingerprint_key, created_at_ms
) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (operator_id, key_id) DO NOTHING
RETURNING key_id

-- name: data_keys
SELECT operator_id, key_id, master_key_id, salt, fingerprint_key, created_at_ms, sealed_count,
    retired_at_ms
FROM opdata.data_keys WHERE operator_id = $1 ORDER BY key_id

-- name: data_keys_of_all
-- Of every operator, for the command line and for a server's start.
SELECT operator_id, key_id, master_key_id, salt, fingerprint_key, created_at_ms, sealed_count,
    retired_at_ms
FROM opdata.data_keys ORDER BY operator_id, key_id

-- name: count_seals
UPDATE opdata.data_keys SET sealed_count = sealed_count + $3 WHERE operator_id = $1 AND key_id = $2
RETURNING sealed_count

-- name: retire_data_keys
UPDATE opdata.data_keys SET retired_at_ms = $3
WHERE operator_id = $1 AND key_id < $2 AND retired_at_ms IS NULL

-- name: seal_census
SELECT substring(sealed FROM 2 FOR 4), count(*) FROM opdata.entities
WHERE operator_id = $1 AND external_id > $2 AND external_id <= $3 AND tombstone_no = 0
    AND sealed IS NOT NULL
GROUP BY 1

-- name: sealed_before
SELECT external_id, entity_id, sealed FROM opdata.entities
WHERE operator_id = $1 AND external_id > $2 AND external_id <= $3 AND tombstone_no = 0
    AND substring(sealed FROM 2 FOR 4) < $4
ORDER BY external_id

-- name: hold_data_key
-- Nobody deletes it before this transaction ends; its seals may be counted meanwhile.
SELECT key_id FROM opdata.data_keys WHERE operator_id = $1 AND key_id = $2 AND salt = $3
FOR KEY SHARE

-- name: reseal
-- Only what still is what was read: an upsert or an erasure that came between stays. Rows are locked in
-- the order of the list, which is that of every batch.
UPDATE opdata.entities AS e SET sealed = decode(r.after, 'hex')
FROM unnest(
    string_to_array($2, E'\x1f'), string_to_array($3, E'\x1f'), string_to_array($4, E'\x1f')
) AS r (external_id, before, after)
WHERE e.operator_id = $1 AND e.external_id = r.external_id AND e.tombstone_no = 0
    AND e.sealed = decode(r.before, 'hex')
