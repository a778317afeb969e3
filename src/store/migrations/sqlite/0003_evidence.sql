-- What compliance relies on: keys of recordings, packages, who looked at what and why, long work.

-- The key that a room's recordings are encrypted with, itself encrypted under a key of the node. It is nowhere else:
-- to destroy it is to destroy the recordings.
CREATE TABLE recording_keys (
    room      TEXT NOT NULL PRIMARY KEY REFERENCES rooms (id),
    -- NULL once it is destroyed.
    wrapped   TEXT,
    destroyed INTEGER
) STRICT;

-- One row for each room that was recorded, from its conclusion on.
CREATE TABLE packages (
    room             TEXT NOT NULL PRIMARY KEY REFERENCES rooms (id),
    state            TEXT NOT NULL,
    -- How often it was sealed. 0: not yet; its files are in the recordings folder only.
    revision         INTEGER NOT NULL,
    -- Where the sealed package is among the objects.
    prefix           TEXT,
    bytes            INTEGER NOT NULL,
    manifest_sha256  TEXT,
    -- Lines of the room's ledger that are in it.
    ledger_lines     INTEGER NOT NULL DEFAULT 0,
    -- What the manifest was signed with.
    key_id           TEXT,
    begun            INTEGER NOT NULL,
    ended            INTEGER NOT NULL,
    sealed           INTEGER,
    -- Kept until then; NULL: until someone sets a date.
    retain_until     INTEGER,
    hold_reason      TEXT,
    hold_by          TEXT,
    hold_at          INTEGER,
    destroyed        INTEGER,
    -- A JWS.
    destruction_note TEXT,
    -- When the last file of what was destroyed was deleted; NULL: some may be left.
    emptied          INTEGER,
    attempts         INTEGER NOT NULL,
    -- When it is to be sealed, or, while someone does, when it is somebody else's turn.
    due              INTEGER NOT NULL,
    last_error       TEXT
) STRICT;

CREATE INDEX packages_to_seal ON packages (due) WHERE state IN ('recorded', 'sealing', 'failed');
CREATE INDEX packages_by_retention ON packages (retain_until) WHERE retain_until IS NOT NULL AND state <> 'destroyed';
CREATE INDEX packages_to_empty ON packages (destroyed) WHERE destroyed IS NOT NULL AND emptied IS NULL;
CREATE INDEX participants_by_fiscal_code ON participants (fiscal_code) WHERE fiscal_code IS NOT NULL;

-- Every look at a recording. Append-only and hash-chained, twice over: all lines, and the lines of each room, so that a
-- room's own are complete by themselves.
CREATE TABLE accesses (
    seq       INTEGER NOT NULL PRIMARY KEY,
    at        TEXT NOT NULL,
    caller    TEXT NOT NULL,
    action    TEXT NOT NULL,
    room      TEXT REFERENCES rooms (id),
    reason    TEXT NOT NULL,
    -- A JSON object.
    detail    TEXT NOT NULL,
    prev      TEXT NOT NULL,
    room_prev TEXT,
    hash      TEXT NOT NULL
) STRICT;

CREATE INDEX accesses_by_room ON accesses (room, seq) WHERE room IS NOT NULL;

CREATE TRIGGER accesses_keep_their_lines BEFORE UPDATE ON accesses
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE TRIGGER accesses_keep_all_lines BEFORE DELETE ON accesses
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

-- Accesses that are open: whoever holds the token may read one room's recordings for a while.
CREATE TABLE access_tokens (
    id      TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the token.
    token   BLOB NOT NULL UNIQUE,
    room    TEXT NOT NULL REFERENCES rooms (id),
    caller  TEXT NOT NULL,
    reason  TEXT NOT NULL,
    opened  INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

CREATE INDEX access_tokens_by_age ON access_tokens (expires);

-- Long work that was asked for by the API.
CREATE TABLE evidence_jobs (
    -- The order in which they were asked for.
    position          INTEGER PRIMARY KEY,
    id                TEXT NOT NULL UNIQUE,
    kind              TEXT NOT NULL,
    room              TEXT NOT NULL REFERENCES rooms (id),
    state             TEXT NOT NULL,
    attempts          INTEGER NOT NULL,
    progress_permille INTEGER NOT NULL,
    -- A JSON object.
    result            TEXT,
    error             TEXT,
    asked_by          TEXT NOT NULL,
    created           INTEGER NOT NULL,
    updated           INTEGER NOT NULL
) STRICT;

CREATE INDEX evidence_jobs_waiting ON evidence_jobs (position) WHERE state IN ('queued', 'running');

-- Lines of the audit take turns at this row (on PostgreSQL; SQLite has one writer).
INSERT INTO turns (name, turn) VALUES ('audit', 0);
