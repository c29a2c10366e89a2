-- What personal fields are sealed with: the key of a row is derived from the master key it names and
-- from its salt. An operator seals with its newest, and opens with the one that a record names.
-- fingerprint_key, sealed by the row's own key, is the same in all of an operator's rows: null in one
-- whose master key and salt it is derived from. sealed_count is how often it has sealed, as far as
-- processes have said. A retired one opens what may turn up, and nothing is known to need it.
CREATE TABLE data_keys (
    operator_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    master_key_id INTEGER NOT NULL,
    salt BLOB NOT NULL,
    fingerprint_key BLOB,
    created_at_ms INTEGER NOT NULL,
    sealed_count INTEGER NOT NULL DEFAULT 0,
    retired_at_ms INTEGER,
    PRIMARY KEY (operator_id, key_id)
) STRICT, WITHOUT ROWID;

-- The key that each operator has had so far.
INSERT INTO data_keys (operator_id, key_id, master_key_id, salt, created_at_ms)
SELECT operator_id, 1, 1, key_salt, created_at_ms FROM operators;
