//! RTP time to media time: points on the node's monotonic clock.
//!
//! A stream's first packet is anchored at its arrival. Sender reports then bring the streams of one connection
//! onto one clock, that of the sender, seen from here through the shortest delay of late. Corrections are worked in
//! while media passes, so that time runs a little faster or slower but never backwards; whoever was away leaves a gap.
//!
//! Pure: time comes in as arrivals.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::MonoTime;
use crate::rtp::{SenderReport, Ssrc};

/// Reports older than this say nothing about the delay of now. Longer follows a sender whose clock is slow later
/// (30 s at 100 ppm: 3 ms); shorter takes a passing queue for the shortest delay.
const DELAY_WINDOW: Duration = Duration::from_secs(30);

/// A report that lies further from the others is believed only when a second one agrees: the sender's clock was set.
const CLOCK_STEP: i64 = 500 * MS;

/// How close two reports must be to agree.
const AGREEMENT: i64 = 200 * MS;

/// A packet mapped further ahead of its arrival than this is proof of a jump in its timestamps.
const FURTHEST_AHEAD: i64 = 500 * MS;

/// A packet mapped further behind its arrival than this is taken for a jump. Lower, and a network that stalls (TCP)
/// is taken for one; higher, and a sender that stops its timestamps with its media swallows longer pauses.
const FURTHEST_BEHIND: i64 = 5_000 * MS;

/// A report that asks for a larger correction is not believed.
const LARGEST_CORRECTION: i64 = 3_000 * MS;

/// Time that is missing by more than this is put in at once: it was a pause. Less is worked in.
const PAUSE: i64 = 250 * MS;

/// How much of the passing time a correction may take: 1/20 makes 20 ms of audio last 19 to 21 ms, which nobody hears,
/// and works in 100 ms within 2 s.
const GENTLE: i64 = 20;

/// The same while time is ahead by more than [`PAUSE`], which nothing but a late first packet does.
const HASTY: i64 = 4;

/// The largest lateness carried over to a new SSRC.
const USUAL_LATENESS: i64 = 200 * MS;

const MS: i64 = 1_000_000;

/// The clock of one connection's sender, as its reports show it. All its streams share it.
#[derive(Debug, Default)]
pub struct SenderClock {
    /// (arrival, arrival − sender's time) of recent reports.
    delays: VecDeque<(MonoTime, i64)>,
    /// A report's difference that no other agreed with yet.
    suspect: Option<i64>,
}

impl SenderClock {
    /// Takes a report in, and says which point on our clock the moment was that it speaks of; `None` if the report
    /// contradicts the earlier ones and stands alone with that.
    pub fn observe(&mut self, report: &SenderReport) -> Option<MonoTime> {
        let sent = ntp_nanos(report.ntp);
        let difference = nanos(report.arrival).saturating_sub(sent);
        if let Some(shortest) = self.shortest()
            && (difference - shortest).abs() > CLOCK_STEP
        {
            let agreed = self.suspect.is_some_and(|suspect| (difference - suspect).abs() <= AGREEMENT);
            self.suspect = Some(difference);
            if !agreed {
                return None;
            }
            self.delays.clear();
        }
        self.suspect = None;
        while self.delays.front().is_some_and(|(arrival, _)| report.arrival.since(*arrival) > DELAY_WINDOW) {
            self.delays.pop_front();
        }
        self.delays.push_back((report.arrival, difference));
        let shortest = self.shortest().unwrap_or(difference);
        Some(mono(sent.saturating_add(shortest)))
    }

    fn shortest(&self) -> Option<i64> {
        self.delays.iter().map(|(_, difference)| *difference).min()
    }
}

/// Where a packet or frame stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its media time. Never before that of the one placed before.
    pub at: MonoTime,
    /// Its timestamp did not follow from the stream's earlier ones, and was tied to its arrival anew.
    pub jumped: bool,
}

/// Maps one source's RTP timestamps to media time.
#[derive(Debug)]
pub struct StreamClock {
    rate: u32,
    anchor: Option<Anchor>,
    last: MonoTime,
}

#[derive(Debug)]
struct Anchor {
    ssrc: Ssrc,
    /// Timestamp of the packet placed last, and the same without rollovers, counted from the anchor.
    timestamp: u32,
    ticks: i64,
    /// Media time at tick 0.
    origin: i64,
    /// What is still to be added, or taken away, while media passes.
    correction: i64,
    /// How long after its media time the last packet came in.
    lateness: i64,
}

impl StreamClock {
    /// A clock for a stream with `rate` ticks per second.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), anchor: None, last: MonoTime::ZERO }
    }

    /// Places a packet or frame; they are to come in the order in which they were sent.
    pub fn place(&mut self, ssrc: Ssrc, timestamp: u64, arrival: MonoTime) -> Placed {
        let timestamp = low(timestamp);
        let arrival_ns = nanos(arrival);
        let mapped = self
            .anchor
            .as_mut()
            .filter(|anchor| anchor.ssrc == ssrc)
            .and_then(|anchor| anchor.follow(timestamp, arrival_ns, self.rate));
        let jumped = mapped.is_none() && self.anchor.is_some();
        let at = mapped.unwrap_or_else(|| {
            // A new SSRC of the same sender comes over the same network: it is about as late as the old one was.
            let lateness = self.anchor.as_ref().map_or(0, |anchor| anchor.lateness);
            let origin = (arrival_ns - lateness).max(nanos(self.last));
            self.anchor = Some(Anchor { ssrc, timestamp, ticks: 0, origin, correction: 0, lateness });
            origin
        });
        self.last = self.last.max(mono(at));
        Placed { at: self.last, jumped }
    }

    /// Where a moment of this stream stands: what [`StreamClock::correct`] would compare with.
    pub fn locate(&self, ssrc: Ssrc, timestamp: u32) -> Option<MonoTime> {
        let anchor = self.anchor.as_ref().filter(|anchor| anchor.ssrc == ssrc)?;
        let ticks = anchor.ticks + ticks_between(anchor.timestamp, timestamp);
        Some(mono(anchor.origin + duration_of(ticks, self.rate)))
    }

    /// Learns from a sender report that this stream's `timestamp` was at `moment` (from [`SenderClock::observe`]).
    pub fn correct(&mut self, ssrc: Ssrc, timestamp: u32, moment: MonoTime) {
        let Some(anchor) = self.anchor.as_mut().filter(|anchor| anchor.ssrc == ssrc) else {
            return;
        };
        let ticks = anchor.ticks + ticks_between(anchor.timestamp, timestamp);
        let error = nanos(moment) - anchor.origin - duration_of(ticks, self.rate);
        if error.abs() > LARGEST_CORRECTION {
            return;
        }
        if error > PAUSE {
            anchor.origin += error;
            anchor.correction = 0;
        } else {
            anchor.correction = error;
        }
    }
}

impl Anchor {
    /// The media time of `timestamp`, or `None` if it cannot belong to this anchor.
    fn follow(&mut self, timestamp: u32, arrival: i64, rate: u32) -> Option<i64> {
        let step = ticks_between(self.timestamp, timestamp);
        let passed = duration_of(step, rate);
        let ticks = self.ticks + step;
        if passed > 0 && self.correction != 0 {
            let share = passed / if self.correction < -PAUSE { HASTY } else { GENTLE };
            let now = self.correction.clamp(-share, share);
            self.origin += now;
            self.correction -= now;
        }
        let at = self.origin + duration_of(ticks, rate);
        let ahead = at - arrival;
        if !(-FURTHEST_BEHIND..=FURTHEST_AHEAD).contains(&ahead) {
            return None;
        }
        if ahead > 0 {
            // Nothing arrives before it was made: the anchor was a packet that came late.
            self.correction = self.correction.min(-ahead);
        }
        self.lateness = (-ahead).clamp(0, USUAL_LATENESS);
        self.timestamp = timestamp;
        self.ticks = ticks;
        Some(at)
    }
}

/// RTP timestamps are compared modulo 2^32 (RFC 3550 §5.1).
fn ticks_between(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_signed())
}

fn low(timestamp: u64) -> u32 {
    u32::try_from(timestamp & u64::from(u32::MAX)).unwrap_or_default()
}

fn duration_of(ticks: i64, rate: u32) -> i64 {
    let nanos = i128::from(ticks) * 1_000_000_000 / i128::from(rate);
    i64::try_from(nanos).unwrap_or(if ticks < 0 { i64::MIN / 4 } else { i64::MAX / 4 })
}

/// NTP format is seconds in the upper 32 bits and their binary fraction in the lower (RFC 3550 §4).
fn ntp_nanos(ntp: u64) -> i64 {
    let nanos = (u128::from(ntp) * 1_000_000_000) >> 32;
    i64::try_from(nanos).unwrap_or(i64::MAX / 2)
}

fn nanos(at: MonoTime) -> i64 {
    i64::try_from(at.as_nanos()).unwrap_or(i64::MAX / 4)
}

fn mono(nanos: i64) -> MonoTime {
    MonoTime::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Ssrc = Ssrc(1);
    const B: Ssrc = Ssrc(2);

    fn report(ssrc: Ssrc, sender: Duration, rtp_timestamp: u32, arrival: MonoTime) -> SenderReport {
        // The sender's clock is somewhere in the year 2026.
        let seconds = 3_976_000_000 + sender.as_secs();
        let fraction = (u64::from(sender.subsec_nanos()) << 32) / 1_000_000_000;
        SenderReport { ssrc, ntp: (seconds << 32) | fraction, rtp_timestamp, arrival }
    }

    fn ms(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    #[test]
    fn the_first_packet_is_at_its_arrival_and_the_next_follow_by_timestamp() {
        let mut clock = StreamClock::new(48_000);
        assert_eq!(clock.place(A, 1_000, ms(500)).at, ms(500));
        assert_eq!(clock.place(A, 1_960, ms(560)).at, ms(520), "late by 40 ms, yet 20 ms of media later");
        assert_eq!(clock.place(A, 1_000 + 48_000 * 3, ms(3_550)).at, ms(3_500), "a pause stays a pause");
    }

    #[test]
    fn a_timestamp_wrap_is_no_event() {
        let mut clock = StreamClock::new(90_000);
        let before = u64::from(u32::MAX) - 1_499;
        assert!(!clock.place(A, before, ms(100)).jumped);
        assert_eq!(
            clock.place(A, before + 3_000, ms(134)),
            Placed { at: MonoTime::from_nanos(133_333_333), jumped: false }
        );
        // Also if it comes as it stood on the wire.
        assert_eq!(clock.place(A, (before + 6_000) & 0xffff_ffff, ms(167)).at, MonoTime::from_nanos(166_666_666));
    }

    #[test]
    fn a_jump_of_the_timestamp_or_a_new_ssrc_is_tied_to_its_arrival() {
        let mut clock = StreamClock::new(48_000);
        clock.place(A, 0, ms(1_000));
        clock.place(A, 960, ms(1_030));
        let jump = clock.place(A, 4_000_000_000, ms(1_050));
        assert_eq!(jump, Placed { at: ms(1_040), jumped: true }, "as late as the packet before it");
        let other = clock.place(B, 77, ms(1_070));
        assert_eq!(other, Placed { at: ms(1_060), jumped: true });
        assert_eq!(clock.place(B, 77 + 960, ms(1_090)).at, ms(1_080));
    }

    #[test]
    fn an_anchor_that_came_late_is_worked_off_without_going_back() {
        let mut clock = StreamClock::new(48_000);
        let mut last = clock.place(A, 0, ms(1_300)).at;
        for n in 1..400_u64 {
            let at = clock.place(A, n * 960, ms(1_000 + n * 20)).at;
            assert!(at > last);
            last = at;
        }
        let arrival = ms(1_000 + 399 * 20);
        assert!(last <= arrival + Duration::from_millis(1), "{last:?} {arrival:?}");
    }

    #[test]
    fn a_step_of_the_senders_clock_moves_no_media_time() {
        let mut sender = SenderClock::default();
        let mut clock = StreamClock::new(48_000);
        let mut last = MonoTime::ZERO;
        for n in 0..3_000_u64 {
            let arrival = ms(1_000 + n * 20);
            let at = clock.place(A, n * 960, arrival).at;
            assert!(at >= last && arrival.since(at) < Duration::from_millis(5) && at.since(arrival) == Duration::ZERO);
            last = at;
            if n % 50 == 0 {
                let hour = if n > 1_500 { 3_600_000 } else { 0 };
                let report = report(A, Duration::from_millis(n * 20 + hour), u32::try_from(n * 960).unwrap(), arrival);
                if let Some(moment) = sender.observe(&report) {
                    clock.correct(A, report.rtp_timestamp, moment);
                }
            }
        }
    }

    #[test]
    fn a_pause_that_the_timestamps_do_not_show_is_put_in_by_the_report() {
        let mut sender = SenderClock::default();
        let mut clock = StreamClock::new(48_000);
        let first = report(A, Duration::from_secs(0), 0, ms(1_000));
        clock.place(A, 0, ms(1_000));
        sender.observe(&first);
        clock.place(A, 960, ms(3_000));
        let second = report(A, Duration::from_secs(2), 960, ms(3_000));
        let moment = sender.observe(&second).unwrap();
        clock.correct(A, 960, moment);
        assert_eq!(clock.place(A, 1_920, ms(3_020)).at, ms(3_020));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Two streams of one sender whose clock drifts: after some seconds they stand within 20 ms of each other and
        /// of the truth, whatever their first delay was.
        #[test]
        fn reports_bring_audio_and_video_onto_one_clock(
            drift_ppm in -200_i64..200,
            audio_delay in 0_u64..80,
            video_delay in 0_u64..200,
            jitter in prop::collection::vec(0_u64..30, 64),
        ) {
            let mut sender = SenderClock::default();
            let (mut audio, mut video) = (StreamClock::new(48_000), StreamClock::new(90_000));
            let start: i64 = 2_000_000_000;
            let network = 20 * MS;
            let jittered = |n: u64| i64::try_from(jitter[usize::try_from(n).unwrap() % jitter.len()]).unwrap() * MS;
            let (mut last_audio, mut last_video) = (MonoTime::ZERO, MonoTime::ZERO);
            let mut worst = 0;
            for n in 0..6_000_u64 {
                // The sender counts 20 ms; on our clock it is a little more or less.
                let media = i64::try_from(n).unwrap() * 20 * MS;
                let real = start + media + media / 1_000_000 * drift_ppm;
                let arrival = mono(real + network + jittered(n) + i64::try_from(audio_delay).unwrap() * MS / 4);
                let at = audio.place(A, n * 960, arrival).at;
                prop_assert!(at >= last_audio);
                last_audio = at;
                let from_audio = nanos(at) - real;
                let arrival = mono(real + network + jittered(n + 7) + i64::try_from(video_delay).unwrap() * MS);
                let at = video.place(B, n * 1_800, arrival).at;
                prop_assert!(at >= last_video);
                last_video = at;
                let from_video = nanos(at) - real;
                if n > 1_000 {
                    worst = worst.max((from_audio - from_video).abs()).max((from_video - network).abs());
                }
                if n % 50 == 25 {
                    let sent = Duration::from_nanos(u64::try_from(media).unwrap());
                    let arrival = mono(real + network + jittered(n + 3));
                    for (ssrc, ticks, clock) in [(A, n * 960, &mut audio), (B, n * 1_800, &mut video)] {
                        let report = report(ssrc, sent, low(ticks), arrival);
                        if let Some(moment) = sender.observe(&report) {
                            clock.correct(ssrc, report.rtp_timestamp, moment);
                        }
                    }
                }
            }
            prop_assert!(worst < 20 * MS, "off by {} ms", worst / MS);
        }

        /// Whatever a sender writes into its packets and reports, time does not run backwards and stays near arrival.
        #[test]
        fn no_sender_turns_time_back(steps in prop::collection::vec((any::<u32>(), 0_u64..400, any::<u64>(), 0_u8..4), 1..200)) {
            let mut sender = SenderClock::default();
            let mut clock = StreamClock::new(90_000);
            let (mut now, mut timestamp, mut last) = (ms(10), 0_u32, MonoTime::ZERO);
            for (ticks, wait, ntp, kind) in steps {
                now = now + Duration::from_millis(wait);
                match kind {
                    0 => timestamp = ticks,
                    1 => timestamp = timestamp.wrapping_add(ticks % 100_000),
                    2 => timestamp = timestamp.wrapping_sub(ticks % 100_000),
                    _ => {
                        let report = SenderReport { ssrc: A, ntp, rtp_timestamp: ticks, arrival: now };
                        if let Some(moment) = sender.observe(&report) {
                            clock.correct(A, ticks, moment);
                        }
                    }
                }
                let at = clock.place(A, u64::from(timestamp), now).at;
                prop_assert!(at >= last);
                prop_assert!(at.since(now) <= Duration::from_millis(500), "ahead of arrival");
                last = at;
            }
        }
    }
}
