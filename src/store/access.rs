//! Who may come in: links, sessions and API keys, all kept as hashes.

use jiff::{SignedDuration, Timestamp};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::row::{from_word, maybe_time, parse, text, time, word};
use super::{ApiKey, Error, Hash, Owner, Scope, Store};
use crate::id::{KeyId, ParticipantId};

/// How long after a room's end its sessions still answer, so that a page can say how it ended.
const SESSION_AFTER_END: SignedDuration = SignedDuration::from_hours(1);

impl Store {
    /// Whose join link this is. The link of someone who was replaced is nobody's.
    pub async fn link_owner(&self, link: Hash) -> Result<Option<Owner>, Error> {
        let row =
            sqlx::query("SELECT room, id AS participant, role FROM participants WHERE link = $1 AND replaced IS NULL")
                .bind(&link.as_bytes()[..])
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(owner).transpose()
    }

    /// Whose open session this is. An hour after its room has ended it is nobody's.
    pub async fn session_owner(&self, token: Hash, now: Timestamp) -> Result<Option<Owner>, Error> {
        let ended_since = now.saturating_sub(SESSION_AFTER_END).unwrap_or(Timestamp::MIN);
        let row = sqlx::query(
            "SELECT p.room, p.id AS participant, p.role FROM sessions s
             JOIN participants p ON p.id = s.participant
             JOIN rooms r ON r.id = p.room
             WHERE s.token = $1 AND s.ended IS NULL AND (r.finished IS NULL OR r.finished > $2)",
        )
        .bind(&token.as_bytes()[..])
        .bind(ended_since.as_millisecond())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(owner).transpose()
    }

    /// Keeps the first API keys, unless there are keys already (revoked ones count); says whether they were kept.
    pub async fn add_first_keys(&self, keys: &[(KeyId, Hash, Scope)], at: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let known = sqlx::query("SELECT id FROM api_keys LIMIT 1").fetch_optional(&mut *tx).await?;
        if known.is_some() {
            return Ok(false);
        }
        for (id, key, scope) in keys {
            insert_key(&mut tx, *id, "first start", *key, *scope, at).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Keeps an API key. `name` says whose it is.
    pub async fn add_key(&self, id: KeyId, name: &str, key: Hash, scope: Scope, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        insert_key(&mut tx, id, name, key, scope, at).await?;
        Ok(tx.commit().await?)
    }

    /// Every API key that there ever was, oldest first.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        let rows = sqlx::query("SELECT id, name, scope, created, revoked FROM api_keys ORDER BY created, id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ApiKey {
                    id: parse(row, "id", "key")?,
                    name: text(row, "name")?,
                    scope: from_word(row, "scope", "scope")?,
                    created: time(row, "created")?,
                    revoked: maybe_time(row, "revoked")?,
                })
            })
            .collect()
    }

    /// Which API key this is and what its holder may do; `None`: it is not known, or revoked.
    pub async fn key(&self, key: Hash) -> Result<Option<(KeyId, Scope)>, Error> {
        let row = sqlx::query("SELECT id, scope FROM api_keys WHERE hash = $1 AND revoked IS NULL")
            .bind(&key.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok((parse(&row, "id", "key")?, from_word(&row, "scope", "scope")?))).transpose()
    }

    /// Revokes an API key; says whether it was valid until now.
    pub async fn revoke_key(&self, id: KeyId, at: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE api_keys SET revoked = $1 WHERE id = $2 AND revoked IS NULL")
            .bind(at.as_millisecond())
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}

async fn insert_key(
    tx: &mut AnyConnection,
    id: KeyId,
    name: &str,
    key: Hash,
    scope: Scope,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query("INSERT INTO api_keys (id, name, hash, scope, created) VALUES ($1, $2, $3, $4, $5)")
        .bind(id.to_string())
        .bind(name)
        .bind(&key.as_bytes()[..])
        .bind(word(scope)?)
        .bind(at.as_millisecond())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn start_session(
    tx: &mut AnyConnection,
    participant: ParticipantId,
    token: Hash,
    at: Timestamp,
) -> Result<(), Error> {
    end_session(tx, participant, at).await?;
    sqlx::query("INSERT INTO sessions (token, participant, created) VALUES ($1, $2, $3)")
        .bind(&token.as_bytes()[..])
        .bind(participant.to_string())
        .bind(at.as_millisecond())
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn end_session(
    tx: &mut AnyConnection,
    participant: ParticipantId,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query("UPDATE sessions SET ended = $1 WHERE participant = $2 AND ended IS NULL")
        .bind(at.as_millisecond())
        .bind(participant.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

fn owner(row: &AnyRow) -> Result<Owner, Error> {
    Ok(Owner {
        room: parse(row, "room", "room")?,
        participant: parse(row, "participant", "participant")?,
        role: from_word(row, "role", "role")?,
    })
}
