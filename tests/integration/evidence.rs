//! The recording is evidence: the real binary records media that carries its numbers, and what is in the files is held
//! against what was sent. Networks lose, clocks jump, and the process is killed.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds of a short call are measured"
)]

mod clean;
pub(crate) mod clocks;
mod damage;
mod kills;
mod lossy;
mod meeting;
mod pictures;
mod presence;
mod recorded;
mod sealed;
