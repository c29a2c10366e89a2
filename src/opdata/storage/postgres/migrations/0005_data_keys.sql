-- What personal fields are sealed with: the key of a row is derived from the master key it names and
-- from its salt. An operator seals with its newest, and opens with the one that a record names.
-- fingerprint_key, sealed by the row's own key, is the same in all of an operator's rows: null in one
-- whose master key and salt it is derived from. sealed_count is how often it has sealed, as far as
-- processes have said. A retired one opens what may turn up, and nothing is known to need it.
CREATE TABLE opdata.data_keys (
    operator_id BIGINT NOT NULL,
    key_id BIGINT NOT NULL,
    master_key_id BIGINT NOT NULL,
    salt BYTEA NOT NULL,
    fingerprint_key BYTEA,
    created_at_ms BIGINT NOT NULL,
    sealed_count BIGINT NOT NULL DEFAULT 0,
    retired_at_ms BIGINT,
    PRIMARY KEY (operator_id, key_id)
) WITH (fillfactor = 50);

-- The key that each operator has had so far.
INSERT INTO opdata.data_keys (operator_id, key_id, master_key_id, salt, created_at_ms)
SELECT operator_id, 1, 1, key_salt, created_at_ms FROM opdata.operators;
