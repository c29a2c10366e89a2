-- Who did what and when: a chain of entries an operator, each with the hash of the one before it in its
-- own. operator_id 0 has the chain of what belongs to the installation. Rows are only ever added.
CREATE TABLE opdata.audit_log (
    operator_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C",
    detail TEXT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (operator_id, seq)
);

CREATE INDEX audit_times ON opdata.audit_log (operator_id, at_ms, seq);

-- A row a chain, locked by whoever is about to add to it.
CREATE TABLE opdata.audit_locks (
    operator_id BIGINT NOT NULL PRIMARY KEY,
    entries BIGINT NOT NULL
);
