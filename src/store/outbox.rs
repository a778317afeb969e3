//! Messages on their way out: written with what causes them, sent by `notify`, one after the other within a lane.

use jiff::Timestamp;
use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::row::{blob, count, from_word, maybe_text, parse, text, time, word};
use super::{Error, Message, MessageKind, MessageState, NewMessage, SettledText, Store};
use crate::id::{MessageId, ParticipantId, RoomId};

impl Store {
    /// The messages to be sent now: of each lane (a room's webhooks, a person's text messages) the oldest that is not
    /// settled, if it is due. Oldest first.
    pub async fn due_messages(&self, kind: MessageKind, now: Timestamp, limit: u32) -> Result<Vec<Message>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM outbox m WHERE m.kind = $1 AND m.state = 'pending' AND m.due <= $2
             AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.kind = m.kind AND e.lane = m.lane
                             AND e.state = 'pending' AND e.position < m.position)
             ORDER BY m.position LIMIT $3",
        )
        .bind(word(kind)?)
        .bind(now.as_millisecond())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(message).collect()
    }

    /// When the next message is due; `None`: none waits.
    pub async fn next_due(&self, kind: MessageKind) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query(
            "SELECT min(m.due) AS due FROM outbox m WHERE m.kind = $1 AND m.state = 'pending'
             AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.kind = m.kind AND e.lane = m.lane
                             AND e.state = 'pending' AND e.position < m.position)",
        )
        .bind(word(kind)?)
        .fetch_one(&self.readers)
        .await?;
        super::row::maybe_time(&row, "due")
    }

    /// Since when the oldest message that is not settled has been waiting; `None`: none waits.
    pub async fn oldest_pending(&self, kind: MessageKind) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query("SELECT min(created) AS created FROM outbox WHERE kind = $1 AND state = 'pending'")
            .bind(word(kind)?)
            .fetch_one(&self.readers)
            .await?;
        super::row::maybe_time(&row, "created")
    }

    /// Notes that a message arrived. A text message's body is erased.
    pub async fn message_delivered(&self, id: MessageId, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        settle(&mut tx, id, MessageState::Delivered, None, at).await?;
        Ok(tx.commit().await?)
    }

    /// Notes that an attempt failed: it is tried again at `retry_at`, or parked (and a text message's body erased).
    /// `error` is in our own words: never the far end's.
    pub async fn message_failed(
        &self,
        id: MessageId,
        at: Timestamp,
        error: &str,
        retry_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        let mut tx = self.write().await?;
        match retry_at {
            Some(due) => {
                sqlx::query(
                    "UPDATE outbox SET attempts = attempts + 1, due = $1, last_error = $2
                     WHERE id = $3 AND state = 'pending'",
                )
                .bind(due.as_millisecond())
                .bind(error)
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
            }
            None => settle(&mut tx, id, MessageState::Parked, Some(error), at).await?,
        }
        Ok(tx.commit().await?)
    }

    /// Sends a settled webhook once more, or one that waits at once; `false`: there is no such webhook.
    pub async fn replay_message(&self, id: MessageId, at: Timestamp, give_up: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE outbox SET state = 'pending', due = $1, give_up = $2, attempts = 0, settled = NULL
             WHERE id = $3 AND kind = 'webhook'",
        )
        .bind(at.as_millisecond())
        .bind(give_up.as_millisecond())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Messages in the order in which they were written, those behind `after`.
    pub async fn messages(
        &self,
        kind: MessageKind,
        state: Option<MessageState>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<Message>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM outbox WHERE kind = $1 AND ($2 = '' OR state = $2)
             AND position > coalesce((SELECT position FROM outbox WHERE id = $3), 0)
             ORDER BY position LIMIT $4",
        )
        .bind(word(kind)?)
        .bind(state.map_or(Ok(String::new()), word)?)
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(message).collect()
    }

    /// Keeps messages that belong to nothing else that is written.
    pub async fn post(&self, messages: &[NewMessage], at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        post(&mut tx, messages, at).await?;
        Ok(tx.commit().await?)
    }

    /// Text messages that were settled since then, each the last of its person.
    pub async fn settled_texts(&self, since: Timestamp) -> Result<Vec<(RoomId, MessageId)>, Error> {
        let rows = sqlx::query(
            "SELECT m.room, m.id FROM outbox m
             WHERE m.kind = 'sms' AND m.state <> 'pending' AND coalesce(m.last_error, '') <> 'superseded' AND m.settled >= $1
             AND NOT EXISTS (SELECT 1 FROM outbox l WHERE l.participant = m.participant AND l.position > m.position)",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((parse(row, "room", "room")?, parse(row, "id", "message")?))).collect()
    }

    /// How this text message ended; `None`: it has not, or is not its person's last.
    pub async fn settled_text(&self, id: MessageId) -> Result<Option<SettledText>, Error> {
        let row = sqlx::query(
            "SELECT m.participant, m.state FROM outbox m
             WHERE m.kind = 'sms' AND m.state <> 'pending' AND coalesce(m.last_error, '') <> 'superseded' AND m.id = $1
             AND NOT EXISTS (SELECT 1 FROM outbox l WHERE l.participant = m.participant AND l.position > m.position)",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(settled_text).transpose()
    }

    /// One message.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, Error> {
        let row = sqlx::query("SELECT * FROM outbox WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(message).transpose()
    }
}

/// Whose text messages.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// Everyone's in a room.
    Room(RoomId),
    /// One person's.
    Person(ParticipantId),
}

/// Takes back the text messages that still wait: their codes open nothing any more.
pub(super) async fn withdraw(tx: &mut AnyConnection, whose: Whose, at: Timestamp) -> Result<(), Error> {
    let (room, participant) = match whose {
        Whose::Room(room) => (room.to_string(), String::new()),
        Whose::Person(participant) => (String::new(), participant.to_string()),
    };
    sqlx::query(
        "UPDATE outbox SET state = 'parked', settled = $1, body = $2, last_error = 'superseded'
         WHERE kind = 'sms' AND state = 'pending' AND (room = $3 OR participant = $4)",
    )
    .bind(at.as_millisecond())
    .bind(Vec::new())
    .bind(room)
    .bind(participant)
    .execute(tx)
    .await?;
    Ok(())
}

/// A room was moved: its codes, in the text messages that still wait, are of use until its new end.
pub(super) async fn prolong(tx: &mut AnyConnection, room: RoomId, end: Timestamp) -> Result<(), Error> {
    sqlx::query("UPDATE outbox SET give_up = $1 WHERE kind = 'sms' AND state = 'pending' AND room = $2")
        .bind(end.as_millisecond())
        .bind(room.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// Writes messages in the order given. A new text message takes the place of a person's earlier one that still waits:
/// its code is void.
pub(super) async fn post(tx: &mut AnyConnection, messages: &[NewMessage], at: Timestamp) -> Result<(), Error> {
    for new in messages {
        let room = new.room.to_string();
        let participant = new.participant.map(|id| id.to_string());
        if let (MessageKind::Sms, Some(participant)) = (new.kind, new.participant) {
            withdraw(tx, Whose::Person(participant), at).await?;
        }
        let lane = match new.kind {
            MessageKind::Webhook => room.clone(),
            MessageKind::Sms => participant.clone().unwrap_or_default(),
        };
        sqlx::query(
            "INSERT INTO outbox
             (id, kind, lane, room, participant, subject, body, created, due, give_up, attempts, state)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, 0, 'pending')",
        )
        .bind(new.id.to_string())
        .bind(word(new.kind)?)
        .bind(lane)
        .bind(room)
        .bind(participant)
        .bind(&new.subject)
        .bind(&new.body[..])
        .bind(at.as_millisecond())
        .bind(new.give_up.as_millisecond())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn settle(
    tx: &mut AnyConnection,
    id: MessageId,
    state: MessageState,
    error: Option<&str>,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE outbox SET attempts = attempts + 1, state = $1, settled = $2, last_error = $3,
         body = CASE kind WHEN 'sms' THEN $4 ELSE body END
         WHERE id = $5 AND state = 'pending'",
    )
    .bind(word(state)?)
    .bind(at.as_millisecond())
    .bind(error)
    .bind(Vec::new())
    .bind(id.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

fn message(row: &AnyRow) -> Result<Message, Error> {
    let participant: Option<String> = row.try_get("participant")?;
    Ok(Message {
        id: parse(row, "id", "message")?,
        kind: from_word(row, "kind", "message kind")?,
        room: parse(row, "room", "room")?,
        participant: participant.map(|id| id.parse().map_err(|_| Error::Corrupt("participant"))).transpose()?,
        subject: text(row, "subject")?,
        body: blob(row, "body")?,
        created: time(row, "created")?,
        due: time(row, "due")?,
        give_up: time(row, "give_up")?,
        attempts: u32::try_from(count(row, "attempts")?).map_err(|_| Error::Corrupt("number"))?,
        state: from_word(row, "state", "message state")?,
        last_error: maybe_text(row, "last_error")?,
    })
}

fn settled_text(row: &AnyRow) -> Result<SettledText, Error> {
    let state: MessageState = from_word(row, "state", "message state")?;
    Ok(SettledText { participant: parse(row, "participant", "participant")?, sent: state == MessageState::Delivered })
}
