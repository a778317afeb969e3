//! Transport-wide feedback to senders (draft-holmer-rmcat-transport-wide-cc-extensions-01): which of their packets came
//! and when. Browsers estimate their bandwidth by it.

use std::collections::VecDeque;

use crate::clock::MonoTime;

/// Packets that wait for feedback. At 100 ms between two, this is 8 Mbit/s of small packets; what is beyond is told in
/// the next.
const MOST_WAITING: usize = 1_024;

/// Packets that one feedback tells of: its bytes then fit a datagram (two bits and two bytes each at most).
const MOST_TOLD: usize = 400;

/// Unit of the reference time, ns (§3.1: 64 ms).
const REFERENCE_UNIT: u64 = 64_000_000;

/// Unit of the deltas, ns (§3.1.5: 250 µs).
const DELTA_UNIT: u64 = 250_000;

/// Arrivals that were not told yet.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Number of the first that waits.
    base: Option<u64>,
    waiting: VecDeque<Option<MonoTime>>,
    feedbacks: u8,
}

impl Arrivals {
    /// Notes a packet by the number that its transport extension carries.
    pub fn note(&mut self, sequence: u16, now: MonoTime) {
        let base = *self.base.get_or_insert(0x1_0000 | u64::from(sequence));
        let last = base + self.waiting.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are what is compared")]
        let ahead = sequence.wrapping_sub(last as u16).cast_signed();
        let Some(sequence) = last.checked_add_signed(i64::from(ahead)) else { return };
        // What was told as missing already stays so.
        let Some(offset) = sequence.checked_sub(base) else { return };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(arrival) = self.waiting.get_mut(offset) {
            arrival.get_or_insert(now);
        } else if offset < MOST_WAITING {
            self.waiting.resize(offset, None);
            self.waiting.push_back(Some(now));
        } else {
            // A jump: the sender began anew, or feedback is far behind. What waited is given up.
            self.waiting.clear();
            self.base = Some(sequence);
            self.waiting.push_back(Some(now));
        }
    }

    /// Whether there is something to tell.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes one feedback, from the base sequence number on, and forgets what it tells. Call it while
    /// [`Arrivals::is_waiting`].
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let Some(base) = self.base else { return };
        // Only the first can be missing: after a feedback that ended in the middle of a loss.
        let Some(first) = self.waiting.iter().flatten().next() else {
            self.base = Some(base + self.waiting.len() as u64);
            self.waiting.clear();
            return;
        };
        let reference = first.as_nanos() / REFERENCE_UNIT;
        let begin = out.len();
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 16 bits")]
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 24 bits")]
        let [_, r0, r1, r2] = (reference as u32).to_be_bytes();
        out.extend_from_slice(&[r0, r1, r2, self.feedbacks]);
        self.feedbacks = self.feedbacks.wrapping_add(1);

        let told = self.write_chunks(reference, out);
        self.write_deltas(told, reference, out);
        self.waiting.drain(..told);
        self.base = Some(base + told as u64);
        let told = u16::try_from(told).unwrap_or_default();
        if let Some(count) = out.get_mut(begin + 2..begin + 4) {
            count.copy_from_slice(&told.to_be_bytes());
        }
    }

    /// Two-bit status vectors of seven packets each, and runs where all are alike (§3.1.3, §3.1.4). Returns how many
    /// packets they tell of.
    fn write_chunks(&self, reference: u64, out: &mut Vec<u8>) -> usize {
        let mut symbols = Symbols::new(reference);
        let mut told = 0;
        let mut waiting = self.waiting.iter().take(MOST_TOLD).peekable();
        let mut stopped = false;
        while !stopped && waiting.peek().is_some() {
            // A run is tried first: it takes as little as a vector of seven.
            let mut chunk = [0_u8; 7];
            let mut length = 0;
            while length < 7
                && let Some(arrival) = waiting.peek()
            {
                let Some(symbol) = symbols.next(**arrival) else {
                    stopped = true;
                    break;
                };
                waiting.next();
                if let Some(place) = chunk.get_mut(length) {
                    *place = symbol;
                }
                length += 1;
            }
            let first = chunk[0];
            let alike = chunk.iter().take(length).all(|symbol| *symbol == first);
            let word = if alike {
                let mut run = length;
                while !stopped
                    && run < 8_191
                    && let Some(arrival) = waiting.peek()
                {
                    let before = symbols;
                    match symbols.next(**arrival) {
                        Some(symbol) if symbol == first => {
                            waiting.next();
                            run += 1;
                        }
                        Some(_) => {
                            symbols = before;
                            break;
                        }
                        None => stopped = true,
                    }
                }
                told += run;
                (u16::from(first) << 13) | u16::try_from(run).unwrap_or_default()
            } else {
                told += length;
                chunk.iter().fold(0b11, |word, symbol| (word << 2) | u16::from(*symbol))
            };
            if length > 0 {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
        told
    }

    fn write_deltas(&self, told: usize, reference: u64, out: &mut Vec<u8>) {
        let mut symbols = Symbols::new(reference);
        for arrival in self.waiting.iter().take(told).flatten() {
            let delta = symbols.delta(*arrival);
            match u8::try_from(delta) {
                Ok(small) => out.push(small),
                Err(_) => out.extend_from_slice(&i16::try_from(delta).unwrap_or_default().to_be_bytes()),
            }
        }
    }
}

/// Walks over arrivals as the receiver of the feedback will: each delta from the one before, in whole units.
#[derive(Clone, Copy)]
struct Symbols {
    /// Units of 250 µs since the clock's start.
    at: u64,
}

impl Symbols {
    fn new(reference: u64) -> Self {
        Self { at: reference * (REFERENCE_UNIT / DELTA_UNIT) }
    }

    /// 0: missing, 1: small delta, 2: large or negative delta. `None`: the delta does not fit, the feedback ends here.
    fn next(&mut self, arrival: Option<MonoTime>) -> Option<u8> {
        let Some(arrival) = arrival else { return Some(0) };
        let delta = self.delta(arrival);
        if u8::try_from(delta).is_ok() {
            Some(1)
        } else if i16::try_from(delta).is_ok() {
            Some(2)
        } else {
            None
        }
    }

    fn delta(&mut self, arrival: MonoTime) -> i64 {
        let at = arrival.as_nanos() / DELTA_UNIT;
        let delta = i64::try_from(at).unwrap_or(i64::MAX) - i64::try_from(self.at).unwrap_or(i64::MAX);
        self.at = at;
        delta
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a feedback as a sender does: numbers with the time of their arrival in units of 250 µs.
    fn read(feedback: &[u8]) -> Vec<(u16, Option<i64>)> {
        let base = u16::from_be_bytes([feedback[0], feedback[1]]);
        let count = usize::from(u16::from_be_bytes([feedback[2], feedback[3]]));
        let reference = i64::from(u32::from_be_bytes([0, feedback[4], feedback[5], feedback[6]]));
        let mut at = 8;
        let mut symbols = Vec::new();
        while symbols.len() < count {
            let word = u16::from_be_bytes([feedback[at], feedback[at + 1]]);
            at += 2;
            if word & 0x8000 == 0 {
                symbols.extend(std::iter::repeat_n(word >> 13 & 3, usize::from(word & 0x1fff)));
            } else {
                assert_ne!(word & 0x4000, 0, "one-bit vectors are not written");
                symbols.extend((0..7).rev().map(|place| word >> (2 * place) & 3));
            }
        }
        let mut time = reference * 256;
        let mut numbers = Vec::new();
        for (n, symbol) in symbols.into_iter().take(count).enumerate() {
            let arrival = match symbol {
                0 => None,
                1 => {
                    time += i64::from(feedback[at]);
                    at += 1;
                    Some(time)
                }
                2 => {
                    time += i64::from(i16::from_be_bytes([feedback[at], feedback[at + 1]]));
                    at += 2;
                    Some(time)
                }
                other => panic!("symbol {other}"),
            };
            numbers.push((base.wrapping_add(u16::try_from(n).unwrap()), arrival));
        }
        assert_eq!(at, feedback.len(), "nothing is left over");
        numbers
    }

    fn feedback(arrivals: &mut Arrivals) -> Vec<(u16, Option<i64>)> {
        let mut out = Vec::new();
        arrivals.write(&mut out);
        read(&out)
    }

    #[test]
    fn losses_and_reordering_are_told_over_the_rollover() {
        let mut arrivals = Arrivals::default();
        for (sequence, ms) in [(65_534, 1_000), (65_535, 1_010), (2, 1_030), (1, 1_040), (3, 1_050)] {
            arrivals.note(sequence, MonoTime::from_millis(ms));
        }
        let expected = [
            (65_534, Some(4_000)),
            (65_535, Some(4_040)),
            (0, None),
            (1, Some(4_160)),
            (2, Some(4_120)),
            (3, Some(4_200)),
        ];
        assert_eq!(feedback(&mut arrivals), expected);
        assert!(!arrivals.is_waiting());
        arrivals.note(0, MonoTime::from_millis(1_060));
        assert!(!arrivals.is_waiting(), "told as missing already");
        arrivals.note(5, MonoTime::from_millis(1_070));
        assert_eq!(feedback(&mut arrivals), [(4, None), (5, Some(4_280))]);
    }

    #[test]
    fn a_pause_too_long_for_a_delta_begins_another_feedback() {
        let mut arrivals = Arrivals::default();
        arrivals.note(1, MonoTime::from_millis(1_000));
        arrivals.note(2, MonoTime::from_millis(60_000));
        assert_eq!(feedback(&mut arrivals), [(1, Some(4_000))]);
        assert!(arrivals.is_waiting());
        assert_eq!(feedback(&mut arrivals), [(2, Some(240_000))]);
    }

    proptest! {
        #[test]
        fn every_arrival_is_told_once_at_its_time_and_memory_is_bounded(
            start: u16, steps in prop::collection::vec((0_u16..6, 0_u64..9_000), 1..600),
        ) {
            let mut arrivals = Arrivals::default();
            let (mut sequence, mut micros) = (start, 1_000_000);
            let mut came = Vec::new();
            for (step, pause) in steps {
                sequence = sequence.wrapping_add(step);
                micros += pause * 10;
                if came.last().is_some_and(|(last, _)| *last == sequence) {
                    continue;
                }
                arrivals.note(sequence, MonoTime::from_nanos(micros * 1_000));
                came.push((sequence, i64::try_from(micros / 250).unwrap()));
                prop_assert!(arrivals.waiting.len() <= MOST_WAITING);
            }
            prop_assume!(came.iter().map(|(n, _)| n.wrapping_sub(start)).max().unwrap() < 1_024);
            let mut told = Vec::new();
            while arrivals.is_waiting() {
                let mut out = Vec::new();
                arrivals.write(&mut out);
                prop_assert!(out.len() < 1_100, "{} bytes", out.len());
                if !out.is_empty() {
                    told.extend(read(&out).into_iter().filter_map(|(n, at)| Some((n, at?))));
                }
            }
            prop_assert_eq!(told, came);
        }

        #[test]
        fn no_numbers_break_it(numbers in prop::collection::vec((any::<u16>(), any::<u32>()), 1..300)) {
            let mut arrivals = Arrivals::default();
            for (n, (sequence, ms)) in numbers.into_iter().enumerate() {
                arrivals.note(sequence, MonoTime::from_millis(u64::from(ms)));
                prop_assert!(arrivals.waiting.len() <= MOST_WAITING);
                if n % 50 == 0 {
                    arrivals.write(&mut Vec::new());
                }
            }
        }
    }
}
