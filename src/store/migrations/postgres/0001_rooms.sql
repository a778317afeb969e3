-- Times are milliseconds since 1970 (UTC), except in the ledger, whose text is what was hashed. The columns are those
-- of the SQLite schema, whose comments explain them.

CREATE TABLE rooms (
    id        TEXT PRIMARY KEY,
    profile   TEXT NOT NULL,
    profile_name TEXT NOT NULL,
    office    TEXT NOT NULL,
    counter   TEXT NOT NULL,
    reason    TEXT NOT NULL,
    reference TEXT,
    starts    BIGINT NOT NULL,
    ends      BIGINT NOT NULL,
    phase     TEXT NOT NULL,
    outcome   TEXT,
    created   BIGINT NOT NULL,
    finished  BIGINT
);

CREATE INDEX rooms_by_phase ON rooms (phase);
CREATE INDEX rooms_by_start ON rooms (starts, id);
CREATE INDEX rooms_by_reference ON rooms (reference) WHERE reference IS NOT NULL;

CREATE TABLE participants (
    id              TEXT PRIMARY KEY,
    room            TEXT NOT NULL REFERENCES rooms (id),
    position        BIGINT NOT NULL,
    role            TEXT NOT NULL,
    name            TEXT NOT NULL,
    fiscal_code     TEXT,
    phone           TEXT,
    operator_number TEXT,
    language        TEXT,
    link            BYTEA NOT NULL UNIQUE,
    code            BYTEA NOT NULL,
    replaced        BIGINT,
    UNIQUE (room, position)
);

CREATE TABLE ledger (
    room    TEXT NOT NULL REFERENCES rooms (id),
    seq     BIGINT NOT NULL,
    wall    TEXT NOT NULL,
    mono_ms BIGINT NOT NULL,
    event   TEXT NOT NULL,
    prev    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    PRIMARY KEY (room, seq)
);

CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END
$$;

CREATE TRIGGER ledger_keeps_its_lines BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();
CREATE TRIGGER ledger_keeps_all_lines BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

CREATE TABLE sessions (
    token       BYTEA PRIMARY KEY,
    participant TEXT NOT NULL REFERENCES participants (id),
    created     BIGINT NOT NULL,
    ended       BIGINT
);

CREATE UNIQUE INDEX sessions_open ON sessions (participant) WHERE ended IS NULL;

CREATE TABLE api_keys (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    hash    BYTEA NOT NULL UNIQUE,
    scope   TEXT NOT NULL,
    created BIGINT NOT NULL,
    revoked BIGINT
);

CREATE TABLE originals (
    room        TEXT NOT NULL REFERENCES rooms (id),
    file        TEXT NOT NULL,
    connection  TEXT NOT NULL,
    participant TEXT NOT NULL REFERENCES participants (id),
    sources     TEXT NOT NULL,
    bytes       BIGINT NOT NULL,
    clusters    BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    chain_head  TEXT NOT NULL,
    finished    BIGINT NOT NULL,
    PRIMARY KEY (room, file)
);

CREATE TABLE answers (
    caller      TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    answer      BYTEA NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (caller, key)
);

CREATE INDEX answers_by_age ON answers (created);

CREATE TABLE outbox (
    position    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    lane        TEXT NOT NULL,
    room        TEXT NOT NULL REFERENCES rooms (id),
    participant TEXT REFERENCES participants (id),
    subject     TEXT NOT NULL,
    body        BYTEA NOT NULL,
    created     BIGINT NOT NULL,
    due         BIGINT NOT NULL,
    give_up     BIGINT NOT NULL,
    attempts    BIGINT NOT NULL,
    state       TEXT NOT NULL,
    settled     BIGINT,
    last_error  TEXT
);

CREATE INDEX outbox_pending ON outbox (kind, lane, position) WHERE state = 'pending';
CREATE INDEX outbox_by_state ON outbox (kind, state, position);
CREATE INDEX outbox_settled ON outbox (settled) WHERE settled IS NOT NULL;
CREATE INDEX outbox_by_participant ON outbox (participant) WHERE participant IS NOT NULL;

CREATE TABLE turns (
    name TEXT PRIMARY KEY,
    turn BIGINT NOT NULL
);

INSERT INTO turns (name, turn) VALUES ('booking', 0);

CREATE TABLE node (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);
