//! Keys of recordings, and what becomes of a recorded room: it is sealed, kept, held, found and at last destroyed.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};
use utoipa::ToSchema;

use super::accesses::append_access;
use super::papers::forget_papers;
use super::rooms::room_row;
use super::row::{count, from_json, from_word, integer, maybe_text, maybe_time, parse, text, time, word};
use super::{Error, NewMessage, Personal, RoomRow, Store, outbox};
use crate::audit::Access;
use crate::id::RoomId;
use crate::room::{Phase, Profile};

/// Where a room's recordings stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "sealed")]
pub enum PackageState {
    /// The meeting is over; its recordings wait to be sealed.
    Recorded,
    /// They are being sealed.
    Sealing,
    /// The package is signed, stored and verified.
    Sealed,
    /// Sealing failed; it is tried again.
    Failed,
    /// The key and the files are gone; the note of it remains.
    Destroyed,
}

/// What is known of a room's key.
#[derive(Clone, PartialEq, Eq)]
pub enum RecordingKey {
    /// It has none: nothing of it is encrypted.
    None,
    /// The key, itself encrypted, in the vault's text form.
    Wrapped(String),
    /// It was destroyed, and with it what was encrypted under it.
    Destroyed(Timestamp),
}

impl std::fmt::Debug for RecordingKey {
    /// Without the key, though it is encrypted.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Wrapped(_) => f.write_str("Wrapped(…)"),
            Self::Destroyed(at) => f.debug_tuple("Destroyed").field(at).finish(),
        }
    }
}

/// What is kept of a recorded room's package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPackage {
    /// The room.
    pub room: RoomId,
    /// Where it stands.
    pub state: PackageState,
    /// How often it was sealed; 0: not yet.
    pub revision: u64,
    /// Where it is among the objects, once it is sealed.
    pub prefix: Option<String>,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of its manifest, hex.
    pub manifest_sha256: Option<String>,
    /// What its manifest was signed with.
    pub key_id: Option<String>,
    /// When the recording began.
    pub begun: Timestamp,
    /// When the meeting ended.
    pub ended: Timestamp,
    /// When it was sealed last.
    pub sealed: Option<Timestamp>,
    /// Until when it is kept; `None`: until someone sets a date.
    pub retain_until: Option<Timestamp>,
    /// Why it may not be destroyed, if it may not.
    pub hold: Option<Hold>,
    /// When it was destroyed, and the signed note of that.
    pub destroyed: Option<(Timestamp, String)>,
    /// How often sealing was begun since it was done last.
    pub attempts: u32,
    /// When sealing is tried next, or, while it goes on, when somebody else may take it over.
    pub due: Timestamp,
    /// What was wrong at the last attempt.
    pub last_error: Option<String>,
}

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Who placed it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What sealing made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPackage {
    /// Its revision: one more than before.
    pub revision: u64,
    /// Where it is among the objects.
    pub prefix: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of its manifest, hex.
    pub manifest_sha256: String,
    /// What its manifest was signed with.
    pub key_id: String,
    /// Lines of the room's ledger that are in it.
    pub ledger_lines: u64,
}

/// Which recordings to find. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct RecordingFilter {
    /// Start of the appointment, earliest.
    pub from: Option<Timestamp>,
    /// Start of the appointment, before this.
    pub to: Option<Timestamp>,
    /// Office (sede).
    pub office: Option<String>,
    /// Counter (sportello).
    pub counter: Option<String>,
    /// This room.
    pub room: Option<RoomId>,
    /// Someone with this fiscal code was booked into it.
    pub fiscal_code: Option<Personal>,
    /// Only those behind this one, by start and id.
    pub after: Option<(Timestamp, RoomId)>,
    /// Most recordings.
    pub limit: u32,
}

/// A recorded room.
#[derive(Clone, Debug)]
pub struct RecordingRow {
    /// The room, with its people.
    pub room: RoomRow,
    /// What becomes of its recordings; `None`: the meeting goes on.
    pub package: Option<StoredPackage>,
}

/// Whether a package was destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destruction {
    /// It is now. Its files may be deleted.
    Done,
    /// There is none, or no more.
    Gone,
    /// It is on hold.
    Held,
    /// It is to be kept until then; `None`: until someone sets a date.
    Kept(Option<Timestamp>),
    /// It is being sealed.
    Busy,
}

impl Store {
    // ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The key of a room's recordings.
    pub async fn recording_key(&self, room: RoomId) -> Result<RecordingKey, Error> {
        let row = sqlx::query("SELECT wrapped, destroyed FROM recording_keys WHERE room = $1")
            .bind(room.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(RecordingKey::None) };
        match (maybe_time(&row, "destroyed")?, maybe_text(&row, "wrapped")?) {
            (Some(at), None) => Ok(RecordingKey::Destroyed(at)),
            (None, Some(wrapped)) => Ok(RecordingKey::Wrapped(wrapped)),
            _ => Err(Error::Corrupt("recording key")),
        }
    }

    /// Keeps a room's key, wrapped; `false`: it has one already, or had one.
    pub async fn put_recording_key(&self, room: RoomId, wrapped: &str) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done =
            sqlx::query("INSERT INTO recording_keys (room, wrapped) VALUES ($1, $2) ON CONFLICT (room) DO NOTHING")
                .bind(room.to_string())
                .bind(wrapped)
                .execute(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Puts another form of the same key in its place, after the key-encryption key was changed; `false`: it was not
    /// `old` any more.
    pub async fn rewrap_recording_key(&self, room: RoomId, old: &str, new: &str) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE recording_keys SET wrapped = $1 WHERE room = $2 AND wrapped = $3")
            .bind(new)
            .bind(room.to_string())
            .bind(old)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    // ── sealing ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Rooms whose meeting is over, that were recorded, and that have no package yet. Oldest first.
    pub async fn rooms_without_package(&self, limit: u32) -> Result<Vec<RoomId>, Error> {
        let over = [Phase::Concluded, Phase::Extended, Phase::Closed, Phase::Cancelled, Phase::Expired];
        let [concluded, extended, closed, cancelled, expired] = over.map(word);
        let rows = sqlx::query(
            "SELECT r.id FROM rooms r WHERE r.phase IN ($1, $2, $3, $4, $5)
             AND (EXISTS (SELECT 1 FROM originals o WHERE o.room = r.id)
                  OR EXISTS (SELECT 1 FROM recording_keys k WHERE k.room = r.id))
             AND NOT EXISTS (SELECT 1 FROM packages p WHERE p.room = r.id)
             ORDER BY r.starts LIMIT $6",
        )
        .bind(concluded?)
        .bind(extended?)
        .bind(closed?)
        .bind(cancelled?)
        .bind(expired?)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parse(row, "id", "room")).collect()
    }

    /// Gives a recorded room its package, to be sealed at once; told twice, it has one. How long it is kept follows from
    /// the profile that the room was booked with.
    pub async fn package_recorded(
        &self,
        room: RoomId,
        begun: Timestamp,
        ended: Timestamp,
        at: Timestamp,
    ) -> Result<(), Error> {
        let mut tx = self.write().await?;
        let id = room.to_string();
        let row = sqlx::query("SELECT profile FROM rooms WHERE id = $1").bind(&id).fetch_one(&mut *tx).await?;
        let profile: Profile = from_json(&row, "profile", "profile")?;
        let kept = profile.retention_days.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
        let retain_until = kept.map(|kept| ended.saturating_add(kept).unwrap_or(Timestamp::MAX));
        sqlx::query(
            "INSERT INTO packages (room, state, revision, bytes, begun, ended, retain_until, attempts, due)
             VALUES ($1, $2, 0, 0, $3, $4, $5, 0, $6) ON CONFLICT (room) DO NOTHING",
        )
        .bind(id)
        .bind(word(PackageState::Recorded)?)
        .bind(begun.as_millisecond())
        .bind(ended.as_millisecond())
        .bind(retain_until.map(Timestamp::as_millisecond))
        .bind(at.as_millisecond())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Rooms whose turn it is to be sealed, those that have waited longest first: recorded ones, ones that failed and may
    /// be tried again, and ones that somebody took and did not finish in time.
    pub async fn rooms_to_seal(&self, now: Timestamp, limit: u32) -> Result<Vec<RoomId>, Error> {
        let rows = sqlx::query(
            "SELECT room FROM packages WHERE state IN ('recorded', 'sealing', 'failed') AND due <= $1
             ORDER BY due, room LIMIT $2",
        )
        .bind(now.as_millisecond())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parse(row, "room", "room")).collect()
    }

    /// Takes a room to be sealed, until then; `false`: it is somebody else's turn, or nobody's any more.
    pub async fn claim_package(&self, room: RoomId, now: Timestamp, until: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE packages SET state = 'sealing', attempts = attempts + 1, due = $1
             WHERE room = $2 AND state IN ('recorded', 'sealing', 'failed') AND due <= $3",
        )
        .bind(until.as_millisecond())
        .bind(room.to_string())
        .bind(now.as_millisecond())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Keeps a room for longer that is being sealed; `false`: it is not any more.
    pub async fn extend_claim(&self, room: RoomId, until: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE packages SET due = $1 WHERE room = $2 AND state = 'sealing'")
            .bind(until.as_millisecond())
            .bind(room.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Gives back what the process before this one had taken: to be called at the start of the only node.
    pub async fn release_claims(&self, now: Timestamp) -> Result<u64, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE packages SET state = 'recorded', due = $1 WHERE state = 'sealing'")
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    /// Notes what sealing made, with what goes out with it; `false`: the room was not being sealed any more.
    pub async fn package_sealed(
        &self,
        room: RoomId,
        sealed: &SealedPackage,
        messages: &[NewMessage],
        at: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE packages SET state = 'sealed', revision = $1, prefix = $2, bytes = $3, manifest_sha256 = $4,
             key_id = $5, sealed = $6, ledger_lines = $7, attempts = 0, last_error = NULL
             WHERE room = $8 AND state = 'sealing'",
        )
        .bind(integer(sealed.revision)?)
        .bind(&sealed.prefix)
        .bind(integer(sealed.bytes)?)
        .bind(&sealed.manifest_sha256)
        .bind(&sealed.key_id)
        .bind(at.as_millisecond())
        .bind(integer(sealed.ledger_lines)?)
        .bind(room.to_string())
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        outbox::post(&mut tx, messages, at).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Notes that sealing failed, and when it is tried again.
    pub async fn package_failed(&self, room: RoomId, error: &str, retry_at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE packages SET state = 'failed', last_error = $1, due = $2 WHERE room = $3 AND state = 'sealing'",
        )
        .bind(error)
        .bind(retry_at.as_millisecond())
        .bind(room.to_string())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Sealed rooms that are closed for good, and whose ledger has lines that are not in the package: what happened
    /// after the meeting.
    pub async fn packages_outrun(&self, limit: u32) -> Result<Vec<RoomId>, Error> {
        let rows = sqlx::query(
            "SELECT p.room FROM packages p JOIN rooms r ON r.id = p.room
             WHERE p.state = 'sealed' AND r.phase = $1
             AND EXISTS (SELECT 1 FROM ledger l WHERE l.room = p.room AND l.seq > p.ledger_lines)
             ORDER BY p.sealed LIMIT $2",
        )
        .bind(word(Phase::Closed)?)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parse(row, "room", "room")).collect()
    }

    /// Has a sealed room sealed once more, because something was added to it; `false`: it is not sealed.
    pub async fn package_changed(&self, room: RoomId, at: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE packages SET state = 'recorded', due = $1 WHERE room = $2 AND state = 'sealed'")
            .bind(at.as_millisecond())
            .bind(room.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    // ── what compliance asks ─────────────────────────────────────────────────────────────────────────────────────

    /// What becomes of a room's recordings; `None`: it was not recorded, or goes on.
    pub async fn package(&self, room: RoomId) -> Result<Option<StoredPackage>, Error> {
        let row = sqlx::query("SELECT * FROM packages WHERE room = $1")
            .bind(room.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(package).transpose()
    }

    /// Recorded rooms, newest first by start and id. A fiscal code is also found when its holder was replaced later.
    pub async fn find_recordings(&self, filter: &RecordingFilter) -> Result<Vec<RecordingRow>, Error> {
        let (after, after_id) =
            filter.after.map_or((i64::MAX, String::new()), |(start, id)| (start.as_millisecond(), id.to_string()));
        // Two statements: with one that takes both, neither database would use the index of the fiscal codes.
        let with_code = filter
            .fiscal_code
            .as_ref()
            .map_or("AND $8 = ''", |_| "AND r.id IN (SELECT room FROM participants WHERE fiscal_code = $8)");
        let statement = format!(
            "SELECT r.id, r.profile_name, r.office, r.counter, r.reason, r.reference, r.starts, r.ends, r.phase, r.outcome
             FROM rooms r
             WHERE r.starts >= $1 AND r.starts < $2 AND (r.starts < $3 OR (r.starts = $3 AND r.id < $4))
               AND ($5 = '' OR r.office = $5) AND ($6 = '' OR r.counter = $6) AND ($7 = '' OR r.id = $7) {with_code}
               AND (EXISTS (SELECT 1 FROM packages p WHERE p.room = r.id)
                    OR EXISTS (SELECT 1 FROM recording_keys k WHERE k.room = r.id)
                    OR EXISTS (SELECT 1 FROM originals o WHERE o.room = r.id))
             ORDER BY r.starts DESC, r.id DESC LIMIT $9"
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(filter.from.map_or(i64::MIN, Timestamp::as_millisecond))
            .bind(filter.to.map_or(i64::MAX, Timestamp::as_millisecond))
            .bind(after)
            .bind(after_id)
            .bind(filter.office.clone().unwrap_or_default())
            .bind(filter.counter.clone().unwrap_or_default())
            .bind(filter.room.map(|room| room.to_string()).unwrap_or_default())
            .bind(filter.fiscal_code.as_ref().map(Personal::expose).unwrap_or_default())
            .bind(i64::from(filter.limit))
            .fetch_all(&self.readers)
            .await?;
        let mut rooms = rows.iter().map(room_row).collect::<Result<Vec<_>, _>>()?;
        self.add_people(&mut rooms).await?;
        let mut packages = self.packages_of(&rooms).await?;
        let found = rooms.into_iter().map(|room| {
            let package = packages.iter().position(|package| package.room == room.id);
            RecordingRow { package: package.map(|place| packages.swap_remove(place)), room }
        });
        Ok(found.collect())
    }

    /// Whether anything of a room was recorded.
    pub async fn was_recorded(&self, room: RoomId) -> Result<bool, Error> {
        let filter = RecordingFilter { room: Some(room), limit: 1, ..RecordingFilter::default() };
        Ok(!self.find_recordings(&filter).await?.is_empty())
    }

    async fn packages_of(&self, rooms: &[RoomRow]) -> Result<Vec<StoredPackage>, Error> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<_> = (1..=rooms.len()).map(|place| format!("${place}")).collect();
        // Nothing but numbers goes into the text.
        let statement = format!("SELECT * FROM packages WHERE room IN ({})", places.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for room in rooms {
            query = query.bind(room.id.to_string());
        }
        query.fetch_all(&self.readers).await?.iter().map(package).collect()
    }

    /// Puts a package on hold, or changes why; `false`: there is none, or no more.
    pub async fn hold_package(&self, access: &Access, room: RoomId, at: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE packages SET hold_reason = $1, hold_by = $2, hold_at = $3 WHERE room = $4 AND state <> 'destroyed'",
        )
        .bind(&access.reason)
        .bind(&access.caller)
        .bind(at.as_millisecond())
        .bind(room.to_string())
        .execute(&mut *tx)
        .await?;
        commit_with(tx, done.rows_affected() > 0, access, at).await
    }

    /// Lifts a package's hold; `false`: it is on none.
    pub async fn lift_hold(&self, access: &Access, room: RoomId, at: Timestamp) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE packages SET hold_reason = NULL, hold_by = NULL, hold_at = NULL
             WHERE room = $1 AND hold_at IS NOT NULL AND state <> 'destroyed'",
        )
        .bind(room.to_string())
        .execute(&mut *tx)
        .await?;
        commit_with(tx, done.rows_affected() > 0, access, at).await
    }

    /// Sets until when a package is kept (`None`: until someone sets a date); `false`: there is none, or no more.
    pub async fn set_retention(
        &self,
        access: &Access,
        room: RoomId,
        until: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE packages SET retain_until = $1 WHERE room = $2 AND state <> 'destroyed'")
            .bind(until.map(Timestamp::as_millisecond))
            .bind(room.to_string())
            .execute(&mut *tx)
            .await?;
        commit_with(tx, done.rows_affected() > 0, access, at).await
    }

    // ── destruction ──────────────────────────────────────────────────────────────────────────────────────────────

    /// Packages whose retention is over and that are not on hold, those that are overdue longest first.
    pub async fn packages_to_destroy(&self, now: Timestamp, limit: u32) -> Result<Vec<RoomId>, Error> {
        let rows = sqlx::query(
            "SELECT room FROM packages WHERE retain_until IS NOT NULL AND retain_until <= $1 AND hold_at IS NULL
             AND (state IN ('recorded', 'sealed', 'failed') OR (state = 'sealing' AND due <= $1))
             ORDER BY retain_until, room LIMIT $2",
        )
        .bind(now.as_millisecond())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parse(row, "room", "room")).collect()
    }

    /// Destroys a package: its key is gone, its signed note is kept, the audit says so and messages go out, all or
    /// nothing. Not under hold, and not before its retention is over.
    ///
    /// Its files are then to be deleted, and that to be told by [`Self::package_emptied`].
    pub async fn destroy_package(
        &self,
        access: &Access,
        room: RoomId,
        note: &str,
        messages: &[NewMessage],
        at: Timestamp,
    ) -> Result<Destruction, Error> {
        let mut tx = self.write().await?;
        let id = room.to_string();
        let done = sqlx::query(
            "UPDATE packages SET state = 'destroyed', destroyed = $1, destruction_note = $2, emptied = NULL
             WHERE room = $3 AND hold_at IS NULL AND retain_until IS NOT NULL AND retain_until <= $1
             AND (state IN ('recorded', 'sealed', 'failed') OR (state = 'sealing' AND due <= $1))",
        )
        .bind(at.as_millisecond())
        .bind(note)
        .bind(&id)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            let row = sqlx::query("SELECT * FROM packages WHERE room = $1").bind(&id).fetch_optional(&mut *tx).await?;
            return row.as_ref().map_or(Ok(Destruction::Gone), |row| package(row).map(|found| refusal(&found, at)));
        }
        destroy_key(&mut tx, &id, at).await?;
        forget_papers(&mut tx, &id).await?;
        sqlx::query("DELETE FROM access_tokens WHERE room = $1").bind(&id).execute(&mut *tx).await?;
        append_access(&mut tx, access, at).await?;
        outbox::post(&mut tx, messages, at).await?;
        tx.commit().await?;
        self.forget_deleted().await;
        Ok(Destruction::Done)
    }

    /// Destroys a room's key alone: what was encrypted under it is gone.
    pub async fn destroy_recording_key(&self, room: RoomId, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        destroy_key(&mut tx, &room.to_string(), at).await?;
        tx.commit().await?;
        self.forget_deleted().await;
        Ok(())
    }

    /// Destroyed packages of which files may be left.
    pub async fn packages_to_empty(&self, limit: u32) -> Result<Vec<StoredPackage>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM packages WHERE destroyed IS NOT NULL AND emptied IS NULL ORDER BY destroyed LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(package).collect()
    }

    /// Notes that no file of a destroyed package is left.
    pub async fn package_emptied(&self, room: RoomId, at: Timestamp) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE packages SET emptied = $1 WHERE room = $2 AND state = 'destroyed'")
            .bind(at.as_millisecond())
            .bind(room.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

async fn commit_with(
    mut tx: sqlx::Transaction<'static, sqlx::Any>,
    done: bool,
    access: &Access,
    at: Timestamp,
) -> Result<bool, Error> {
    if done {
        append_access(&mut tx, access, at).await?;
        tx.commit().await?;
    }
    Ok(done)
}

async fn destroy_key(tx: &mut AnyConnection, room: &str, at: Timestamp) -> Result<(), Error> {
    // A room without a key gets a row too: none can be given to it any more.
    sqlx::query(
        "INSERT INTO recording_keys (room, wrapped, destroyed) VALUES ($1, NULL, $2)
         ON CONFLICT (room) DO UPDATE SET wrapped = NULL, destroyed = coalesce(recording_keys.destroyed, excluded.destroyed)",
    )
    .bind(room)
    .bind(at.as_millisecond())
    .execute(tx)
    .await?;
    Ok(())
}

/// Why a package is not destroyed.
fn refusal(package: &StoredPackage, now: Timestamp) -> Destruction {
    match package.state {
        PackageState::Destroyed => Destruction::Gone,
        _ if package.hold.is_some() => Destruction::Held,
        _ if package.retain_until.is_none_or(|until| until > now) => Destruction::Kept(package.retain_until),
        _ => Destruction::Busy,
    }
}

fn package(row: &AnyRow) -> Result<StoredPackage, Error> {
    let hold = match (maybe_time(row, "hold_at")?, maybe_text(row, "hold_reason")?, maybe_text(row, "hold_by")?) {
        (Some(at), Some(reason), Some(by)) => Some(Hold { reason, by, at }),
        (None, None, None) => None,
        _ => return Err(Error::Corrupt("hold")),
    };
    Ok(StoredPackage {
        room: parse(row, "room", "room")?,
        state: from_word(row, "state", "package state")?,
        revision: count(row, "revision")?,
        prefix: maybe_text(row, "prefix")?,
        bytes: count(row, "bytes")?,
        manifest_sha256: maybe_text(row, "manifest_sha256")?,
        key_id: maybe_text(row, "key_id")?,
        begun: time(row, "begun")?,
        ended: time(row, "ended")?,
        sealed: maybe_time(row, "sealed")?,
        retain_until: maybe_time(row, "retain_until")?,
        hold,
        destroyed: maybe_time(row, "destroyed")?
            .map(|at| Ok::<_, Error>((at, text(row, "destruction_note")?)))
            .transpose()?,
        attempts: u32::try_from(count(row, "attempts")?).map_err(|_| Error::Corrupt("number"))?,
        due: time(row, "due")?,
        last_error: maybe_text(row, "last_error")?,
    })
}
