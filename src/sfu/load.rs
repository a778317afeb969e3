//! How busy a worker is: the share of the last second that its loop worked and did not sleep, and what the rooms that
//! opened a moment ago will add to it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;

use crate::clock::MonoTime;

/// Over so much time the share is taken. Shorter jumps with every burst; longer lets a room in that is too much.
const WINDOW: Duration = Duration::from_secs(1);

/// A room that opened so lately is not in the measured share yet: people connect, and pictures begin, meanwhile. Shorter
/// lets a rush of rooms in before the first of them is felt; longer counts rooms twice.
const SETTLES: Duration = Duration::from_secs(2);

/// What a room will take, thousandths of a worker, before so many were measured that their mean is known better.
const ROOM: u32 = 4;

/// Rooms whose mean is trusted.
const TRUSTED: usize = 8;

/// From this share on, thousandths, a worker takes no further room: what is left is for bursts, joins, and for the
/// recorder if it shares the core: at 0.8 that was not enough. Higher lets delays grow first.
const FULL: u32 = 700;

/// A worker's load as others see it, in thousandths.
#[derive(Clone, Debug, Default)]
pub(super) struct Load(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    measured: AtomicU32,
    /// When the latest rooms opened.
    opened: Mutex<VecDeque<MonoTime>>,
}

impl Load {
    /// A room opens.
    pub(super) fn expect_room(&self, now: MonoTime) {
        self.unsettled(now).push_back(now);
    }

    /// Whether a further room would be too much for a worker that has so many.
    pub(super) fn is_full(&self, rooms: usize, now: MonoTime) -> bool {
        self.expected(rooms, now) >= FULL
    }

    /// Coarse enough that workers which are as good as equally busy count as such.
    pub(super) fn tenths(&self, rooms: usize, now: MonoTime) -> u32 {
        self.expected(rooms, now) / 100
    }

    /// The share that a worker of so many rooms will soon be busy for, thousandths.
    fn expected(&self, rooms: usize, now: MonoTime) -> u32 {
        let measured = self.0.measured.load(Ordering::Relaxed);
        let coming = self.unsettled(now).len();
        let settled = rooms.saturating_sub(coming);
        let each = if settled < TRUSTED { ROOM } else { measured / u32::try_from(settled).unwrap_or(u32::MAX) };
        measured.saturating_add(each.saturating_mul(u32::try_from(coming).unwrap_or(u32::MAX)))
    }

    fn unsettled(&self, now: MonoTime) -> MutexGuard<'_, VecDeque<MonoTime>> {
        // Nothing in here panics half-way.
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        while opened.front().is_some_and(|at| now.since(*at) >= SETTLES) {
            opened.pop_front();
        }
        opened
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
        self.load.0.measured.store((share * 1e3) as u32, Ordering::Relaxed);
        (self.began, self.busy) = (now, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_full_when_its_loop_worked_for_seven_tenths_of_a_second() {
        let load = Load::default();
        let mut meter = LoadMeter::new(load.clone(), Gauge::noop(), MonoTime::ZERO);
        for second in 1..=3 {
            // Busier each second: 0.3, 0.6, 0.9.
            for turn in 1..=10 {
                let now = MonoTime::from_millis((second - 1) * 1_000 + turn * 100);
                meter.add(Duration::from_millis(second * 30), now);
            }
            let now = MonoTime::from_millis(second * 1_000);
            let figures = (load.tenths(3, now), load.is_full(3, now));
            assert_eq!(figures, (u32::try_from(second).unwrap() * 3, second == 3));
        }
        let rested = MonoTime::from_millis(4_500);
        meter.add(Duration::from_millis(1), rested);
        assert!(!load.is_full(3, rested), "and takes rooms again once it rests");
    }

    #[test]
    fn rooms_that_opened_a_moment_ago_count_before_they_are_felt() {
        let (load, at) = (Load::default(), MonoTime::from_millis);
        let mut meter = LoadMeter::new(load.clone(), Gauge::noop(), MonoTime::ZERO);
        meter.add(Duration::from_millis(500), at(1_000));
        assert_eq!(load.expected(100, at(1_000)), 500);
        for n in 1..=60 {
            load.expect_room(at(1_000 + n));
        }
        assert_eq!(load.expected(160, at(1_100)), 500 + 60 * 5, "like the hundred that were measured");
        assert!(load.is_full(160, at(1_100)));
        assert_eq!(load.expected(160, at(6_000)), 500, "by then they are in what is measured");
    }

    #[test]
    fn before_rooms_were_measured_each_is_taken_for_a_usual_one() {
        let (load, now) = (Load::default(), MonoTime::from_millis(1));
        (0..174).for_each(|_| load.expect_room(now));
        assert!(!load.is_full(174, now));
        load.expect_room(now);
        assert!(load.is_full(175, now));
    }
}
