-- What booking systems drive: lists and filters, replaced people, named keys, repeated requests, messages that go out.

ALTER TABLE rooms ADD COLUMN profile_name TEXT NOT NULL DEFAULT '';
UPDATE rooms SET profile_name = json_extract(profile, '$.name');
ALTER TABLE rooms ADD COLUMN outcome TEXT;
-- When the room's ledger ended: its sessions lapse some time after.
ALTER TABLE rooms ADD COLUMN finished INTEGER;
UPDATE rooms SET finished = ends WHERE phase IN ('closed', 'cancelled', 'expired');

DROP INDEX rooms_by_start;
CREATE INDEX rooms_by_start ON rooms (starts, id);
CREATE INDEX rooms_by_reference ON rooms (reference) WHERE reference IS NOT NULL;

-- Language of the person's messages; NULL: the node's.
ALTER TABLE participants ADD COLUMN language TEXT;
-- When somebody else took the person's place. The position then is negative, so that the other has it.
ALTER TABLE participants ADD COLUMN replaced INTEGER;

CREATE TABLE named_keys (
    id      TEXT NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    -- SHA-256 of the key.
    hash    BLOB NOT NULL UNIQUE,
    scope   TEXT NOT NULL,
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

INSERT INTO named_keys (id, name, hash, scope, created, revoked)
SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'
             || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
       scope, hash, scope, created, revoked
FROM api_keys;

DROP TABLE api_keys;
ALTER TABLE named_keys RENAME TO api_keys;

-- Answers to requests with an Idempotency-Key, sealed: they hold codes and links.
CREATE TABLE answers (
    caller      TEXT NOT NULL,
    key         TEXT NOT NULL,
    -- SHA-256 of the request.
    fingerprint BLOB NOT NULL,
    answer      BLOB NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX answers_by_age ON answers (created);

-- Webhooks and text messages on their way out, written with what causes them.
CREATE TABLE outbox (
    -- The order in which they were written.
    position    INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    -- Within a lane one message goes after the other: a room's webhooks, a person's text messages.
    lane        TEXT NOT NULL,
    room        TEXT NOT NULL REFERENCES rooms (id),
    participant TEXT REFERENCES participants (id),
    subject     TEXT NOT NULL,
    -- A webhook's JSON as it is sent; a text message sealed, and nothing once it is delivered or given up.
    body        BLOB NOT NULL,
    created     INTEGER NOT NULL,
    due         INTEGER NOT NULL,
    give_up     INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    state       TEXT NOT NULL,
    settled     INTEGER,
    last_error  TEXT
) STRICT;

CREATE INDEX outbox_pending ON outbox (kind, lane, position) WHERE state = 'pending';
CREATE INDEX outbox_by_state ON outbox (kind, state, position);
CREATE INDEX outbox_settled ON outbox (settled) WHERE settled IS NOT NULL;
CREATE INDEX outbox_by_participant ON outbox (participant) WHERE participant IS NOT NULL;

-- Bookings that must not be counted past each other take turns at this row (on PostgreSQL; SQLite has one writer).
CREATE TABLE turns (
    name TEXT NOT NULL PRIMARY KEY,
    turn INTEGER NOT NULL
) STRICT;

INSERT INTO turns (name, turn) VALUES ('booking', 0);

-- What belongs to the node as a whole: the check value of its key, so that no other key is used on this database.
CREATE TABLE node (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
