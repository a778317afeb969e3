//! How long voice took from one person to another, in steps that grow: a thousand buckets for any run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Steps of each doubling: neighbours are 6 % apart at most.
const STEPS: u64 = 16;
/// Doublings above [`STEPS`] microseconds: up to a minute.
const DOUBLINGS: u64 = 22;

/// Delays of a run, counted. Shared by all its clients.
#[derive(Debug)]
pub struct Delays {
    epoch: Instant,
    buckets: Vec<AtomicU64>,
}

impl Default for Delays {
    fn default() -> Self {
        let count = STEPS * (DOUBLINGS + 1);
        Self { epoch: Instant::now(), buckets: (0..count).map(|_| AtomicU64::new(0)).collect() }
    }
}

/// What a run's delays come to, milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DelayFigures {
    /// Packets of voice.
    pub count: u64,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Upper bound of each bucket that holds any, and how many it holds.
    pub histogram: Vec<(f64, u64)>,
}

impl Delays {
    /// Nanoseconds since the run's beginning, to be carried by a packet.
    pub(crate) fn stamp(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A packet with this stamp has come.
    pub(crate) fn arrived(&self, stamp: u64) {
        self.took(stamp, Instant::now());
    }

    /// A packet with this stamp came at this time.
    pub(crate) fn took(&self, stamp: u64, at: Instant) {
        let at = at.saturating_duration_since(self.epoch);
        self.add(at.saturating_sub(Duration::from_nanos(stamp)));
    }

    /// A packet took so long.
    pub(crate) fn add(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len().saturating_sub(1);
        let at = usize::try_from(bucket(micros)).unwrap_or(last).min(last);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub fn figures(&self) -> DelayFigures {
        DelayFigures::of(self.counts().into_iter())
    }

    /// How many each bucket holds so far.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }
}

impl DelayFigures {
    /// What these buckets come to, from the shortest delay's on.
    pub(crate) fn of(counts: impl Iterator<Item = u64>) -> Self {
        let counted = (0..).zip(counts).filter(|(_, count)| *count > 0);
        let histogram: Vec<(f64, u64)> = counted.map(|(n, count)| (upper(n), count)).collect();
        let count: u64 = histogram.iter().map(|(_, count)| count).sum();
        // The nearest rank, as with request times.
        let rank = |percent: u64| {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let reached = histogram.iter().find(|(_, count)| {
                seen += count;
                seen >= wanted
            });
            reached.map_or(0.0, |(upper, _)| *upper)
        };
        let max_ms = histogram.last().map_or(0.0, |(upper, _)| *upper);
        Self { count, p50_ms: rank(50), p95_ms: rank(95), p99_ms: rank(99), max_ms, histogram }
    }
}

fn bucket(micros: u64) -> u64 {
    let doublings = micros.checked_div(STEPS).and_then(u64::checked_ilog2).map_or(0, |log| u64::from(log) + 1);
    if doublings == 0 { micros } else { STEPS * doublings + ((micros >> (doublings - 1)) - STEPS) }
}

/// The bucket's upper bound, milliseconds.
#[expect(clippy::cast_precision_loss, reason = "milliseconds with some decimals")]
fn upper(bucket: u64) -> f64 {
    let (doublings, step) = (bucket / STEPS, bucket % STEPS);
    let micros = if doublings == 0 { step + 1 } else { (STEPS + step + 1) << (doublings - 1) };
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delay_is_in_a_bucket_whose_bound_is_at_most_a_sixteenth_above_it() {
        for micros in (0..100_000).chain([1_000_000, 30_000_000]) {
            let bound = upper(bucket(micros)) * 1_000.0;
            let exact = f64::from(u32::try_from(micros).unwrap());
            assert!(bound > exact && bound <= exact * 17.0 / 16.0 + 1.0, "{micros}: {bound}");
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let delays = Delays::default();
        (1..=100).for_each(|ms| delays.add(Duration::from_millis(ms)));
        let figures = delays.figures();
        assert_eq!(figures.count, 100);
        for (figure, ms) in [(figures.p50_ms, 50.0), (figures.p99_ms, 99.0), (figures.max_ms, 100.0)] {
            assert!(figure >= ms && figure <= ms * 1.07, "{figure} for {ms}");
        }
        delays.add(Duration::from_hours(1));
        assert!(delays.figures().max_ms > 30_000.0);
    }
}
