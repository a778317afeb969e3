//! The rules of the room: who may do what, and when media may flow (DOMAIN.md in words, this in code).
//!
//! Pure: `(state, now, Command) → (events, effects)`. A [`Room`] is the fold of its ledger's entries, so crash
//! recovery, audit and tests run the same code. Nothing here reads a clock, a disk or a socket.
//!
//! The caller's round, always with one and the same `now`: [`Room::handle`] decides; each event becomes an
//! [`Entry`], the entry a line of the [`ledger`], and the lines are stored; [`Room::apply`] takes the entries in;
//! the effects are carried out; the answer is given; the next [`Room::deadline`] is waited for, and then
//! [`Command::Tick`] is sent. After a restart of the node, [`Room::replay`] and then [`Command::Restarted`].
//!
//! ```text
//! scheduled → waiting → live ⇄ suspended → concluded → extended → closed      besides: cancelled, expired
//! ```

mod command;
mod decide;
mod event;
mod fold;
pub mod ledger;
mod papers;
mod person;
mod presence;
mod profile;
mod state;

pub use command::{Command, Deadline, Decision, Effect, Refusal};
pub use event::{Entry, Event, SuspendReason};
pub use fold::{Appointment, BookingError, ReplayError};
pub use papers::{Devices, Document, DocumentState, MOST_DOCUMENTS, MOST_MESSAGES};
pub use person::{Consent, MessageState, Person, Place};
pub use presence::PresenceInterval;
pub use profile::{Feature, Outcome, Phase, Profile, ProfileError, Role, Step};
pub use state::{Recording, Room};

#[cfg(test)]
mod tests;
