-- Times are milliseconds since 1970 (UTC), except in the ledger, whose text is what was hashed.

CREATE TABLE rooms (
    id          TEXT PRIMARY KEY,
    -- The profile as it was when the room was booked, JSON: a later change of configuration does not touch the room.
    profile     TEXT NOT NULL,
    office      TEXT NOT NULL,
    counter     TEXT NOT NULL,
    reason      TEXT NOT NULL,
    reference   TEXT,
    starts      INTEGER NOT NULL,
    ends        INTEGER NOT NULL,
    -- Follows the ledger, in the same transaction: to find rooms, not to decide anything.
    phase       TEXT NOT NULL,
    created     INTEGER NOT NULL
) STRICT;

CREATE INDEX rooms_by_phase ON rooms (phase);
CREATE INDEX rooms_by_start ON rooms (starts);

-- Personal data is here and nowhere else.
CREATE TABLE participants (
    id              TEXT PRIMARY KEY,
    room            TEXT NOT NULL REFERENCES rooms (id),
    position        INTEGER NOT NULL,
    role            TEXT NOT NULL,
    name            TEXT NOT NULL,
    fiscal_code     TEXT,
    phone           TEXT,
    operator_number TEXT,
    -- SHA-256 of the join token.
    link            BLOB NOT NULL UNIQUE,
    -- HMAC-SHA256 of the participant and the admission code, with the node's key.
    code            BLOB NOT NULL,
    UNIQUE (room, position)
) STRICT;

-- Append-only: the triggers below hold it so even against a mistake of ours.
CREATE TABLE ledger (
    room    TEXT NOT NULL REFERENCES rooms (id),
    seq     INTEGER NOT NULL,
    wall    TEXT NOT NULL,
    mono_ms INTEGER NOT NULL,
    event   TEXT NOT NULL,
    prev    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    PRIMARY KEY (room, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_keeps_its_lines BEFORE UPDATE ON ledger
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TRIGGER ledger_keeps_all_lines BEFORE DELETE ON ledger
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TABLE sessions (
    -- SHA-256 of the session token.
    token       BLOB PRIMARY KEY,
    participant TEXT NOT NULL REFERENCES participants (id),
    created     INTEGER NOT NULL,
    ended       INTEGER
) STRICT;

-- One open session per person.
CREATE UNIQUE INDEX sessions_open ON sessions (participant) WHERE ended IS NULL;

CREATE TABLE api_keys (
    -- SHA-256 of the key.
    hash    BLOB PRIMARY KEY,
    scope   TEXT NOT NULL,
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

CREATE TABLE originals (
    room        TEXT NOT NULL REFERENCES rooms (id),
    file        TEXT NOT NULL,
    connection  TEXT NOT NULL,
    participant TEXT NOT NULL REFERENCES participants (id),
    -- JSON array.
    sources     TEXT NOT NULL,
    bytes       INTEGER NOT NULL,
    clusters    INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    chain_head  TEXT NOT NULL,
    finished    INTEGER NOT NULL,
    PRIMARY KEY (room, file)
) STRICT, WITHOUT ROWID;
