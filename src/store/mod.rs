//! What outlives the process: rooms, people, ledgers, sessions, keys and what was recorded.

mod private;

use std::path::Path;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use private::{Personal, Secret};

/// What a caller with an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "booking")]
pub enum Scope {
    /// Book, move and cancel rooms, re-issue codes.
    Booking,
    /// Run the meetings.
    Operator,
    /// Find and verify recordings.
    Compliance,
    /// Read the metrics.
    Metrics,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Booking, Self::Operator, Self::Compliance, Self::Metrics];

    /// The scope's name, as in the keys that carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Booking => "booking",
            Self::Operator => "operator",
            Self::Compliance => "compliance",
            Self::Metrics => "metrics",
        }
    }
}

/// SHA-256 of a session token: what is stored in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionHash(pub(crate) [u8; 32]);

impl std::fmt::Debug for SessionHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionHash(…)")
    }
}

/// The store's operations. Clones speak to the same database.
#[derive(Clone, Debug)]
pub struct Store {}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or did not answer. The disk's or the configuration's fault.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date. The configuration's fault: the file is of a newer version, or damaged.
    #[error("the database's schema could not be migrated: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A stored value is not what was written. The disk's fault.
    #[error("a stored {0} does not make sense")]
    Corrupt(&'static str),
}

impl Store {
    /// Opens the database file, makes it if it does not exist, and brings its schema up to date.
    #[expect(clippy::todo, clippy::unused_async, unused_variables, reason = "being written")]
    pub async fn open(path: &Path) -> Result<Self, Error> {
        todo!()
    }
}
