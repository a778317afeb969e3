//! Time. The only module that reads a clock; everything else takes time as an argument.
//!
//! Two clocks, never mixed: [`MonoTime`] for media, deadlines and durations (it cannot jump), and
//! [`jiff::Timestamp`] for appointments and for what people read (it can).

use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A point on the node's monotonic clock: nanoseconds since the process started.
///
/// Comparable only within one run of the node; the ledger marks each restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The start of the node.
    pub const ZERO: Self = Self(0);

    /// The time `since_start` after the node started; saturates after 584 years.
    pub fn from_start(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// A time by its nanoseconds since the node started.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A time by its milliseconds since the node started.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the node started.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the node started.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonoTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for MonoTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For media, graces and durations.
    pub mono: MonoTime,
    /// For appointments, the ledger and what people read.
    pub wall: Timestamp,
}

/// The node's clocks. Copies share the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::new_without_default, reason = "starting a clock is an act, not a default value")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: Timestamp::now() }
    }

    /// Reads the monotonic clock.
    pub fn mono(&self) -> MonoTime {
        MonoTime::from_start(self.start.elapsed())
    }

    /// The same point as the standard library writes it, for libraries that ask for an [`Instant`].
    pub fn instant(&self, at: MonoTime) -> Instant {
        self.start + Duration::from_nanos(at.as_nanos())
    }

    /// An [`Instant`] of this process on the node's clock; zero if it lies before the start.
    pub fn mono_of(&self, instant: Instant) -> MonoTime {
        MonoTime::from_start(instant.saturating_duration_since(self.start))
    }
}
