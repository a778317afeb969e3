//! The presence rule over time: does it hold, since when, and when did it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::MonoTime;

/// A time in which the presence rule held; absences shorter than the grace do not break it. Part of the proof.
///
/// Its start is read from the wall clock, its length is measured on the monotonic one: setting the wall clock does
/// not change how long the interval was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceInterval {
    /// When it began, RFC 3339.
    #[schema(example = "2026-01-13T09:02:11Z")]
    pub from: Timestamp,
    /// When it ended, RFC 3339: the start and the length.
    #[schema(example = "2026-01-13T09:21:40Z")]
    pub to: Timestamp,
    /// How long it was, milliseconds.
    #[schema(example = 1_169_000)]
    pub length_ms: u64,
}

impl PresenceInterval {
    pub(super) fn new(from: Timestamp, length: Duration) -> Self {
        Self { from, to: later(from, length), length_ms: millis(length) }
    }
}

/// Whether the rule holds in an open room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Someone required is missing.
    Broken {
        /// Since when; the room's opening, if the rule never held.
        since: MonoTime,
        /// How long they had been missing before the node restarted, as far as the ledger knows.
        before: Duration,
    },
    /// Everyone required is present.
    Held {
        since: MonoTime,
        from: Timestamp,
        /// Since when someone required is missing within the grace.
        gap: Option<MonoTime>,
    },
}

impl Presence {
    /// The interval up to `at`, or to where the current absence began.
    pub(super) fn interval(&self, at: MonoTime) -> Option<PresenceInterval> {
        match *self {
            Self::Broken { .. } => None,
            Self::Held { since, from, gap } => Some(PresenceInterval::new(from, gap.unwrap_or(at).since(since))),
        }
    }
}

/// Whole milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `at` and `duration`; the end of time if that lies beyond it.
pub(super) fn later(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// `at` less `duration`; the beginning of time if that lies before it.
pub(super) fn earlier(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_sub(duration).unwrap_or(Timestamp::MIN)
}
