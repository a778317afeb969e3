//! Long work that was asked for by the API: it outlives the request, and the process.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::accesses::append_access;
use super::row::{count, from_word, json, maybe_text, parse, text, time, word};
use super::{Error, Store};
use crate::audit::Access;
use crate::id::{JobId, RoomId};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "verify")]
pub enum JobKind {
    /// The package is checked, every byte of it.
    Verify,
    /// One composed picture is made, as WebM.
    ExportWebm,
    /// One composed picture is made, as MP4.
    ExportMp4,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "running")]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It is being done.
    Running,
    /// It is done: see the result.
    Done,
    /// It was given up: see the error.
    Failed,
}

/// A piece of long work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What is done.
    pub kind: JobKind,
    /// With which room's recordings.
    pub room: RoomId,
    /// Where it stands.
    pub state: JobState,
    /// How often it was begun: more than once if the node stopped meanwhile.
    pub attempts: u32,
    /// How far it is, thousandths.
    pub progress_permille: u16,
    /// What came out, a JSON object; `None` until it is done.
    pub result: Option<Map<String, Value>>,
    /// Why it failed, in our own words.
    pub error: Option<String>,
    /// Who asked for it.
    pub asked_by: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
}

impl Store {
    /// Queues a job, and writes to the audit who asked for it; `false`: so many of this caller's wait already.
    pub async fn add_job(
        &self,
        id: JobId,
        kind: JobKind,
        access: &Access,
        room: RoomId,
        most: u32,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        // First of all: it also makes callers take turns here.
        append_access(&mut tx, access, at).await?;
        let row = sqlx::query(
            "SELECT count(*) AS waiting FROM evidence_jobs WHERE state IN ('queued', 'running') AND asked_by = $1",
        )
        .bind(&access.caller)
        .fetch_one(&mut *tx)
        .await?;
        if count(&row, "waiting")? >= u64::from(most) {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO evidence_jobs
             (id, kind, room, state, attempts, progress_permille, asked_by, created, updated)
             VALUES ($1, $2, $3, 'queued', 0, 0, $4, $5, $5)",
        )
        .bind(id.to_string())
        .bind(word(kind)?)
        .bind(room.to_string())
        .bind(&access.caller)
        .bind(at.as_millisecond())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let row = sqlx::query("SELECT * FROM evidence_jobs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(job).transpose()
    }

    /// Begins the job that has waited longest; `None`: none waits.
    pub async fn begin_job(&self, at: Timestamp) -> Result<Option<Job>, Error> {
        let mut tx = self.write().await?;
        let row = sqlx::query("SELECT * FROM evidence_jobs WHERE state = 'queued' ORDER BY position LIMIT 1")
            .fetch_optional(&mut *tx)
            .await?;
        let Some(mut found) = row.as_ref().map(job).transpose()? else { return Ok(None) };
        let done = sqlx::query(
            "UPDATE evidence_jobs SET state = 'running', attempts = attempts + 1, progress_permille = 0, updated = $1
             WHERE id = $2 AND state = 'queued'",
        )
        .bind(at.as_millisecond())
        .bind(found.id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        (found.state, found.attempts, found.updated) = (JobState::Running, found.attempts + 1, at);
        Ok((done.rows_affected() > 0).then_some(found))
    }

    /// Notes how far a job is.
    pub async fn job_progress(&self, id: JobId, permille: u16, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE evidence_jobs SET progress_permille = $1, updated = $2 WHERE id = $3 AND state = 'running'",
        )
        .bind(i64::from(permille.min(1_000)))
        .bind(at.as_millisecond())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Notes how a job ended: with a result, or with what was wrong, in our own words.
    pub async fn end_job(
        &self,
        id: JobId,
        outcome: Result<&Map<String, Value>, &str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let state = if outcome.is_ok() { JobState::Done } else { JobState::Failed };
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE evidence_jobs SET state = $1, result = $2, error = $3, updated = $4,
             progress_permille = CASE $1 WHEN 'done' THEN 1000 ELSE progress_permille END
             WHERE id = $5 AND state IN ('queued', 'running')",
        )
        .bind(word(state)?)
        .bind(outcome.ok().map(json).transpose()?)
        .bind(outcome.err())
        .bind(at.as_millisecond())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Queues again what the process before this one was doing, and gives up what was begun `most` times: to be called at
    /// the start of the only node.
    pub async fn requeue_jobs(&self, most: u32, error: &str, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE evidence_jobs SET state = 'failed', error = $1, updated = $2
             WHERE state = 'running' AND attempts >= $3",
        )
        .bind(error)
        .bind(at.as_millisecond())
        .bind(i64::from(most))
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE evidence_jobs SET state = 'queued', updated = $1 WHERE state = 'running'")
            .bind(at.as_millisecond())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The jobs of a kind that were done before then: their results may be deleted.
    pub async fn jobs_done_before(&self, before: Timestamp, limit: u32) -> Result<Vec<Job>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM evidence_jobs WHERE state IN ('done', 'failed') AND updated < $1 ORDER BY updated LIMIT $2",
        )
        .bind(before.as_millisecond())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(job).collect()
    }

    /// Forgets a job that has ended.
    pub async fn forget_job(&self, id: JobId) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM evidence_jobs WHERE id = $1 AND state IN ('done', 'failed')")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

fn job(row: &AnyRow) -> Result<Job, Error> {
    let result = maybe_text(row, "result")?;
    Ok(Job {
        id: parse(row, "id", "job")?,
        kind: from_word(row, "kind", "job kind")?,
        room: parse(row, "room", "room")?,
        state: from_word(row, "state", "job state")?,
        attempts: u32::try_from(count(row, "attempts")?).map_err(|_| Error::Corrupt("number"))?,
        progress_permille: u16::try_from(count(row, "progress_permille")?).map_err(|_| Error::Corrupt("number"))?,
        result: result.map(|text| serde_json::from_str(&text).map_err(|_| Error::Corrupt("job result"))).transpose()?,
        error: maybe_text(row, "error")?,
        asked_by: text(row, "asked_by")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}
