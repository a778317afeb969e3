//! Who looked at recordings: the audit's lines, and the accesses that are open.

use jiff::Timestamp;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::row::{count, from_json, from_word, integer, json, maybe_text, parse, text, time, word};
use super::{Error, Hash, Store};
use crate::audit::{self, Access, Head, Line};
use crate::id::{AccessId, RoomId};

/// An access to a room's recordings, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: AccessId,
    /// The room.
    pub room: RoomId,
    /// Who may use it.
    pub caller: String,
    /// Why they look.
    pub reason: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl Store {
    /// Writes a line to the audit.
    pub async fn note_access(&self, access: &Access, at: Timestamp) -> Result<Line, Error> {
        let mut tx = self.write().await?;
        let line = append_access(&mut tx, access, at).await?;
        tx.commit().await?;
        Ok(line)
    }

    /// Opens an access whose token has this hash, and writes that to the audit.
    pub async fn open_access(&self, grant: &Grant, token: Hash, access: &Access, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO access_tokens (id, token, room, caller, reason, opened, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(grant.id.to_string())
        .bind(&token.as_bytes()[..])
        .bind(grant.room.to_string())
        .bind(&grant.caller)
        .bind(&grant.reason)
        .bind(at.as_millisecond())
        .bind(grant.expires.as_millisecond())
        .execute(&mut *tx)
        .await?;
        append_access(&mut tx, access, at).await?;
        Ok(tx.commit().await?)
    }

    /// The access that a token opens; `None`: none, or none any more, because it has lapsed or its caller's key was
    /// revoked.
    pub async fn access(&self, token: Hash, now: Timestamp) -> Result<Option<Grant>, Error> {
        let row = sqlx::query(
            "SELECT t.id, t.room, t.caller, t.reason, t.expires FROM access_tokens t WHERE t.token = $1 AND t.expires > $2
             AND NOT EXISTS (SELECT 1 FROM api_keys k WHERE t.caller = 'key:' || k.id AND k.revoked IS NOT NULL)",
        )
        .bind(&token.as_bytes()[..])
        .bind(now.as_millisecond())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            Ok(Grant {
                id: parse(&row, "id", "access")?,
                room: parse(&row, "room", "room")?,
                caller: text(&row, "caller")?,
                reason: text(&row, "reason")?,
                expires: time(&row, "expires")?,
            })
        })
        .transpose()
    }

    /// The audit's lines about a room, oldest first, checked against their chain.
    pub async fn accesses(&self, room: RoomId) -> Result<Vec<Line>, Error> {
        let rows = sqlx::query("SELECT * FROM accesses WHERE room = $1 ORDER BY seq")
            .bind(room.to_string())
            .fetch_all(&self.readers)
            .await?;
        let lines = rows.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        audit::verify_room(&lines).map_err(|_| Error::Corrupt("audit"))?;
        Ok(lines)
    }

    /// The audit's lines behind position `after`, oldest first, as they are stored: whoever reads all of them checks them.
    pub async fn audit(&self, after: u64, limit: u32) -> Result<Vec<Line>, Error> {
        let rows = sqlx::query("SELECT * FROM accesses WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(integer(after)?)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(line).collect()
    }
}

/// Appends to the audit. Of several that do so at once, each takes its turn at the row that stands for it, and finds the
/// head that the one before has left.
pub(super) async fn append_access(tx: &mut AnyConnection, access: &Access, at: Timestamp) -> Result<Line, Error> {
    sqlx::query("UPDATE turns SET turn = turn + 1 WHERE name = 'audit'").execute(&mut *tx).await?;
    let last = sqlx::query("SELECT seq, hash FROM accesses ORDER BY seq DESC LIMIT 1").fetch_optional(&mut *tx).await?;
    let head = last.map(|row| Ok::<_, Error>(Head { seq: count(&row, "seq")?, hash: text(&row, "hash")? }));
    let head = head.transpose()?.unwrap_or_else(Head::empty);
    let last_of_room = match access.room {
        Some(room) => {
            sqlx::query("SELECT hash FROM accesses WHERE room = $1 ORDER BY seq DESC LIMIT 1")
                .bind(room.to_string())
                .fetch_optional(&mut *tx)
                .await?
        }
        None => None,
    };
    let room_prev = last_of_room.map(|row| text(&row, "hash")).transpose()?;
    let line = audit::chain(&head, room_prev.as_deref(), at, access);
    sqlx::query(
        "INSERT INTO accesses (seq, at, caller, action, room, reason, detail, prev, room_prev, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(integer(line.seq)?)
    .bind(line.at.to_string())
    .bind(&line.caller)
    .bind(word(line.action)?)
    .bind(line.room.map(|room| room.to_string()))
    .bind(&line.reason)
    .bind(json(&line.detail)?)
    .bind(&line.prev)
    .bind(line.room_prev.as_ref())
    .bind(&line.hash)
    .execute(tx)
    .await?;
    Ok(line)
}

fn line(row: &AnyRow) -> Result<Line, Error> {
    Ok(Line {
        seq: count(row, "seq")?,
        at: parse(row, "at", "audit time")?,
        caller: text(row, "caller")?,
        action: from_word(row, "action", "action")?,
        room: maybe_text(row, "room")?.map(|id| id.parse().map_err(|_| Error::Corrupt("room"))).transpose()?,
        reason: text(row, "reason")?,
        detail: from_json(row, "detail", "audit detail")?,
        prev: text(row, "prev")?,
        room_prev: maybe_text(row, "room_prev")?,
        hash: text(row, "hash")?,
    })
}
