//! How busy a worker is: the share of the last second that its loop worked and did not sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use metrics::Gauge;

use crate::clock::MonoTime;

/// Over so much time the share is taken. Shorter jumps with every burst; longer lets a room in that is too much.
const WINDOW: Duration = Duration::from_secs(1);

/// From this share on, thousandths, a worker takes no further room: what is left is for bursts, joins, and for the
/// recorder if it shares the core. Higher lets delays grow first.
const FULL: u32 = 800;

/// A worker's load as others see it, in thousandths.
#[derive(Clone, Debug, Default)]
pub(super) struct Load(Arc<AtomicU32>);

impl Load {
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= FULL
    }

    /// Coarse enough that workers which are as good as equally busy count as such.
    pub(super) fn tenths(&self) -> u32 {
        self.0.load(Ordering::Relaxed) / 100
    }
}

/// Measures one worker's load.
pub(super) struct LoadMeter {
    load: Load,
    gauge: Gauge,
    began: MonoTime,
    busy: Duration,
}

impl LoadMeter {
    pub(super) fn new(load: Load, gauge: Gauge, now: MonoTime) -> Self {
        Self { load, gauge, began: now, busy: Duration::ZERO }
    }

    /// A turn took so long and ended now.
    pub(super) fn add(&mut self, turn: Duration, now: MonoTime) {
        self.busy += turn;
        let passed = now.since(self.began);
        if passed < WINDOW {
            return;
        }
        let share = self.busy.as_secs_f64() / passed.as_secs_f64();
        self.gauge.set(share);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
        self.load.0.store((share * 1e3) as u32, Ordering::Relaxed);
        (self.began, self.busy) = (now, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_full_when_its_loop_worked_for_four_fifths_of_a_second() {
        let load = Load::default();
        let mut meter = LoadMeter::new(load.clone(), Gauge::noop(), MonoTime::ZERO);
        for second in 1..=3 {
            // Busier each second: 0.3, 0.6, 0.9.
            for turn in 1..=10 {
                let now = MonoTime::from_millis((second - 1) * 1_000 + turn * 100);
                meter.add(Duration::from_millis(second * 30), now);
            }
            assert_eq!((load.tenths(), load.is_full()), (u32::try_from(second).unwrap() * 3, second == 3));
        }
        meter.add(Duration::from_millis(1), MonoTime::from_millis(4_500));
        assert!(!load.is_full(), "and takes rooms again once it rests");
    }
}
