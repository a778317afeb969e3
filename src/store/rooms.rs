//! Rooms, their people, their ledgers and what was recorded of them.

use jiff::{SignedDuration, Timestamp};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::access::{end_session, start_session};
use super::outbox::Whose;
use super::papers::{add_document, add_message, ask_register};
use super::row::{
    count, from_json, from_word, hash, integer, json, maybe_hash, maybe_text, maybe_word, parse, text, time, word,
};
use super::{
    Answer, Appointment, Booked, Change, Error, Language, NewRoom, Person, Personal, Record, RoomFilter, RoomRow,
    Store, StoredOriginal, Taken, outbox,
};
use crate::id::{ParticipantId, RoomId};
use crate::recording::Original;
use crate::room::ledger::{self, Head, Line};
use crate::room::{Event, Phase};

/// Phases after which a room's ledger grows no more.
const FINISHED: [Phase; 3] = [Phase::Closed, Phase::Cancelled, Phase::Expired];

/// The longest appointment there can be: rooms that began earlier cannot reach into a later time.
const LONGEST_APPOINTMENT: SignedDuration = SignedDuration::from_hours(24);

impl Store {
    /// Keeps a new room, its people, its ledger's first lines and the messages that go out with it, all or nothing.
    ///
    /// A request that was answered before is not carried out again, and a room that does not fit is not kept: see
    /// [`Booked`].
    pub async fn book(&self, new: &NewRoom<'_>) -> Result<Booked, Error> {
        let NewRoom { appointment, lines, phase, at, messages, answer, fits } = new;
        let mut tx = self.write().await?;
        if let Some(answer) = answer
            && let Some(kept) = keep_answer(&mut tx, answer, *at).await?
        {
            return Ok(Booked::Before(kept));
        }
        if let Some(fits) = fits
            && !fits(&taken_in_turn(&mut tx, appointment.start, appointment.end, None).await?)
        {
            return Ok(Booked::Full);
        }
        let id = appointment.id.to_string();
        sqlx::query(
            "INSERT INTO rooms
             (id, profile, profile_name, office, counter, reason, reference, starts, ends, phase, created)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&id)
        .bind(json(&appointment.profile)?)
        .bind(&appointment.profile.name)
        .bind(&appointment.office)
        .bind(&appointment.counter)
        .bind(&appointment.reason)
        .bind(appointment.reference.as_ref())
        .bind(appointment.start.as_millisecond())
        .bind(appointment.end.as_millisecond())
        .bind(word(phase)?)
        .bind(at.as_millisecond())
        .execute(&mut *tx)
        .await?;
        for (position, person) in (0_i64..).zip(&appointment.people) {
            insert_person(&mut tx, &id, position, person).await?;
        }
        append(&mut tx, appointment.id, lines).await?;
        outbox::post(&mut tx, messages, *at).await?;
        match tx.commit().await {
            Ok(()) => Ok(Booked::Now),
            Err(error) => Err(error.into()),
        }
    }

    /// The answer to a request that was made before with the same key, if it is still kept.
    pub async fn answer(&self, caller: &str, key: &str) -> Result<Option<Answer>, Error> {
        let mut connection = self.readers.acquire().await?;
        find_answer(&mut connection, caller, key).await
    }

    /// Appends to a room's ledger and changes the rows that belong to it: all or nothing.
    ///
    /// The lines must continue the ledger as it is stored; if somebody else has written to it since,
    /// [`Error::Outrun`]. [`Error::Full`]: the new times of a moved room are taken.
    pub async fn record(&self, record: &Record<'_>) -> Result<(), Error> {
        let mut tx = self.write().await?;
        let room = record.room.to_string();
        if let Some(first) = record.lines.first()
            && head(&mut tx, &room).await?.is_none_or(|head| head.seq + 1 != first.seq || head.hash != first.prev)
        {
            return Err(Error::Outrun);
        }
        append(&mut tx, record.room, record.lines).await?;
        let finished = FINISHED.contains(&record.phase).then_some(record.at.as_millisecond());
        sqlx::query(
            "UPDATE rooms SET phase = $1, outcome = $2, finished = coalesce(finished, $3)
             WHERE id = $4 AND phase <> $1",
        )
        .bind(word(record.phase)?)
        .bind(record.outcome.map(word).transpose()?)
        .bind(finished)
        .bind(&room)
        .execute(&mut *tx)
        .await?;
        for change in record.changes {
            self.apply(&mut tx, record, change).await?;
        }
        if finished.is_some() {
            outbox::withdraw(&mut tx, Whose::Room(record.room), record.at).await?;
        }
        outbox::post(&mut tx, record.messages, record.at).await?;
        Ok(tx.commit().await?)
    }

    async fn apply(&self, tx: &mut AnyConnection, record: &Record<'_>, change: &Change) -> Result<(), Error> {
        let room = record.room.to_string();
        match change {
            Change::Times { start, end } => {
                if let Some(fits) = record.fits
                    && !fits(&taken_in_turn(tx, *start, *end, Some(record.room)).await?)
                {
                    return Err(Error::Full);
                }
                sqlx::query("UPDATE rooms SET starts = $1, ends = $2 WHERE id = $3")
                    .bind(start.as_millisecond())
                    .bind(end.as_millisecond())
                    .bind(room)
                    .execute(&mut *tx)
                    .await?;
                outbox::prolong(tx, record.room, *end).await?;
            }
            Change::Code { participant, code } => {
                sqlx::query("UPDATE participants SET code = $1 WHERE id = $2 AND room = $3")
                    .bind(&code.as_bytes()[..])
                    .bind(participant.to_string())
                    .bind(room)
                    .execute(tx)
                    .await?;
            }
            Change::DocumentNamed { document, name } => add_document(tx, &room, *document, name).await?,
            Change::Written(message) => add_message(tx, &room, message).await?,
            Change::RegistrationAsked(asked) => ask_register(tx, asked, record.at).await?,
            Change::SessionStarted { participant, token } => {
                start_session(tx, *participant, *token, record.at).await?;
            }
            Change::SessionEnded { participant } => end_session(tx, *participant, record.at).await?,
            Change::Replaced { participant, by } => {
                outbox::withdraw(tx, Whose::Person(*participant), record.at).await?;
                replace(tx, &room, *participant, by, record.at).await?;
            }
        }
        Ok(())
    }

    /// The rooms whose ledger may still grow.
    pub async fn unfinished(&self) -> Result<Vec<RoomId>, Error> {
        let [closed, cancelled, expired] = FINISHED;
        let rows = sqlx::query("SELECT id FROM rooms WHERE phase NOT IN ($1, $2, $3) ORDER BY starts")
            .bind(word(closed)?)
            .bind(word(cancelled)?)
            .bind(word(expired)?)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| parse(row, "id", "room")).collect()
    }

    /// Which rooms take up a counter or the node between two times: those that are booked and neither cancelled nor
    /// expired.
    pub async fn taken(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Taken>, Error> {
        let mut connection = self.readers.acquire().await?;
        taken(&mut connection, from, to, None).await
    }

    /// Rooms by start and id, without those people who were replaced.
    pub async fn rooms(&self, filter: &RoomFilter) -> Result<Vec<RoomRow>, Error> {
        let (after, after_id) =
            filter.after.map_or((i64::MIN, String::new()), |(start, id)| (start.as_millisecond(), id.to_string()));
        let rows = sqlx::query(
            "SELECT id, profile_name, office, counter, reason, reference, starts, ends, phase, outcome FROM rooms
             WHERE starts >= $1 AND starts < $2 AND (starts > $3 OR (starts = $3 AND id > $4))
               AND ($5 = '' OR office = $5) AND ($6 = '' OR counter = $6) AND ($7 = '' OR phase = $7)
               AND ($8 = '' OR reference = $8) AND ($9 = '' OR profile_name = $9)
             ORDER BY starts, id LIMIT $10",
        )
        .bind(filter.from.map_or(i64::MIN, Timestamp::as_millisecond).max(after))
        .bind(filter.to.map_or(i64::MAX, Timestamp::as_millisecond))
        .bind(after)
        .bind(after_id)
        .bind(filter.office.clone().unwrap_or_default())
        .bind(filter.counter.clone().unwrap_or_default())
        .bind(filter.phase.map_or(Ok(String::new()), word)?)
        .bind(filter.reference.clone().unwrap_or_default())
        .bind(filter.profile.clone().unwrap_or_default())
        .bind(i64::from(filter.limit))
        .fetch_all(&self.readers)
        .await?;
        let mut rooms = rows.iter().map(room_row).collect::<Result<Vec<_>, _>>()?;
        self.add_people(&mut rooms).await?;
        Ok(rooms)
    }

    pub(super) async fn add_people(&self, rooms: &mut [RoomRow]) -> Result<(), Error> {
        if rooms.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = (1..=rooms.len()).map(|place| format!("${place}")).collect();
        // Nothing but numbers goes into the text.
        let statement = format!(
            "SELECT room, id, role, name FROM participants
             WHERE room IN ({}) AND replaced IS NULL ORDER BY room, position",
            places.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for room in rooms.iter() {
            query = query.bind(room.id.to_string());
        }
        for row in query.fetch_all(&self.readers).await? {
            let id = parse(&row, "room", "room")?;
            if let Some(room) = rooms.iter_mut().find(|room| room.id == id) {
                let name = Personal::new(text(&row, "name")?);
                room.people.push((parse(&row, "id", "participant")?, from_word(&row, "role", "role")?, name));
            }
        }
        Ok(())
    }

    /// A room as it was booked, with its people; `None`: there is no such room.
    pub async fn appointment(&self, room: RoomId) -> Result<Option<Appointment>, Error> {
        let id = room.to_string();
        let found = sqlx::query("SELECT * FROM rooms WHERE id = $1").bind(&id).fetch_optional(&self.readers).await?;
        let Some(row) = found else { return Ok(None) };
        let people = sqlx::query(
            "SELECT p.*, s.token AS session FROM participants p
             LEFT JOIN sessions s ON s.participant = p.id AND s.ended IS NULL
             WHERE p.room = $1 AND p.replaced IS NULL ORDER BY p.position",
        )
        .bind(&id)
        .fetch_all(&self.readers)
        .await?;
        Ok(Some(Appointment {
            id: room,
            profile: from_json(&row, "profile", "profile")?,
            office: text(&row, "office")?,
            counter: text(&row, "counter")?,
            reason: text(&row, "reason")?,
            reference: maybe_text(&row, "reference")?,
            start: time(&row, "starts")?,
            end: time(&row, "ends")?,
            people: people.iter().map(person).collect::<Result<_, _>>()?,
            documents: self.document_names(room).await?,
        }))
    }

    /// A room's ledger, oldest line first, checked against its chain. Empty: there is no such room.
    pub async fn ledger(&self, room: RoomId) -> Result<Vec<Line>, Error> {
        let rows = sqlx::query("SELECT * FROM ledger WHERE room = $1 ORDER BY seq")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        let lines = rows.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        ledger::verify(&lines).map_err(|_| Error::Corrupt("ledger"))?;
        Ok(lines)
    }

    /// Keeps what a finished original is. Told twice, it is kept once, as it was told last: a crash may have left more of
    /// it on the disk than it was known to have.
    pub async fn add_original(&self, room: RoomId, stored: &StoredOriginal, at: Timestamp) -> Result<(), Error> {
        let StoredOriginal { connection, participant, original } = stored;
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO originals
             (room, file, connection, participant, sources, bytes, clusters, duration_ms, chain_head, finished)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (room, file) DO UPDATE
             SET bytes = excluded.bytes, clusters = excluded.clusters, duration_ms = excluded.duration_ms,
                 chain_head = excluded.chain_head",
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
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// A room's finished originals, by file name.
    pub async fn originals(&self, room: RoomId) -> Result<Vec<StoredOriginal>, Error> {
        let rows = sqlx::query("SELECT * FROM originals WHERE room = $1 ORDER BY file")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredOriginal {
                    connection: parse(row, "connection", "connection")?,
                    participant: parse(row, "participant", "participant")?,
                    original: Original {
                        file: text(row, "file")?,
                        sources: from_json(row, "sources", "list of sources")?,
                        bytes: count(row, "bytes")?,
                        clusters: count(row, "clusters")?,
                        duration_ms: count(row, "duration_ms")?,
                        chain_head: text(row, "chain_head")?,
                    },
                })
            })
            .collect()
    }
}

async fn insert_person(tx: &mut AnyConnection, room: &str, position: i64, person: &Person) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO participants
         (id, room, position, role, name, fiscal_code, phone, operator_number, language, link, code)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(person.id.to_string())
    .bind(room)
    .bind(position)
    .bind(word(person.role)?)
    .bind(person.name.expose())
    .bind(person.fiscal_code.as_ref().map(Personal::expose))
    .bind(person.phone.as_ref().map(Personal::expose))
    .bind(person.operator_number.as_ref())
    .bind(person.language.map(Language::word))
    .bind(&person.link.as_bytes()[..])
    .bind(&person.code.as_bytes()[..])
    .execute(tx)
    .await?;
    Ok(())
}

/// Puts `by` into the place of `participant`, whose rows stay: what they did is in the ledger.
async fn replace(
    tx: &mut AnyConnection,
    room: &str,
    participant: ParticipantId,
    by: &Person,
    at: Timestamp,
) -> Result<(), Error> {
    let old = sqlx::query("SELECT position FROM participants WHERE id = $1 AND room = $2")
        .bind(participant.to_string())
        .bind(room)
        .fetch_one(&mut *tx)
        .await?;
    let lowest = sqlx::query("SELECT min(position) AS lowest FROM participants WHERE room = $1")
        .bind(room)
        .fetch_one(&mut *tx)
        .await?;
    let lowest: i64 = lowest.try_get("lowest")?;
    sqlx::query("UPDATE participants SET replaced = $1, position = $2 WHERE id = $3")
        .bind(at.as_millisecond())
        .bind(lowest.min(0) - 1)
        .bind(participant.to_string())
        .execute(&mut *tx)
        .await?;
    insert_person(tx, room, old.try_get("position")?, by).await
}

async fn append(tx: &mut AnyConnection, room: RoomId, lines: &[Line]) -> Result<(), Error> {
    for line in lines {
        sqlx::query(
            "INSERT INTO ledger (room, seq, wall, mono_ms, event, prev, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(room.to_string())
        .bind(integer(line.seq)?)
        .bind(line.wall.to_string())
        .bind(integer(line.mono_ms)?)
        .bind(json(&line.event)?)
        .bind(&line.prev)
        .bind(&line.hash)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn head(tx: &mut AnyConnection, room: &str) -> Result<Option<Head>, Error> {
    let row = sqlx::query("SELECT seq, hash FROM ledger WHERE room = $1 ORDER BY seq DESC LIMIT 1")
        .bind(room)
        .fetch_optional(tx)
        .await?;
    row.map(|row| Ok(Head { seq: count(&row, "seq")?, hash: text(&row, "hash")? })).transpose()
}

/// Keeps the answer to a request; if there is one already, gives that. First of all in its transaction: of two that
/// carry out the same request at the same time, the later waits here for what becomes of the earlier.
async fn keep_answer(tx: &mut AnyConnection, answer: &Answer, at: Timestamp) -> Result<Option<Answer>, Error> {
    let kept = sqlx::query(
        "INSERT INTO answers (caller, key, fingerprint, answer, created) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (caller, key) DO NOTHING",
    )
    .bind(&answer.caller)
    .bind(&answer.key)
    .bind(&answer.fingerprint.as_bytes()[..])
    .bind(&answer.sealed[..])
    .bind(at.as_millisecond())
    .execute(&mut *tx)
    .await?;
    if kept.rows_affected() > 0 {
        return Ok(None);
    }
    find_answer(tx, &answer.caller, &answer.key).await?.map(Some).ok_or(Error::Corrupt("kept answer"))
}

async fn find_answer(connection: &mut AnyConnection, caller: &str, key: &str) -> Result<Option<Answer>, Error> {
    let row = sqlx::query("SELECT fingerprint, answer FROM answers WHERE caller = $1 AND key = $2")
        .bind(caller)
        .bind(key)
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(Answer {
            caller: caller.to_owned(),
            key: key.to_owned(),
            fingerprint: hash(&row, "fingerprint")?,
            sealed: super::row::blob(&row, "answer")?,
        })
    })
    .transpose()
}

/// What is taken, as long as this transaction lasts: nobody else books in between.
async fn taken_in_turn(
    tx: &mut AnyConnection,
    from: Timestamp,
    to: Timestamp,
    except: Option<RoomId>,
) -> Result<Vec<Taken>, Error> {
    sqlx::query("UPDATE turns SET turn = turn + 1 WHERE name = 'booking'").execute(&mut *tx).await?;
    taken(tx, from, to, except).await
}

async fn taken(
    connection: &mut AnyConnection,
    from: Timestamp,
    to: Timestamp,
    except: Option<RoomId>,
) -> Result<Vec<Taken>, Error> {
    let earliest = from.saturating_sub(LONGEST_APPOINTMENT).unwrap_or(Timestamp::MIN);
    let rows = sqlx::query(
        "SELECT office, counter, starts, ends FROM rooms
         WHERE starts < $1 AND ends > $2 AND starts >= $3 AND id <> $4 AND phase NOT IN ($5, $6)",
    )
    .bind(to.as_millisecond())
    .bind(from.as_millisecond())
    .bind(earliest.as_millisecond())
    .bind(except.map(|room| room.to_string()).unwrap_or_default())
    .bind(word(Phase::Cancelled)?)
    .bind(word(Phase::Expired)?)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Taken {
                office: text(row, "office")?,
                counter: text(row, "counter")?,
                start: time(row, "starts")?,
                end: time(row, "ends")?,
            })
        })
        .collect()
}

pub(super) fn room_row(row: &AnyRow) -> Result<RoomRow, Error> {
    Ok(RoomRow {
        id: parse(row, "id", "room")?,
        profile: text(row, "profile_name")?,
        office: text(row, "office")?,
        counter: text(row, "counter")?,
        reason: text(row, "reason")?,
        reference: maybe_text(row, "reference")?,
        start: time(row, "starts")?,
        end: time(row, "ends")?,
        phase: from_word(row, "phase", "phase")?,
        outcome: maybe_word(row, "outcome", "outcome")?,
        people: Vec::new(),
    })
}

fn person(row: &AnyRow) -> Result<Person, Error> {
    Ok(Person {
        id: parse(row, "id", "participant")?,
        role: from_word(row, "role", "role")?,
        name: Personal::new(text(row, "name")?),
        fiscal_code: maybe_text(row, "fiscal_code")?.map(Personal::new),
        phone: maybe_text(row, "phone")?.map(Personal::new),
        operator_number: maybe_text(row, "operator_number")?,
        language: maybe_word(row, "language", "language")?,
        link: hash(row, "link")?,
        code: hash(row, "code")?,
        session: maybe_hash(row, "session")?,
    })
}

fn line(row: &AnyRow) -> Result<Line, Error> {
    Ok(Line {
        seq: count(row, "seq")?,
        wall: parse(row, "wall", "ledger time")?,
        mono_ms: count(row, "mono_ms")?,
        event: from_json::<Event>(row, "event", "ledger event")?,
        prev: text(row, "prev")?,
        hash: text(row, "hash")?,
    })
}
