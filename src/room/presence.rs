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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        /// Absences within the grace.
        absences: Absences,
    },
}

/// Times in which something did not arrive. Those that are over are remembered for as long as the grace: late news may
/// tell that another one began before they were, and then they are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Absences {
    /// Beginning and end, in order and apart from each other.
    over: Vec<(MonoTime, MonoTime)>,
    lasting: Option<MonoTime>,
}

impl Absences {
    /// One that began at `at` and lasts.
    pub(super) fn lasting(at: MonoTime) -> Self {
        Self { over: Vec::new(), lasting: Some(at) }
    }

    /// Since when one lasts.
    pub(super) fn since(&self) -> Option<MonoTime> {
        self.lasting
    }

    /// Takes in whether something is gone after what happened at `at`.
    pub(super) fn watch(&mut self, gone: bool, at: MonoTime, grace: Duration) {
        if !gone {
            self.over.extend(self.lasting.take().map(|began| (began, at)));
            return;
        }
        // News of an earlier silence may come after news of a later one.
        let mut began = self.lasting.map_or(at, |lasting| lasting.min(at));
        while let Some((earlier, _)) = self.over.pop_if(|(_, ended)| began < *ended) {
            began = began.min(earlier);
        }
        self.over.retain(|(_, ended)| at.since(*ended) <= grace);
        self.lasting = Some(began);
    }
}

impl Presence {
    /// Since when someone required is missing within the grace.
    pub(super) fn gap(&self) -> Option<MonoTime> {
        match self {
            Self::Broken { .. } => None,
            Self::Held { absences, .. } => absences.since(),
        }
    }

    /// The interval up to `at`, or to where the current absence began.
    pub(super) fn interval(&self, at: MonoTime) -> Option<PresenceInterval> {
        match *self {
            Self::Broken { .. } => None,
            Self::Held { since, from, .. } => Some(PresenceInterval::new(from, self.gap().unwrap_or(at).since(since))),
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
