-- Every erasure, and nothing about the person: entity_id is random, and who comes back gets another one
-- (W26). What is erased is erased again after a restore from an older backup. Rows outlive tombstones,
-- and may name entities that this database never had.
CREATE TABLE erasure_ledger (
    operator_id INTEGER NOT NULL,
    entity_id TEXT NOT NULL,
    erased_at_ms INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY (operator_id, entity_id)
) STRICT, WITHOUT ROWID;

INSERT INTO erasure_ledger (operator_id, entity_id, erased_at_ms)
SELECT operator_id, entity_id, deleted_at_ms FROM entities WHERE deleted_at_ms IS NOT NULL;

-- Live entities that must not be erased (W53).
CREATE TABLE legal_holds (
    operator_id INTEGER NOT NULL,
    external_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    placed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (operator_id, external_id)
) STRICT, WITHOUT ROWID;
