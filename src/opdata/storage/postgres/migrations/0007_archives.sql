-- Archive files: rows that retention took out of the live tables (W50). path is relative to the archive
-- directory. state is writing, moving, kept or leaving: see storage/archive.py.
CREATE TABLE opdata.archive_files (
    operator_id BIGINT NOT NULL,
    file_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    row_count BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    oldest_ms BIGINT NOT NULL,
    newest_ms BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (operator_id, file_id)
);

-- Who carries out an operator's retention, for how long yet, and when that was last done.
CREATE TABLE opdata.retention_leases (
    operator_id BIGINT NOT NULL,
    holder TEXT COLLATE "C" NOT NULL,
    taken_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    finished_at_ms BIGINT,
    PRIMARY KEY (operator_id)
) WITH (fillfactor = 20);

-- Erased entities by the time of their erasure. Only an erasure adds to it: no batch pays for it.
CREATE INDEX tombstones ON opdata.entities (operator_id, deleted_at_ms, entity_no)
    WHERE deleted_at_ms IS NOT NULL;
