//! The rules of the room: who may do what, and when media may flow (DOMAIN.md in words, this in code).
//!
//! Pure: `(state, now, Command) → (events, effects)`. A [`Room`] is the fold of its ledger's entries, so crash
//! recovery, audit and tests run the same code. Nothing here reads a clock, a disk or a socket.
//!
//! ```text
//! scheduled → waiting → live ⇄ suspended → concluded → extended → closed      besides: cancelled, expired
//! ```

mod command;
mod event;
mod profile;

pub use command::{Command, Deadline, Decision, Effect, Refusal};
pub use event::{Entry, Event, SuspendReason};
pub use profile::{Feature, Outcome, Phase, Profile, Role};
