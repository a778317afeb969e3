-- What is exchanged in a room besides voice and picture, and the register. The columns are those of the SQLite schema,
-- whose comments explain them.

CREATE TABLE documents (
    id          TEXT NOT NULL PRIMARY KEY,
    room        TEXT NOT NULL REFERENCES rooms (id),
    name        TEXT NOT NULL
);

CREATE INDEX documents_by_room ON documents (room);

CREATE TABLE chat (
    room        TEXT NOT NULL REFERENCES rooms (id),
    number      BIGINT NOT NULL,
    participant TEXT NOT NULL REFERENCES participants (id),
    written     BIGINT NOT NULL,
    text        TEXT NOT NULL,
    PRIMARY KEY (room, number)
);

CREATE TABLE registrations (
    document    TEXT NOT NULL PRIMARY KEY REFERENCES documents (id),
    room        TEXT NOT NULL REFERENCES rooms (id),
    sender      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    bytes       BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    handed_in   BIGINT NOT NULL,
    state       TEXT NOT NULL,
    year        BIGINT,
    number      BIGINT,
    entered     BIGINT,
    attempts    BIGINT NOT NULL,
    due         BIGINT NOT NULL,
    told        BIGINT
);

CREATE INDEX registrations_due ON registrations (due) WHERE told IS NULL;

CREATE TABLE register_years (
    year        BIGINT NOT NULL PRIMARY KEY,
    last        BIGINT NOT NULL
);

CREATE TABLE register (
    year        BIGINT NOT NULL,
    number      BIGINT NOT NULL,
    document    TEXT NOT NULL UNIQUE,
    room        TEXT NOT NULL,
    handed_in   BIGINT NOT NULL,
    entered     BIGINT NOT NULL,
    sender      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    PRIMARY KEY (year, number)
);

CREATE INDEX register_by_day ON register (handed_in);

CREATE FUNCTION refuse_register_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the register is append-only';
END
$$;

CREATE TRIGGER register_keeps_its_entries BEFORE UPDATE OR DELETE ON register
    FOR EACH ROW EXECUTE FUNCTION refuse_register_change();

CREATE TRIGGER register_keeps_all_entries BEFORE TRUNCATE ON register
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_register_change();
