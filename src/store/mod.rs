//! What outlives the process: rooms, people, ledgers, sessions, keys and what was recorded.
//!
//! The surface is the domain's operations, not SQL. A room's ledger entries and the rows that change with them are
//! written in one transaction, and are on disk when the call returns.

mod access;
mod accesses;
mod database;
mod jobs;
mod language;
mod outbox;
mod packages;
mod papers;
mod private;
mod rooms;
mod row;
mod seal;
mod types;

#[cfg(test)]
mod tests;

pub use accesses::Grant;
pub use database::Store;
pub use jobs::{Job, JobKind, JobState};
pub use language::Language;
pub use packages::{
    Destruction, Hold, PackageState, RecordingFilter, RecordingKey, RecordingRow, SealedPackage, StoredPackage,
};
pub use papers::{ChatMessage, NamedDocument, Number, RegisterEntry, Registration, RegistrationState};
pub use private::{Personal, Secret};
pub use seal::{Purpose, Seal, SealError};
pub use types::{
    Answer, ApiKey, Appointment, Booked, Change, Fits, Hash, Message, MessageKind, MessageState, NewMessage, NewRoom,
    Owner, Person, Record, RoomFilter, RoomRow, Scope, SettledText, StoredOriginal, Taken,
};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or did not answer. The disk's or the configuration's fault.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date. The configuration's fault: the file is of a newer version, or damaged.
    #[error("the database's schema could not be migrated: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A stored value is not what was written. The disk's fault, or somebody's.
    #[error("a stored {0} is not what was written")]
    Corrupt(&'static str),
    /// A room's ledger was continued by somebody else: this node does not run the room any more.
    #[error("a room's ledger was continued by somebody else")]
    Outrun,
    /// There is no room at that time. The caller's fault, and the only error here that is.
    #[error("no room at that time")]
    Full,
}
