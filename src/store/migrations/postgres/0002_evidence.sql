-- What compliance relies on: keys of recordings, packages, who looked at what and why, long work. The columns are those
-- of the SQLite schema, whose comments explain them.

CREATE TABLE recording_keys (
    room      TEXT NOT NULL PRIMARY KEY REFERENCES rooms (id),
    wrapped   TEXT,
    destroyed BIGINT
);

CREATE TABLE packages (
    room             TEXT NOT NULL PRIMARY KEY REFERENCES rooms (id),
    state            TEXT NOT NULL,
    revision         BIGINT NOT NULL,
    prefix           TEXT,
    bytes            BIGINT NOT NULL,
    manifest_sha256  TEXT,
    ledger_lines     BIGINT NOT NULL DEFAULT 0,
    key_id           TEXT,
    begun            BIGINT NOT NULL,
    ended            BIGINT NOT NULL,
    sealed           BIGINT,
    retain_until     BIGINT,
    hold_reason      TEXT,
    hold_by          TEXT,
    hold_at          BIGINT,
    destroyed        BIGINT,
    destruction_note TEXT,
    emptied          BIGINT,
    attempts         BIGINT NOT NULL,
    due              BIGINT NOT NULL,
    last_error       TEXT
);

CREATE INDEX packages_to_seal ON packages (due) WHERE state IN ('recorded', 'sealing', 'failed');
CREATE INDEX packages_by_retention ON packages (retain_until) WHERE retain_until IS NOT NULL AND state <> 'destroyed';
CREATE INDEX packages_to_empty ON packages (destroyed) WHERE destroyed IS NOT NULL AND emptied IS NULL;
CREATE INDEX participants_by_fiscal_code ON participants (fiscal_code) WHERE fiscal_code IS NOT NULL;

CREATE TABLE accesses (
    seq       BIGINT NOT NULL PRIMARY KEY,
    at        TEXT NOT NULL,
    caller    TEXT NOT NULL,
    action    TEXT NOT NULL,
    room      TEXT REFERENCES rooms (id),
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    prev      TEXT NOT NULL,
    room_prev TEXT,
    hash      TEXT NOT NULL
);

CREATE INDEX accesses_by_room ON accesses (room, seq) WHERE room IS NOT NULL;

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END
$$;

CREATE TRIGGER accesses_keep_their_lines BEFORE UPDATE OR DELETE ON accesses
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER accesses_keep_all_lines BEFORE TRUNCATE ON accesses
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

CREATE TABLE access_tokens (
    id      TEXT NOT NULL PRIMARY KEY,
    token   BYTEA NOT NULL UNIQUE,
    room    TEXT NOT NULL REFERENCES rooms (id),
    caller  TEXT NOT NULL,
    reason  TEXT NOT NULL,
    opened  BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE INDEX access_tokens_by_age ON access_tokens (expires);

CREATE TABLE evidence_jobs (
    position          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                TEXT NOT NULL UNIQUE,
    kind              TEXT NOT NULL,
    room              TEXT NOT NULL REFERENCES rooms (id),
    state             TEXT NOT NULL,
    attempts          BIGINT NOT NULL,
    progress_permille BIGINT NOT NULL,
    result            TEXT,
    error             TEXT,
    asked_by          TEXT NOT NULL,
    created           BIGINT NOT NULL,
    updated           BIGINT NOT NULL
);

CREATE INDEX evidence_jobs_waiting ON evidence_jobs (position) WHERE state IN ('queued', 'running');

INSERT INTO turns (name, turn) VALUES ('audit', 0);
