-- Who did what and when: a chain of entries an operator, each with the hash of the one before it in its
-- own. operator_id 0 has the chain of what belongs to the installation. Rows are only ever added.
CREATE TABLE audit_log (
    operator_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (operator_id, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_times ON audit_log (operator_id, at_ms, seq);
