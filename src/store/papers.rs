//! Names of documents, written messages, and the register: the embedded one, and what another one was asked for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::row::{count, from_word, integer, maybe_time, parse, text, time, word};
use super::{Error, Personal, Store};
use crate::id::{DocumentId, ParticipantId, RoomId};
use crate::media::DocumentKind;

/// What a document is called.
#[derive(Clone, Debug)]
pub struct NamedDocument {
    /// Which.
    pub id: DocumentId,
    /// What its sender's device called it.
    pub name: Personal,
}

/// A written message.
#[derive(Clone, Debug)]
pub struct ChatMessage {
    /// Its number in the room, from 1.
    pub number: u64,
    /// Who wrote it.
    pub participant: ParticipantId,
    /// When.
    pub written: Timestamp,
    /// What.
    pub text: Personal,
}

/// What the register is asked for.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The document.
    pub document: DocumentId,
    /// Its room.
    pub room: RoomId,
    /// Who handed it in, as the register names them.
    pub sender: Personal,
    /// What it is about.
    pub subject: Personal,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: DocumentKind,
    /// When it was handed in.
    pub handed_in: Timestamp,
    /// Where it stands.
    pub state: RegistrationState,
    /// How often the register was asked in vain.
    pub attempts: u32,
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// The register has not answered yet.
    Asked,
    /// It gave a number.
    Registered(Number),
    /// It will not have the document.
    Refused,
}

/// A number of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The register's year.
    pub year: i16,
    /// The number in that year, from 1.
    pub number: u64,
    /// When it was entered.
    pub entered: Timestamp,
}

/// An entry of the embedded register.
#[derive(Clone, Debug)]
pub struct RegisterEntry {
    /// Its number.
    pub number: Number,
    /// The document.
    pub document: DocumentId,
    /// Its room.
    pub room: RoomId,
    /// When it was handed in: the entry's date.
    pub handed_in: Timestamp,
    /// Who handed it in.
    pub sender: Personal,
    /// What it is about.
    pub subject: Personal,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Asked,
    Registered,
    Refused,
}

impl Store {
    /// The messages of a room after a number, oldest first.
    pub async fn chat(&self, room: RoomId, after: u64, limit: u32) -> Result<Vec<ChatMessage>, Error> {
        let rows = sqlx::query("SELECT * FROM chat WHERE room = $1 AND number > $2 ORDER BY number LIMIT $3")
            .bind(room.to_string())
            .bind(integer(after)?)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        let message = |row: &AnyRow| {
            Ok(ChatMessage {
                number: count(row, "number")?,
                participant: parse(row, "participant", "participant")?,
                written: time(row, "written")?,
                text: Personal::new(text(row, "text")?),
            })
        };
        rows.iter().map(message).collect()
    }

    /// The names of a room's documents.
    pub async fn document_names(&self, room: RoomId) -> Result<Vec<NamedDocument>, Error> {
        let rows = sqlx::query("SELECT id, name FROM documents WHERE room = $1 ORDER BY id")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        let named = |row: &AnyRow| {
            Ok(NamedDocument { id: parse(row, "id", "document")?, name: Personal::new(text(row, "name")?) })
        };
        rows.iter().map(named).collect()
    }

    /// Registrations that are due: the register is to be asked, or the room to be told of its answer.
    pub async fn registrations_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Registration>, Error> {
        let rows = sqlx::query("SELECT * FROM registrations WHERE told IS NULL AND due <= $1 ORDER BY due LIMIT $2")
            .bind(now.as_millisecond())
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(registration).collect()
    }

    /// What the register was asked for a document; `None`: nothing.
    pub async fn registration(&self, document: DocumentId) -> Result<Option<Registration>, Error> {
        let row = sqlx::query("SELECT * FROM registrations WHERE document = $1")
            .bind(document.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(registration).transpose()
    }

    /// What the register was asked for a room's documents.
    pub async fn registrations_of(&self, room: RoomId) -> Result<Vec<Registration>, Error> {
        let rows = sqlx::query("SELECT * FROM registrations WHERE room = $1 ORDER BY document")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(registration).collect()
    }

    /// Enters a document in the embedded register, under the next number of `year`; what is entered already keeps its
    /// number. Number and entry are one transaction: none is left out, none given twice.
    pub async fn enter(&self, asked: &Registration, year: i16, at: Timestamp) -> Result<Number, Error> {
        let mut tx = self.write().await?;
        let document = asked.document.to_string();
        let taken = sqlx::query(
            "INSERT INTO register_years (year, last) VALUES ($1, 0) ON CONFLICT (year) DO UPDATE SET last = register_years.last
             RETURNING last",
        )
        .bind(i64::from(year))
        .fetch_one(&mut *tx)
        .await?;
        // Whoever holds the year's row is alone with the register.
        let before = sqlx::query("SELECT year, number, entered FROM register WHERE document = $1")
            .bind(&document)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = before {
            return number(&row);
        }
        let next = count(&taken, "last")? + 1;
        sqlx::query("UPDATE register_years SET last = $1 WHERE year = $2")
            .bind(integer(next)?)
            .bind(i64::from(year))
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO register (year, number, document, room, handed_in, entered, sender, subject, sha256)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(i64::from(year))
        .bind(integer(next)?)
        .bind(&document)
        .bind(asked.room.to_string())
        .bind(asked.handed_in.as_millisecond())
        .bind(at.as_millisecond())
        .bind(asked.sender.expose())
        .bind(asked.subject.expose())
        .bind(&asked.sha256)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Number { year, number: next, entered: at })
    }

    /// Writes down what the register answered; `None`: it will not have the document.
    pub async fn registration_answered(&self, document: DocumentId, entry: Option<Number>) -> Result<(), Error> {
        let state = if entry.is_some() { State::Registered } else { State::Refused };
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE registrations SET state = $1, year = $2, number = $3, entered = $4
             WHERE document = $5 AND state = $6",
        )
        .bind(word(state)?)
        .bind(entry.map(|entry| i64::from(entry.year)))
        .bind(entry.map(|entry| integer(entry.number)).transpose()?)
        .bind(entry.map(|entry| entry.entered.as_millisecond()))
        .bind(document.to_string())
        .bind(word(State::Asked)?)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// The room has heard of the register's answer.
    pub async fn registration_told(&self, document: DocumentId, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE registrations SET told = $1 WHERE document = $2")
            .bind(at.as_millisecond())
            .bind(document.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The register did not answer, or the room could not be told: tried again then.
    pub async fn registration_put_off(&self, document: DocumentId, due: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE registrations SET attempts = attempts + 1, due = $1 WHERE document = $2")
            .bind(due.as_millisecond())
            .bind(document.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The embedded register's entries of a time, by year and number.
    pub async fn register_entries(&self, from: Timestamp, to: Timestamp) -> Result<Vec<RegisterEntry>, Error> {
        let rows = sqlx::query("SELECT * FROM register WHERE handed_in >= $1 AND handed_in < $2 ORDER BY year, number")
            .bind(from.as_millisecond())
            .bind(to.as_millisecond())
            .fetch_all(&self.readers)
            .await?;
        let entry = |row: &AnyRow| {
            Ok(RegisterEntry {
                number: number(row)?,
                document: parse(row, "document", "document")?,
                room: parse(row, "room", "room")?,
                handed_in: time(row, "handed_in")?,
                sender: Personal::new(text(row, "sender")?),
                subject: Personal::new(text(row, "subject")?),
                sha256: text(row, "sha256")?,
            })
        };
        rows.iter().map(entry).collect()
    }
}

pub(super) async fn add_document(
    tx: &mut AnyConnection,
    room: &str,
    document: DocumentId,
    name: &Personal,
) -> Result<(), Error> {
    sqlx::query("INSERT INTO documents (id, room, name) VALUES ($1, $2, $3)")
        .bind(document.to_string())
        .bind(room)
        .bind(name.expose())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn add_message(tx: &mut AnyConnection, room: &str, message: &ChatMessage) -> Result<(), Error> {
    sqlx::query("INSERT INTO chat (room, number, participant, written, text) VALUES ($1, $2, $3, $4, $5)")
        .bind(room)
        .bind(integer(message.number)?)
        .bind(message.participant.to_string())
        .bind(message.written.as_millisecond())
        .bind(message.text.expose())
        .execute(tx)
        .await?;
    Ok(())
}

/// Asks the register; what it refused before is asked anew.
pub(super) async fn ask_register(tx: &mut AnyConnection, asked: &Registration, at: Timestamp) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO registrations
         (document, room, sender, subject, sha256, bytes, kind, handed_in, state, attempts, due)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10) ON CONFLICT (document) DO UPDATE
         SET sender = excluded.sender, subject = excluded.subject, state = excluded.state, attempts = 0,
             due = excluded.due, told = NULL",
    )
    .bind(asked.document.to_string())
    .bind(asked.room.to_string())
    .bind(asked.sender.expose())
    .bind(asked.subject.expose())
    .bind(&asked.sha256)
    .bind(integer(asked.bytes)?)
    .bind(word(asked.kind)?)
    .bind(asked.handed_in.as_millisecond())
    .bind(word(State::Asked)?)
    .bind(at.as_millisecond())
    .execute(tx)
    .await?;
    Ok(())
}

/// What people wrote and called their files goes with the recordings. The register's entries stay: they are the
/// administration's, not the room's.
pub(super) async fn forget_papers(tx: &mut AnyConnection, room: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM chat WHERE room = $1").bind(room).execute(&mut *tx).await?;
    sqlx::query("UPDATE documents SET name = '' WHERE room = $1").bind(room).execute(&mut *tx).await?;
    Ok(())
}

fn number(row: &AnyRow) -> Result<Number, Error> {
    let year = count(row, "year")?;
    Ok(Number {
        year: i16::try_from(year).map_err(|_| Error::Corrupt("register's year"))?,
        number: count(row, "number")?,
        entered: time(row, "entered")?,
    })
}

fn registration(row: &AnyRow) -> Result<Registration, Error> {
    Ok(Registration {
        document: parse(row, "document", "document")?,
        room: parse(row, "room", "room")?,
        sender: Personal::new(text(row, "sender")?),
        subject: Personal::new(text(row, "subject")?),
        sha256: text(row, "sha256")?,
        bytes: count(row, "bytes")?,
        kind: from_word(row, "kind", "kind of document")?,
        handed_in: time(row, "handed_in")?,
        state: match from_word(row, "state", "state of a registration")? {
            State::Asked => RegistrationState::Asked,
            State::Refused => RegistrationState::Refused,
            State::Registered if maybe_time(row, "entered")?.is_some() => RegistrationState::Registered(number(row)?),
            State::Registered => return Err(Error::Corrupt("registration")),
        },
        attempts: u32::try_from(count(row, "attempts")?).unwrap_or(u32::MAX),
    })
}
