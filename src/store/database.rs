//! The database itself: an SQLite file (the embedded default) or a PostgreSQL server, one set of statements for both.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Transaction};

use super::{Error, Hash};

/// Connections that read an SQLite file. Raising it helps only while more requests than that read at once; each
/// costs a thread.
const READERS: u32 = 4;

/// Connections to a PostgreSQL server. More let more rooms write at once; each costs the server a process.
const CONNECTIONS: u32 = 12;

/// How long a caller waits for a free connection. Longer: requests pile up while the database is away. Shorter: a
/// burst of bookings is refused that only had to queue.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer to a repeated request is kept.
const ANSWERS_KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// How long a delivered message is listed. Longer: more to look at, and the table grows; shorter: a booking system
/// that lost a week cannot have it replayed.
const DELIVERED_KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// Messages that are deleted in one go: more make other writers wait longer.
const PURGED_AT_ONCE: i64 = 500;

/// The node's database. Clones speak to the same one.
#[derive(Clone)]
pub struct Store {
    kind: Kind,
    /// On SQLite one connection: the file has one writer, and here they queue in order instead of meeting at its lock.
    writer: AnyPool,
    pub(super) readers: AnyPool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// `place` is the URL of a PostgreSQL database (`postgres://…`), or the path of an SQLite file, which is made if it
    /// does not exist.
    pub async fn open(place: &str) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        if is_postgres(place) {
            let pool = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_WITHIN);
            let pool = pool.after_connect(|connection: &mut AnyConnection, _| {
                Box::pin(async move {
                    // Milliseconds. A statement here takes a few; one that hangs holds a room up, or a lock.
                    let settings = "SET statement_timeout = 10000; SET lock_timeout = 5000; \
                                    SET idle_in_transaction_session_timeout = 15000";
                    sqlx::raw_sql(settings).execute(connection).await?;
                    Ok(())
                })
            });
            let pool = pool.connect(place).await?;
            sqlx::migrate!("src/store/migrations/postgres").run(&pool).await?;
            return Ok(Self { kind: Kind::Postgres, writer: pool.clone(), readers: pool });
        }
        let url = sqlite_url(place);
        let writer = sqlite_options(1).connect(&url).await?;
        sqlx::migrate!("src/store/migrations/sqlite").run(&writer).await?;
        let readers = sqlite_options(READERS).connect(&url).await?;
        Ok(Self { kind: Kind::Sqlite, writer, readers })
    }

    /// Closes the database, once what is under way is done.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Removes what nobody asks for any more: old answers, lapsed accesses and delivered messages.
    pub async fn purge(&self, now: Timestamp) -> Result<(), Error> {
        let before = |kept| now.saturating_sub(kept).unwrap_or(Timestamp::MIN).as_millisecond();
        sqlx::query("DELETE FROM answers WHERE created < $1").bind(before(ANSWERS_KEPT)).execute(&self.writer).await?;
        sqlx::query("DELETE FROM access_tokens WHERE expires < $1")
            .bind(now.as_millisecond())
            .execute(&self.writer)
            .await?;
        loop {
            let purged = sqlx::query(
                "DELETE FROM outbox WHERE position IN (
                     SELECT position FROM outbox
                     WHERE settled IS NOT NULL AND settled < $1 AND (state = 'delivered' OR kind = 'sms') LIMIT $2)",
            )
            .bind(before(DELIVERED_KEPT))
            .bind(PURGED_AT_ONCE)
            .execute(&self.writer)
            .await?;
            if purged.rows_affected() < PURGED_AT_ONCE.unsigned_abs() {
                return Ok(());
            }
        }
    }

    /// Binds the database to the key whose check value this is, if it is bound to none; says whether it is this one.
    /// Under another key no code would match and nothing sealed would open.
    pub async fn hold_key(&self, check: Hash) -> Result<bool, Error> {
        sqlx::query("INSERT INTO node (name, value) VALUES ('code key', $1) ON CONFLICT DO NOTHING")
            .bind(&check.as_bytes()[..])
            .execute(&self.writer)
            .await?;
        let row = sqlx::query("SELECT value FROM node WHERE name = 'code key'").fetch_one(&self.readers).await?;
        Ok(super::row::hash(&row, "value")? == check)
    }

    /// Has the database's own copies of what was deleted go too, as far as that can be asked for: SQLite's log is
    /// written back and emptied. What a PostgreSQL server keeps in its log and its backups is for its operator to
    /// bound; it is of use only together with the key-encryption key, which is not in the database.
    pub(super) async fn forget_deleted(&self) {
        if self.kind == Kind::Sqlite {
            // A reader may hold a part of it for now: then the next write goes over it sooner or later.
            if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await {
                tracing::warn!(%error, "the database's log could not be emptied after a key was destroyed");
            }
        }
    }

    /// A transaction that writes.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Any>, Error> {
        Ok(match self.kind {
            // IMMEDIATE takes the write lock at once: a transaction that reads first could otherwise not become a
            // writer.
            Kind::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await?,
            Kind::Postgres => self.writer.begin().await?,
        })
    }
}

impl fmt::Debug for Store {
    /// Without the address: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn is_postgres(place: &str) -> bool {
    place.starts_with("postgres://") || place.starts_with("postgresql://")
}

fn sqlite_options(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_WITHIN).after_connect(
        |connection: &mut AnyConnection, _| {
            Box::pin(async move {
                // A ledger entry that was announced must survive a power cut: in WAL mode only FULL syncs each commit.
                // Busy: another process (a backup, the `keys` command) holds the file; rooms wait so many milliseconds.
                // Secure delete: a key that was destroyed must not be readable in a page that is not used any more.
                let settings = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                                PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON";
                sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await?;
                Ok(())
            })
        },
    )
}

/// The file as a URL, in which a path's odd characters are escaped (RFC 3986, section 2.1).
fn sqlite_url(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escaped: String = path
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("sqlite://{escaped}?mode=rwc")
}
