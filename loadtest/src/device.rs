//! The clock of a person's device, and even steps on it. Media is captured, stamped and reported by it, and it need not
//! run as fast as the server's.

use std::time::{Duration, Instant};

/// A clock that agrees with this machine's when it is made and then gains, or loses, evenly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceClock {
    start: Instant,
    drift_ppm: i32,
}

impl DeviceClock {
    /// A clock that gains so many microseconds in each second.
    pub(crate) fn new(drift_ppm: i32) -> Self {
        Self { start: Instant::now(), drift_ppm }
    }

    /// What it shows now.
    pub(crate) fn now(&self) -> Instant {
        self.shows(Instant::now())
    }

    /// What it shows at a moment of this machine's clock.
    pub(crate) fn shows(&self, real: Instant) -> Instant {
        let passed = real.saturating_duration_since(self.start);
        self.start + scaled(passed, 1_000_000 + i128::from(self.drift_ppm), 1_000_000)
    }

    /// The moment of this machine's clock at which it shows this.
    pub(crate) fn real(&self, shown: Instant) -> Instant {
        let passed = shown.saturating_duration_since(self.start);
        self.start + scaled(passed, 1_000_000, 1_000_000 + i128::from(self.drift_ppm))
    }
}

fn scaled(duration: Duration, by: i128, of: i128) -> Duration {
    let nanos = i128::try_from(duration.as_nanos()).unwrap_or(0) * by / of.max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Even steps of time. Steps that were missed are caught up on, since a microphone does not skip.
pub(crate) struct Pace {
    clock: DeviceClock,
    step: Duration,
    next: Instant,
}

impl Pace {
    pub(crate) fn new(clock: DeviceClock, step: Duration) -> Self {
        Self { clock, step, next: clock.now() }
    }

    /// The next step is now.
    pub(crate) fn restart(&mut self) {
        self.next = self.clock.now();
    }

    /// Waits for the next step; gives the device's time of it. Safe to drop and call again: the step is taken only
    /// when it is reached.
    pub(crate) async fn next(&mut self) -> Instant {
        tokio::time::sleep_until(self.clock.real(self.next).into()).await;
        let reached = self.next;
        self.next += self.step;
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_gains_100_ppm_is_120_ms_ahead_after_twenty_minutes() {
        let clock = DeviceClock::new(100);
        let real = clock.start + Duration::from_mins(20);
        assert_eq!(clock.shows(real) - real, Duration::from_millis(120));
        assert!(real.saturating_duration_since(clock.real(clock.shows(real))) < Duration::from_micros(1));
        let slow = DeviceClock::new(-100);
        assert_eq!(
            slow.start + Duration::from_mins(20) - slow.shows(slow.start + Duration::from_mins(20)),
            Duration::from_millis(120)
        );
    }
}
