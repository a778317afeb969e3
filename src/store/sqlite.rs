//! The store in an SQLite file: the embedded default.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Appointment, Change, Error, Hash, Owner, Person, Personal, Record, Scope, StoredOriginal};
use crate::id::{ParticipantId, RoomId};
use crate::recording::Original;
use crate::room::ledger::{self, Head, Line};
use crate::room::{Entry, Event, Phase};

/// Connections that read. Raising it helps only while more requests than that read at once; each costs a thread.
const READERS: u32 = 4;

/// How long a statement waits for another process (a backup, say) that holds the file. Raising it makes rooms wait
/// longer for it; lowering it makes them fail.
const BUSY: Duration = Duration::from_secs(5);

/// Phases after which a room's ledger grows no more.
const FINISHED: [Phase; 3] = [Phase::Closed, Phase::Cancelled, Phase::Expired];

/// The node's database. Clones speak to the same one.
#[derive(Clone, Debug)]
pub struct Store {
    /// One connection: SQLite has one writer, and here they queue in order instead of meeting at the file's lock.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens the database file, makes it if it does not exist, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A ledger entry that was announced must survive a power cut: in WAL mode only FULL syncs each commit.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("src/store/migrations").run(&writer).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await?;
        Ok(Self { writer, readers })
    }

    /// Closes the file, once what is under way is done.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Keeps a new room, its people and its ledger's first entries.
    pub async fn book(
        &self,
        appointment: &Appointment,
        entries: &[Entry],
        phase: Phase,
        at: Timestamp,
    ) -> Result<(), Error> {
        let mut tx = self.write().await?;
        let id = appointment.id.to_string();
        sqlx::query(
            "INSERT INTO rooms (id, profile, office, counter, reason, reference, starts, ends, phase, created)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&id)
        .bind(json(&appointment.profile)?)
        .bind(&appointment.office)
        .bind(&appointment.counter)
        .bind(&appointment.reason)
        .bind(&appointment.reference)
        .bind(appointment.start.as_millisecond())
        .bind(appointment.end.as_millisecond())
        .bind(word(phase)?)
        .bind(at.as_millisecond())
        .execute(&mut *tx)
        .await?;
        for (position, person) in (0_i64..).zip(&appointment.people) {
            sqlx::query(
                "INSERT INTO participants
                 (id, room, position, role, name, fiscal_code, phone, operator_number, link, code)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(person.id.to_string())
            .bind(&id)
            .bind(position)
            .bind(word(person.role)?)
            .bind(person.name.expose())
            .bind(person.fiscal_code.as_ref().map(Personal::expose))
            .bind(person.phone.as_ref().map(Personal::expose))
            .bind(&person.operator_number)
            .bind(&person.link.as_bytes()[..])
            .bind(&person.code.as_bytes()[..])
            .execute(&mut *tx)
            .await?;
        }
        append(&mut tx, appointment.id, Head::empty(), entries).await?;
        Ok(tx.commit().await?)
    }

    /// Appends to a room's ledger and changes the rows that belong to it: all or nothing.
    pub async fn record(&self, record: &Record<'_>) -> Result<(), Error> {
        let mut tx = self.write().await?;
        let room = record.room.to_string();
        let head = sqlx::query("SELECT seq, hash FROM ledger WHERE room = ? ORDER BY seq DESC LIMIT 1")
            .bind(&room)
            .fetch_one(&mut *tx)
            .await?;
        let head = Head { seq: count(&head, "seq")?, hash: head.try_get("hash")? };
        append(&mut tx, record.room, head, record.entries).await?;
        sqlx::query("UPDATE rooms SET phase = ?1 WHERE id = ?2 AND phase <> ?1")
            .bind(word(record.phase)?)
            .bind(&room)
            .execute(&mut *tx)
            .await?;
        for change in record.changes {
            apply(&mut tx, &room, change, record.at).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The rooms whose ledger may still grow.
    pub async fn unfinished(&self) -> Result<Vec<RoomId>, Error> {
        let [closed, cancelled, expired] = FINISHED;
        let rows = sqlx::query("SELECT id FROM rooms WHERE phase NOT IN (?, ?, ?) ORDER BY starts")
            .bind(word(closed)?)
            .bind(word(cancelled)?)
            .bind(word(expired)?)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| parse(row, "id", "room")).collect()
    }

    /// A room as it was booked, with its people; `None`: there is no such room.
    pub async fn appointment(&self, room: RoomId) -> Result<Option<Appointment>, Error> {
        let id = room.to_string();
        let Some(row) = sqlx::query("SELECT * FROM rooms WHERE id = ?").bind(&id).fetch_optional(&self.readers).await?
        else {
            return Ok(None);
        };
        let people = sqlx::query(
            "SELECT p.*, s.token AS session FROM participants p
             LEFT JOIN sessions s ON s.participant = p.id AND s.ended IS NULL
             WHERE p.room = ? ORDER BY p.position",
        )
        .bind(&id)
        .fetch_all(&self.readers)
        .await?;
        Ok(Some(Appointment {
            id: room,
            profile: from_json(row.try_get("profile")?, "profile")?,
            office: row.try_get("office")?,
            counter: row.try_get("counter")?,
            reason: row.try_get("reason")?,
            reference: row.try_get("reference")?,
            start: millis(row.try_get("starts")?)?,
            end: millis(row.try_get("ends")?)?,
            people: people.iter().map(person).collect::<Result<_, _>>()?,
        }))
    }

    /// A room's ledger, oldest line first, checked against its chain. Empty: there is no such room.
    pub async fn ledger(&self, room: RoomId) -> Result<Vec<Line>, Error> {
        let rows = sqlx::query("SELECT * FROM ledger WHERE room = ? ORDER BY seq")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        let lines = rows.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        ledger::verify(&lines).map_err(|_| Error::Corrupt("ledger"))?;
        Ok(lines)
    }

    /// Whose join link this is.
    pub async fn link_owner(&self, link: Hash) -> Result<Option<Owner>, Error> {
        let row = sqlx::query("SELECT room, id AS participant, role FROM participants WHERE link = ?")
            .bind(&link.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(owner).transpose()
    }

    /// Whose open session this is.
    pub async fn session_owner(&self, token: Hash) -> Result<Option<Owner>, Error> {
        let row = sqlx::query(
            "SELECT p.room, p.id AS participant, p.role FROM sessions s
             JOIN participants p ON p.id = s.participant
             WHERE s.token = ? AND s.ended IS NULL",
        )
        .bind(&token.as_bytes()[..])
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(owner).transpose()
    }

    /// Keeps the first API keys, unless there are keys already (revoked ones count); says whether they were kept.
    pub async fn add_first_keys(&self, keys: &[(Hash, Scope)], at: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM api_keys").fetch_one(&mut *tx).await?;
        if known > 0 {
            return Ok(false);
        }
        for (key, scope) in keys {
            sqlx::query("INSERT INTO api_keys (hash, scope, created) VALUES (?, ?, ?)")
                .bind(&key.as_bytes()[..])
                .bind(word(*scope)?)
                .bind(at.as_millisecond())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// What the holder of an API key may do; `None`: the key is not known, or revoked.
    pub async fn key_scope(&self, key: Hash) -> Result<Option<Scope>, Error> {
        let row = sqlx::query("SELECT scope FROM api_keys WHERE hash = ? AND revoked IS NULL")
            .bind(&key.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| from_word(row.try_get("scope")?, "scope")).transpose()
    }

    /// Revokes an API key; says whether it was valid until now.
    pub async fn revoke_key(&self, key: Hash, at: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE api_keys SET revoked = ? WHERE hash = ? AND revoked IS NULL")
            .bind(at.as_millisecond())
            .bind(&key.as_bytes()[..])
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Keeps what a finished original is. Told twice, it is kept once.
    pub async fn add_original(&self, room: RoomId, stored: &StoredOriginal, at: Timestamp) -> Result<(), Error> {
        let StoredOriginal { connection, participant, original } = stored;
        sqlx::query(
            "INSERT INTO originals
             (room, file, connection, participant, sources, bytes, clusters, duration_ms, chain_head, finished)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(room.to_string())
        .bind(&original.file)
        .bind(connection.to_string())
        .bind(participant.to_string())
        .bind(json(&original.sources)?)
        .bind(integer(original.bytes)?)
        .bind(integer(original.clusters)?)
        .bind(integer(original.duration_ms)?)
        .bind(&original.chain_head)
        .bind(at.as_millisecond())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// A room's finished originals, by file name.
    pub async fn originals(&self, room: RoomId) -> Result<Vec<StoredOriginal>, Error> {
        let rows = sqlx::query("SELECT * FROM originals WHERE room = ? ORDER BY file")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredOriginal {
                    connection: parse(row, "connection", "connection")?,
                    participant: parse(row, "participant", "participant")?,
                    original: Original {
                        file: row.try_get("file")?,
                        sources: from_json(row.try_get("sources")?, "list of sources")?,
                        bytes: count(row, "bytes")?,
                        clusters: count(row, "clusters")?,
                        duration_ms: count(row, "duration_ms")?,
                        chain_head: row.try_get("chain_head")?,
                    },
                })
            })
            .collect()
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        // IMMEDIATE takes the write lock at once: a transaction that reads first could otherwise not become a writer.
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

async fn append(tx: &mut SqliteConnection, room: RoomId, mut head: Head, entries: &[Entry]) -> Result<(), Error> {
    for entry in entries {
        let line = ledger::chain(&head, entry);
        sqlx::query("INSERT INTO ledger (room, seq, wall, mono_ms, event, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(room.to_string())
            .bind(integer(line.seq)?)
            .bind(line.wall.to_string())
            .bind(integer(line.mono_ms)?)
            .bind(json(&line.event)?)
            .bind(&line.prev)
            .bind(&line.hash)
            .execute(&mut *tx)
            .await?;
        head = line.head();
    }
    Ok(())
}

async fn apply(tx: &mut SqliteConnection, room: &str, change: &Change, at: Timestamp) -> Result<(), Error> {
    match change {
        Change::Times { start, end } => {
            sqlx::query("UPDATE rooms SET starts = ?, ends = ? WHERE id = ?")
                .bind(start.as_millisecond())
                .bind(end.as_millisecond())
                .bind(room)
                .execute(&mut *tx)
                .await?;
        }
        Change::Code { participant, code } => {
            sqlx::query("UPDATE participants SET code = ? WHERE id = ? AND room = ?")
                .bind(&code.as_bytes()[..])
                .bind(participant.to_string())
                .bind(room)
                .execute(&mut *tx)
                .await?;
        }
        Change::SessionStarted { participant, token } => {
            end_session(tx, *participant, at).await?;
            sqlx::query("INSERT INTO sessions (token, participant, created) VALUES (?, ?, ?)")
                .bind(&token.as_bytes()[..])
                .bind(participant.to_string())
                .bind(at.as_millisecond())
                .execute(&mut *tx)
                .await?;
        }
        Change::SessionEnded { participant } => end_session(tx, *participant, at).await?,
    }
    Ok(())
}

async fn end_session(tx: &mut SqliteConnection, participant: ParticipantId, at: Timestamp) -> Result<(), Error> {
    sqlx::query("UPDATE sessions SET ended = ? WHERE participant = ? AND ended IS NULL")
        .bind(at.as_millisecond())
        .bind(participant.to_string())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

fn person(row: &SqliteRow) -> Result<Person, Error> {
    let session: Option<Vec<u8>> = row.try_get("session")?;
    Ok(Person {
        id: parse(row, "id", "participant")?,
        role: from_word(row.try_get("role")?, "role")?,
        name: Personal::new(row.try_get("name")?),
        fiscal_code: row.try_get::<Option<String>, _>("fiscal_code")?.map(Personal::new),
        phone: row.try_get::<Option<String>, _>("phone")?.map(Personal::new),
        operator_number: row.try_get("operator_number")?,
        link: hash(row, "link")?,
        code: hash(row, "code")?,
        session: session.map(bytes).transpose()?,
    })
}

fn line(row: &SqliteRow) -> Result<Line, Error> {
    Ok(Line {
        seq: count(row, "seq")?,
        wall: parse(row, "wall", "ledger time")?,
        mono_ms: count(row, "mono_ms")?,
        event: from_json::<Event>(row.try_get("event")?, "ledger event")?,
        prev: row.try_get("prev")?,
        hash: row.try_get("hash")?,
    })
}

fn owner(row: &SqliteRow) -> Result<Owner, Error> {
    Ok(Owner {
        room: parse(row, "room", "room")?,
        participant: parse(row, "participant", "participant")?,
        role: from_word(row.try_get("role")?, "role")?,
    })
}

fn hash(row: &SqliteRow, column: &str) -> Result<Hash, Error> {
    bytes(row.try_get(column)?)
}

fn bytes(stored: Vec<u8>) -> Result<Hash, Error> {
    stored.try_into().map(Hash::from_bytes).map_err(|_| Error::Corrupt("hash"))
}

fn count(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| Error::Corrupt("number"))
}

fn integer(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Corrupt("number"))
}

fn millis(stored: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(stored).map_err(|_| Error::Corrupt("time"))
}

fn parse<T: FromStr>(row: &SqliteRow, column: &str, what: &'static str) -> Result<T, Error> {
    row.try_get::<String, _>(column)?.parse().map_err(|_| Error::Corrupt(what))
}

fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Corrupt("value"))
}

fn from_json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|_| Error::Corrupt(what))
}

/// The one-word name that serde gives a variant: the same as in the API.
fn word<T: Serialize>(value: T) -> Result<String, Error> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(Error::Corrupt("word")),
    }
}

fn from_word<T: DeserializeOwned>(word: String, what: &'static str) -> Result<T, Error> {
    serde_json::from_value(serde_json::Value::String(word)).map_err(|_| Error::Corrupt(what))
}
