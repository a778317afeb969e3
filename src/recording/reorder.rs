//! Puts the packets of one stream back into the order in which they were sent, waits a little for those that are
//! missing, and says which never came.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::MonoTime;
use crate::rtp::Packet;

/// Packets held at most while one is missing: 400 ms of video at 8 Mbit/s. More memory per stream when raised.
const MOST_HELD: usize = 512;

/// A packet further behind than this is either a straggler or the sender began to count anew (RFC 3550 A.1).
const MOST_BEHIND: u64 = 3_000;

/// Holes that were given up and are remembered, to tell a packet that comes too late from one that comes twice.
const MOST_HOLES: usize = 64;

/// What happened to packets on their way into order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReorderCounts {
    /// They filled a hole before it was given up: they came out of order, or again after they were asked for.
    pub(super) recovered: u64,
    /// They came when they had been given up.
    pub(super) late: u64,
    /// They came a second time.
    pub(super) duplicates: u64,
}

/// What comes out, in order.
#[derive(Clone, Debug)]
pub(super) enum Released {
    /// The next packet.
    Packet(Packet),
    /// Packets that did not come.
    Gap {
        /// Sequence number of the first missing one.
        first: u64,
        /// How many.
        count: u64,
        /// When the packet behind them came, which is where they are missed.
        at: MonoTime,
    },
    /// The sequence numbers start anew.
    Restart,
}

/// The buffer of one SSRC.
#[derive(Debug)]
pub(super) struct Reorder {
    patience: Duration,
    next: Option<u64>,
    held: BTreeMap<u64, Packet>,
    /// The number that would prove, by following a far too old packet, that the sender counts anew.
    restart: Option<u64>,
    /// Given up lately: the first number of each hole and the first after it.
    holes: VecDeque<(u64, u64)>,
    counts: ReorderCounts,
}

impl Reorder {
    /// A buffer that waits for a missing packet for `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        let (held, holes, counts) = (BTreeMap::new(), VecDeque::new(), ReorderCounts::default());
        Self { patience, next: None, held, restart: None, holes, counts }
    }

    /// The same for another stream of the source, whose numbers are others; what was counted stays.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { counts: self.counts, ..Self::new(self.patience) };
    }

    /// What was counted.
    pub(super) fn counts(&self) -> ReorderCounts {
        self.counts
    }

    /// Takes a packet as it came, and passes on what is in order now.
    pub(super) fn push(&mut self, packet: Packet, out: &mut Vec<Released>) {
        let next = *self.next.get_or_insert(packet.sequence);
        if packet.sequence < next {
            if next - packet.sequence <= MOST_BEHIND || self.restart != Some(packet.sequence) {
                let given_up = self.holes.iter().any(|(first, end)| (*first..*end).contains(&packet.sequence));
                *(if given_up { &mut self.counts.late } else { &mut self.counts.duplicates }) += 1;
                self.restart = packet.sequence.checked_add(1);
                return;
            }
            self.give_up_waiting(out);
            out.push(Released::Restart);
            self.holes.clear();
            self.next = Some(packet.sequence);
        }
        self.restart = None;
        if self.held.contains_key(&packet.sequence) {
            self.counts.duplicates += 1;
            return;
        }
        if self.held.last_key_value().is_some_and(|(newest, _)| *newest > packet.sequence) {
            self.counts.recovered += 1;
        }
        self.held.insert(packet.sequence, packet);
        self.release(out);
        while self.held.len() > MOST_HELD {
            self.skip_gap(out);
        }
    }

    /// Gives up what has been missing for longer than the patience, at `now`.
    pub(super) fn expire(&mut self, now: MonoTime, out: &mut Vec<Released>) {
        while self.waiting_since().is_some_and(|since| now.since(since) >= self.patience) {
            self.skip_gap(out);
        }
    }

    /// Gives up everything that is missing.
    pub(super) fn give_up_waiting(&mut self, out: &mut Vec<Released>) {
        while !self.held.is_empty() {
            self.skip_gap(out);
        }
    }

    /// Arrival of the packet that has waited longest for a missing one.
    pub(super) fn waiting_since(&self) -> Option<MonoTime> {
        self.held.values().map(|packet| packet.arrival).min()
    }

    fn skip_gap(&mut self, out: &mut Vec<Released>) {
        if let (Some(next), Some((&first, behind))) = (self.next, self.held.first_key_value()) {
            if first > next {
                out.push(Released::Gap { first: next, count: first - next, at: behind.arrival });
                if self.holes.len() == MOST_HOLES {
                    self.holes.pop_front();
                }
                self.holes.push_back((next, first));
            }
            self.next = Some(first);
        }
        self.release(out);
    }

    fn release(&mut self, out: &mut Vec<Released>) {
        while let Some(next) = self.next
            && let Some(packet) = self.held.remove(&next)
        {
            out.push(Released::Packet(packet));
            self.next = Some(next.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::rtp::{Codec, Extensions, Ssrc};

    fn packet(sequence: u64, arrival: u64) -> Packet {
        Packet {
            ssrc: Ssrc(1),
            codec: Codec::Vp8,
            sequence,
            timestamp: sequence * 3_000,
            marker: true,
            arrival: MonoTime::from_millis(arrival),
            extensions: Extensions::default(),
            payload: Bytes::from_static(&[0]),
        }
    }

    /// `7` is a packet, `-2` two missing ones, `i64::MIN` a restart.
    fn shape(out: &[Released]) -> Vec<i64> {
        out.iter()
            .map(|released| match released {
                Released::Packet(packet) => i64::try_from(packet.sequence).unwrap(),
                Released::Gap { count, .. } => -i64::try_from(*count).unwrap(),
                Released::Restart => i64::MIN,
            })
            .collect()
    }

    #[test]
    fn a_late_packet_takes_its_place_and_a_missing_one_becomes_a_gap_after_the_patience() {
        let mut reorder = Reorder::new(Duration::from_millis(400));
        let mut out = Vec::new();
        for (sequence, arrival) in [(65_534, 0), (65_536, 20), (65_535, 300), (65_539, 310), (65_539, 311)] {
            reorder.push(packet(sequence, arrival), &mut out);
        }
        assert_eq!(shape(&out), [65_534, 65_535, 65_536]);
        reorder.expire(MonoTime::from_millis(709), &mut out);
        assert_eq!(out.len(), 3, "still waiting");
        reorder.expire(MonoTime::from_millis(710), &mut out);
        reorder.push(packet(65_537, 720), &mut out);
        assert_eq!(shape(&out), [65_534, 65_535, 65_536, -2, 65_539]);
        let counts = ReorderCounts { recovered: 1, late: 1, duplicates: 1 };
        reorder.push(packet(65_536, 730), &mut out);
        reorder.push(packet(65_536, 740), &mut out);
        assert_eq!(reorder.counts(), ReorderCounts { duplicates: 3, ..counts });
        assert_eq!(out.len(), 5, "nothing comes out twice");
    }

    #[test]
    fn a_sender_that_counts_anew_is_followed_after_two_packets() {
        let mut reorder = Reorder::new(Duration::from_millis(400));
        let mut out = Vec::new();
        for sequence in [90_000, 90_001, 12, 90_002, 500, 501, 502] {
            reorder.push(packet(sequence, 0), &mut out);
        }
        assert_eq!(shape(&out), [90_000, 90_001, 90_002, i64::MIN, 501, 502]);
    }

    proptest! {
        #[test]
        fn what_comes_out_is_in_order_and_complete(
            order in Just((0_u64..200).collect::<Vec<_>>()).prop_shuffle(),
            lost in prop::collection::hash_set(0_u64..200, 0..50),
        ) {
            let mut reorder = Reorder::new(Duration::from_millis(400));
            let mut out = Vec::new();
            reorder.push(packet(1_000, 0), &mut out);
            for (arrival, n) in (0_u64..).zip(&order) {
                if !lost.contains(n) {
                    reorder.push(packet(1_001 + n, arrival / 10), &mut out);
                }
            }
            reorder.give_up_waiting(&mut out);
            let mut next = 1_000;
            for released in &out {
                match released {
                    Released::Packet(packet) => {
                        prop_assert_eq!(packet.sequence, next);
                        next += 1;
                    }
                    Released::Gap { first, count, .. } => {
                        prop_assert_eq!(*first, next);
                        for missing in next..next + count {
                            prop_assert!(lost.contains(&(missing - 1_001)));
                        }
                        next += count;
                    }
                    Released::Restart => prop_assert!(false),
                }
            }
        }
    }
}
