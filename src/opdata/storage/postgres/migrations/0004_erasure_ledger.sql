-- Every erasure, and nothing about the person: entity_id is random, and who comes back gets another one
-- (W26). What is erased is erased again after a restore from an older backup. Rows outlive tombstones,
-- and may name entities that this database never had.
CREATE TABLE opdata.erasure_ledger (
    operator_id BIGINT NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL,
    erased_at_ms BIGINT NOT NULL,
    reason TEXT,
    PRIMARY KEY (operator_id, entity_id)
);

INSERT INTO opdata.erasure_ledger (operator_id, entity_id, erased_at_ms)
SELECT operator_id, entity_id, deleted_at_ms FROM opdata.entities WHERE deleted_at_ms IS NOT NULL;

-- Live entities that must not be erased (W53).
CREATE TABLE opdata.legal_holds (
    operator_id BIGINT NOT NULL,
    external_id TEXT COLLATE "C" NOT NULL,
    reason TEXT NOT NULL,
    placed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (operator_id, external_id)
);
