//! Statistics of streams: what a receiver reports (RFC 3550 §6.4, appendices A.1, A.3 and A.8), and what a sender does.

use std::time::Duration;

use super::rtcp::{Block, SenderInfo};
use super::{SenderReport, Ssrc};
use crate::clock::MonoTime;

/// A second of NTP's fixed point (RFC 3550 §4).
const NTP_SECOND: u128 = 1 << 32;

/// How one stream is received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reception {
    first: u64,
    highest: Option<u64>,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// Jitter in sixteenths of a tick, as appendix A.8 keeps it.
    jitter: u64,
    transit: Option<i64>,
    last_report: Option<(u32, MonoTime)>,
    reported: bool,
}

impl Reception {
    /// Counts a packet with its extended numbers.
    pub fn note(&mut self, sequence: u64, timestamp: u64, clock_rate: u32, now: MonoTime) {
        if self.highest.is_none() {
            self.first = sequence;
        }
        self.first = self.first.min(sequence);
        self.highest = Some(self.highest.map_or(sequence, |highest| highest.max(sequence)));
        self.received += 1;
        self.reported = false;
        // Appendix A.8; ticks of the arrival on the stream's clock.
        let arrival = u128::from(now.as_nanos()) * u128::from(clock_rate) / 1_000_000_000;
        let arrival = i64::try_from(arrival).unwrap_or(i64::MAX);
        let transit = arrival.wrapping_sub(timestamp.cast_signed());
        if let Some(before) = self.transit {
            let change = transit.wrapping_sub(before).unsigned_abs().min(u64::from(u32::MAX));
            self.jitter = (self.jitter + change).saturating_sub((self.jitter + 8) >> 4);
        }
        self.transit = Some(transit);
    }

    /// Notes a sender report, so that the sender can tell its round-trip time.
    pub fn note_report(&mut self, ntp: u64, now: MonoTime) {
        self.last_report = Some((middle(ntp), now));
    }

    /// The block for the next report; `None`: nothing came since the last.
    pub fn block(&mut self, ssrc: Ssrc, now: MonoTime) -> Option<Block> {
        let highest = self.highest.filter(|_| !self.reported)?;
        self.reported = true;
        let expected = highest - self.first + 1;
        let lost = i64::try_from(expected).unwrap_or(i64::MAX) - i64::try_from(self.received).unwrap_or(i64::MAX);
        // Appendix A.3.
        let expected_interval = expected - self.expected_before;
        let received_interval = self.received - self.received_before;
        self.expected_before = expected;
        self.received_before = self.received;
        let fraction = match expected_interval.checked_sub(received_interval) {
            Some(lost) if expected_interval > 0 => lost * 256 / expected_interval,
            _ => 0,
        };
        let (last_report, since_last_report) = match self.last_report {
            Some((report, at)) => (report, short(now.since(at))),
            None => (0, 0),
        };
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 32 bits")]
        let highest = highest as u32;
        Some(Block {
            ssrc: ssrc.0,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            lost: i32::try_from(lost).unwrap_or(i32::MAX),
            highest,
            jitter: u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX),
            last_report,
            since_last_report,
        })
    }
}

/// What was sent of one stream, and which time it is on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transmission {
    packets: u32,
    octets: u32,
    /// Sent since the last report.
    fresh: bool,
    /// A moment on the RTP clock and on ours, from the source's own report.
    anchor: Option<(u32, MonoTime)>,
    /// The same from the last packet: where there is no report yet.
    last: Option<(u32, MonoTime)>,
}

impl Transmission {
    /// Counts a packet that was sent.
    pub fn note(&mut self, timestamp: u32, payload: usize, arrival: MonoTime) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload).unwrap_or_default());
        self.fresh = true;
        self.last = Some((timestamp, arrival));
    }

    /// The source says that `timestamp` was at this time of our clock.
    pub fn set_anchor(&mut self, timestamp: u32, at: MonoTime) {
        self.anchor = Some((timestamp, at));
    }

    /// Another source begins in this stream: the old one's anchor is void.
    pub fn clear_anchor(&mut self) {
        self.anchor = None;
    }

    /// The report to send now; `None`: nothing was sent since the last.
    pub fn report(&mut self, ssrc: Ssrc, clock_rate: u32, now: MonoTime, ntp: u64) -> Option<SenderInfo> {
        if !std::mem::take(&mut self.fresh) {
            return None;
        }
        let (timestamp, at) = self.anchor.or(self.last)?;
        let since = i128::from(now.as_nanos()) - i128::from(at.as_nanos());
        let ticks = since * i128::from(clock_rate) / 1_000_000_000;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "RTP time wraps at 32 bits")]
        let rtp_timestamp = timestamp.wrapping_add(ticks as u32);
        Some(SenderInfo { ssrc, ntp, rtp_timestamp, packets: self.packets, octets: self.octets })
    }
}

/// One sender's clock against ours: all its streams are shifted by the same amount, so that what it says is at the same
/// time stays at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoteClock {
    /// Our time in ns less theirs.
    offset: Option<i128>,
}

/// How far a report may lie from the offset before it is taken for a clock that was set: a queue on the way delays
/// reports by less.
const CLOCK_JUMP: Duration = Duration::from_secs(1);

impl RemoteClock {
    /// When the report's moment was on our clock. The report that came quickest tells the offset best.
    pub fn local(&mut self, report: &SenderReport) -> MonoTime {
        let theirs = i128::try_from(nanos(report.ntp)).unwrap_or_default();
        let measured = i128::from(report.arrival.as_nanos()) - theirs;
        let jump = i128::try_from(CLOCK_JUMP.as_nanos()).unwrap_or(i128::MAX);
        let offset = match self.offset {
            Some(offset) if (measured - offset).abs() <= jump => offset.min(measured),
            _ => measured,
        };
        self.offset = Some(offset);
        MonoTime::from_nanos(u64::try_from(theirs + offset).unwrap_or_default())
    }
}

/// The round-trip time that a report block shows (RFC 3550 §6.4.1). `None`: the receiver had no report of ours yet.
pub fn round_trip(block: &Block, ntp: u64) -> Option<Duration> {
    if block.last_report == 0 {
        return None;
    }
    let units = middle(ntp).wrapping_sub(block.last_report).wrapping_sub(block.since_last_report);
    // What would be negative is a clock's rounding.
    (units < 0x8000_0000).then(|| Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16))
}

/// A time since 1900 as NTP's 64 bits.
pub fn ntp(since_1900: Duration) -> u64 {
    let fraction = (u64::from(since_1900.subsec_nanos()) << 32) / 1_000_000_000;
    (since_1900.as_secs() << 32) | fraction
}

fn nanos(ntp: u64) -> u128 {
    u128::from(ntp) * 1_000_000_000 / NTP_SECOND
}

#[expect(clippy::cast_possible_truncation, reason = "the middle 32 bits are meant")]
fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

fn short(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_millis(ms)
    }

    #[test]
    fn loss_is_counted_in_all_and_since_the_last_report() {
        let mut reception = Reception::default();
        for n in 0..100_u64 {
            if n % 4 != 3 {
                reception.note(65_500 + n, n * 3_000, 90_000, at(n * 33));
            }
        }
        let block = reception.block(Ssrc(5), at(3_300)).unwrap();
        assert_eq!((block.fraction_lost, block.lost, block.highest), (62, 24, 65_598));
        assert_eq!(reception.block(Ssrc(5), at(4_300)), None, "nothing new");
        for n in 100..200_u64 {
            reception.note(65_500 + n, n * 3_000, 90_000, at(n * 33));
        }
        let block = reception.block(Ssrc(5), at(6_600)).unwrap();
        assert_eq!((block.fraction_lost, block.lost), (2, 25), "one of 101: the last before the report");
    }

    #[test]
    fn jitter_is_that_of_appendix_a_8() {
        let mut even = Reception::default();
        let mut uneven = Reception::default();
        for n in 0..500_u64 {
            even.note(n, n * 960, 48_000, at(n * 20));
            uneven.note(n, n * 960, 48_000, at(n * 20 + (n % 2) * 10));
        }
        assert!(even.block(Ssrc(1), at(10_000)).unwrap().jitter < 2);
        // Ten milliseconds there and back: 480 ticks.
        let jitter = uneven.block(Ssrc(1), at(10_000)).unwrap().jitter;
        assert!((470..=481).contains(&jitter), "{jitter}");
    }

    #[test]
    fn a_block_tells_the_round_trip() {
        let mut reception = Reception::default();
        reception.note(1, 1, 90_000, at(1_000));
        let sent = ntp(Duration::from_mins(65_000_000));
        reception.note_report(sent, at(1_020));
        let block = reception.block(Ssrc(1), at(1_520)).unwrap();
        // The sender reads it 540 ms after its report: 500 of them were the receiver's.
        let rtt = round_trip(&block, ntp(Duration::from_millis(3_900_000_000_540))).unwrap();
        assert!((39..=41).contains(&rtt.as_millis()), "{rtt:?}");
        assert_eq!(round_trip(&Block::default(), sent), None);
    }

    #[test]
    fn voice_and_picture_of_one_sender_stay_in_step() {
        // Their clock shows 100 s at our 7 s; the picture's report is 30 ms on its way, the voice's 5.
        let mut clock = RemoteClock::default();
        let report = |theirs_ms: u64, rtp_timestamp, arrival_ms| SenderReport {
            ssrc: Ssrc(1),
            ntp: ntp(Duration::from_millis(theirs_ms)),
            rtp_timestamp,
            arrival: at(arrival_ms),
        };
        clock.local(&report(100_000, 0, 7_005));
        let picture = clock.local(&report(101_000, 90_000, 8_030));
        let voice = clock.local(&report(101_000, 48_000, 8_005));
        assert!(picture.since(voice) < Duration::from_millis(1) && voice.since(picture) < Duration::from_millis(1));
        let (mut sent_picture, mut sent_voice) = (Transmission::default(), Transmission::default());
        sent_picture.note(500, 1_000, at(8_100));
        sent_voice.note(700, 80, at(8_100));
        assert_eq!(sent_picture.report(Ssrc(2), 90_000, at(8_200), 1).unwrap().rtp_timestamp, 500 + 9_000);
        sent_picture.set_anchor(10_000, picture);
        sent_voice.set_anchor(20_000, voice);
        assert_eq!(sent_picture.report(Ssrc(2), 90_000, at(8_300), 1), None, "nothing was sent since");
        sent_picture.note(600, 1_000, at(9_000));
        sent_voice.note(800, 80, at(9_000));
        let later = at(9_005);
        let picture = sent_picture.report(Ssrc(2), 90_000, later, 1).unwrap();
        let voice = sent_voice.report(Ssrc(3), 48_000, later, 1).unwrap();
        assert!(picture.rtp_timestamp.abs_diff(10_000 + 90_000) < 100, "{picture:?}");
        assert!(voice.rtp_timestamp.abs_diff(20_000 + 48_000) < 60, "{voice:?}");
        assert_eq!((picture.packets, picture.octets), (2, 2_000));
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        let mut clock = RemoteClock::default();
        let report = |theirs: u64, arrival_ms| SenderReport {
            ssrc: Ssrc(1),
            ntp: ntp(Duration::from_secs(theirs)),
            rtp_timestamp: 0,
            arrival: at(arrival_ms),
        };
        clock.local(&report(1_000, 5_000));
        assert_eq!(clock.local(&report(9_000, 6_000)).as_millis(), 6_000);
        assert_eq!(clock.local(&report(0, 7_000)).as_millis(), 7_000);
    }

    proptest! {
        #[test]
        fn no_numbers_break_the_statistics(
            packets in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u32>()), 1..100), ntp: u64,
        ) {
            let mut reception = Reception::default();
            let mut transmission = Transmission::default();
            for (sequence, timestamp, now) in packets {
                reception.note(u64::from(sequence), timestamp, 90_000, at(u64::from(now)));
                reception.note_report(ntp, at(u64::from(now)));
                let block = reception.block(Ssrc(1), at(u64::from(now) + 7));
                prop_assert!(block.is_some());
                round_trip(&block.unwrap(), ntp);
                transmission.note(sequence, 5, at(u64::from(now)));
                transmission.report(Ssrc(1), 90_000, MonoTime::ZERO, ntp);
            }
        }
    }
}
