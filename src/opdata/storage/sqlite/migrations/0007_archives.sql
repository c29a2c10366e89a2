-- Archive files: rows that retention took out of the live tables (W50). path is relative to the archive
-- directory. state is writing, moving, kept or leaving: see storage/archive.py.
CREATE TABLE archive_files (
    operator_id INTEGER NOT NULL,
    file_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    row_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    oldest_ms INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (operator_id, file_id)
) STRICT, WITHOUT ROWID;

-- Who carries out an operator's retention, for how long yet, and when that was last done.
CREATE TABLE retention_leases (
    operator_id INTEGER NOT NULL,
    holder TEXT NOT NULL,
    taken_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER,
    PRIMARY KEY (operator_id)
) STRICT, WITHOUT ROWID;

-- Erased entities by the time of their erasure. Only an erasure adds to it: no batch pays for it.
CREATE INDEX tombstones ON entities (operator_id, deleted_at_ms, entity_no)
    WHERE deleted_at_ms IS NOT NULL;
