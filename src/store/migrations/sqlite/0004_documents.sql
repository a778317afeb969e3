-- What is exchanged in a room besides voice and picture, and the register. Who did what and when is in the ledger; here is
-- what people called it and wrote.

CREATE TABLE documents (
    id          TEXT NOT NULL PRIMARY KEY,
    room        TEXT NOT NULL REFERENCES rooms (id),
    -- What the sender's device called it: for people to read, never a path.
    name        TEXT NOT NULL
) STRICT;

CREATE INDEX documents_by_room ON documents (room);

CREATE TABLE chat (
    room        TEXT NOT NULL REFERENCES rooms (id),
    number      INTEGER NOT NULL,
    participant TEXT NOT NULL REFERENCES participants (id),
    written     INTEGER NOT NULL,
    text        TEXT NOT NULL,
    PRIMARY KEY (room, number)
) STRICT, WITHOUT ROWID;

-- What the register is asked for, until the room has heard of its answer, and what it answered.
CREATE TABLE registrations (
    document    TEXT NOT NULL PRIMARY KEY REFERENCES documents (id),
    room        TEXT NOT NULL REFERENCES rooms (id),
    sender      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    bytes       INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    handed_in   INTEGER NOT NULL,
    -- 'asked', 'registered' or 'refused'.
    state       TEXT NOT NULL,
    year        INTEGER,
    number      INTEGER,
    entered     INTEGER,
    attempts    INTEGER NOT NULL,
    due         INTEGER NOT NULL,
    -- When the room had heard of the answer.
    told        INTEGER
) STRICT;

CREATE INDEX registrations_due ON registrations (due) WHERE told IS NULL;

-- The last number of each year. A number is taken and its entry is made in one transaction.
CREATE TABLE register_years (
    year        INTEGER NOT NULL PRIMARY KEY,
    last        INTEGER NOT NULL
) STRICT;

-- The embedded register (DPR 445/2000, art. 53): number, date, sender, subject and fingerprint, which never change.
CREATE TABLE register (
    year        INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    document    TEXT NOT NULL UNIQUE,
    room        TEXT NOT NULL,
    handed_in   INTEGER NOT NULL,
    entered     INTEGER NOT NULL,
    sender      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    PRIMARY KEY (year, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX register_by_day ON register (handed_in);

CREATE TRIGGER register_keeps_its_entries BEFORE UPDATE ON register
BEGIN
    SELECT RAISE(ABORT, 'the register is append-only');
END;

CREATE TRIGGER register_keeps_all_entries BEFORE DELETE ON register
BEGIN
    SELECT RAISE(ABORT, 'the register is append-only');
END;
