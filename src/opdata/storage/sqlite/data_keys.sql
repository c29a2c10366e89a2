-- Data keys, and the sealed records that are moved from one to another. A sealed record has the id of
-- its key in bytes 2 to 5, big-endian, so that blobs compare as the ids do. A part of an empty blob is
-- null here.

-- name: add_first_data_key
-- Under the master key that the others are under; before there are any, under the newest there is.
INSERT INTO data_keys (operator_id, key_id, master_key_id, salt, created_at_ms)
SELECT operator_id, 1, coalesce(
    (SELECT max(master_key_id) FROM data_keys), (SELECT max(key_id) FROM master_keys), 1
), key_salt, created_at_ms
FROM operators WHERE operator_id = ?1

-- name: data_keys
SELECT operator_id, key_id, master_key_id, salt, fingerprint_key, created_at_ms, sealed_count,
    retired_at_ms
FROM data_keys WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY operator_id, key_id

-- name: add_data_key
INSERT INTO data_keys (
    operator_id, key_id, master_key_id, salt, fingerprint_key, created_at_ms
) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (operator_id, key_id) DO NOTHING

-- name: count_seals
UPDATE data_keys SET sealed_count = sealed_count + ?3 WHERE operator_id = ?1 AND key_id = ?2
RETURNING sealed_count

-- name: retire_data_keys
UPDATE data_keys SET retired_at_ms = ?3
WHERE operator_id = ?1 AND key_id < ?2 AND retired_at_ms IS NULL

-- name: seal_census
SELECT coalesce(substr(sealed, 2, 4), x''), count(*) FROM entities INDEXED BY live_entities
WHERE operator_id = ?1 AND external_id > ?2 AND external_id <= ?3 AND deleted_at_ms IS NULL
    AND sealed IS NOT NULL
GROUP BY 1

-- name: sealed_before
SELECT external_id, entity_id, sealed FROM entities INDEXED BY live_entities
WHERE operator_id = ?1 AND external_id > ?2 AND external_id <= ?3 AND deleted_at_ms IS NULL
    AND sealed IS NOT NULL AND coalesce(substr(sealed, 2, 4), x'') < ?4
ORDER BY external_id

-- name: has_data_key
SELECT key_id FROM data_keys WHERE operator_id = ?1 AND key_id = ?2 AND salt = ?3

-- name: reseal
-- Only what still is what was read: an upsert or an erasure that came between stays.
UPDATE entities SET sealed = ?4
WHERE operator_id = ?1 AND external_id = ?2 AND deleted_at_ms IS NULL AND sealed = ?3
