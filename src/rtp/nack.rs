//! Lost packets: which a receiver misses and asks for (RFC 4585 §6.2.1), and which a sender still has (RFC 4588).

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::MonoTime;

/// Packets that are missing at once. A longer gap is not a loss but an interruption: a keyframe ends it sooner than
/// repairs would, so that more would only make the sender send what nobody can use.
const MOST_MISSING: usize = 256;

/// How often one packet is asked for. More helps on links that lose repairs too, and keeps asking for what a sender
/// does not have.
const MOST_REQUESTS: u8 = 8;

/// Least time between two requests for one packet; a shorter one asks twice for what is already on its way.
const LEAST_RETRY: Duration = Duration::from_millis(30);

/// The longest; a longer one leaves the picture broken for longer when a repair is lost too.
const LONGEST_RETRY: Duration = Duration::from_millis(300);

/// The packets of one stream that a receiver misses.
#[derive(Debug, Default)]
pub struct Missing {
    highest: Option<u64>,
    waiting: VecDeque<Gap>,
}

#[derive(Debug)]
struct Gap {
    sequence: u64,
    requests: u8,
    due: MonoTime,
}

/// What a packet's arrival means for those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// In order, or late.
    Fine,
    /// Packets before it are missing; they are to be asked for now.
    Gap,
    /// So many are missing that only a keyframe helps.
    Hopeless,
}

impl Missing {
    /// Notes that a packet came.
    pub fn note(&mut self, sequence: u64, now: MonoTime) -> Noted {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return Noted::Fine;
        };
        if sequence <= highest {
            if let Ok(at) = self.waiting.binary_search_by_key(&sequence, |gap| gap.sequence) {
                self.waiting.remove(at);
            }
            return Noted::Fine;
        }
        self.highest = Some(sequence);
        let missing = usize::try_from(sequence - highest - 1).unwrap_or(usize::MAX);
        if missing == 0 {
            return Noted::Fine;
        }
        if missing > MOST_MISSING {
            self.waiting.clear();
            return Noted::Hopeless;
        }
        let too_many = (self.waiting.len() + missing).saturating_sub(MOST_MISSING);
        self.waiting.drain(..too_many);
        self.waiting.extend((highest + 1..sequence).map(|sequence| Gap { sequence, requests: 0, due: now }));
        if too_many > 0 { Noted::Hopeless } else { Noted::Gap }
    }

    /// When packets are to be asked for next.
    pub fn due(&self) -> Option<MonoTime> {
        self.waiting.iter().map(|gap| gap.due).min()
    }

    /// Puts the packets to ask for now into `out`, rising. Those asked for too often are given up.
    pub fn request(&mut self, now: MonoTime, round_trip: Duration, out: &mut Vec<u16>) {
        let retry = (round_trip * 3 / 2).clamp(LEAST_RETRY, LONGEST_RETRY);
        self.waiting.retain_mut(|gap| {
            if gap.due > now {
                return true;
            }
            if gap.requests >= MOST_REQUESTS {
                return false;
            }
            gap.requests += 1;
            gap.due = now + retry;
            #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 16 bits")]
            out.push(gap.sequence as u16);
            true
        });
    }
}

/// Packets that a sender keeps for repairs: 1 s of a camera in high resolution or of a shared screen in motion. More takes memory for
/// every picture that is watched; fewer leaves receivers on slow links unrepaired.
const RING: usize = 256;

/// How long they are kept: three rounds of asking over a link of 300 ms. A receiver that asks later is better served by a
/// keyframe; longer pins the payloads' memory.
const KEPT: Duration = Duration::from_secs(1);

/// Least time between two repairs of one packet: requests come in doubles when reports cross on their way.
const LEAST_REPAIR: Duration = Duration::from_millis(20);

/// What was sent of one stream, newest first to be overwritten. Takes no memory before the first packet.
#[derive(Debug)]
pub struct Ring<T> {
    entries: Vec<Option<Kept<T>>>,
    newest: Option<u64>,
    oldest: u64,
}

#[derive(Debug)]
struct Kept<T> {
    sequence: u64,
    sent: MonoTime,
    repaired: Option<MonoTime>,
    packet: T,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), newest: None, oldest: 0 }
    }
}

impl<T> Ring<T> {
    /// Keeps a packet.
    pub fn keep(&mut self, sequence: u64, now: MonoTime, packet: T) {
        if self.entries.is_empty() {
            self.entries.resize_with(RING, || None);
            self.oldest = sequence;
        }
        if self.newest.is_some_and(|newest| sequence + RING as u64 <= newest) {
            return;
        }
        self.newest = Some(self.newest.map_or(sequence, |newest| newest.max(sequence)));
        self.oldest = self.oldest.min(sequence);
        if let Some(entry) = self.entries.get_mut(place(sequence, RING)) {
            *entry = Some(Kept { sequence, sent: now, repaired: None, packet });
        }
        self.forget_old(now);
    }

    /// Lets go of what nobody will ask for any more.
    pub fn forget_old(&mut self, now: MonoTime) {
        let Some(newest) = self.newest else { return };
        self.oldest = self.oldest.max((newest + 1).saturating_sub(RING as u64));
        while self.oldest <= newest {
            if let Some(entry) = self.entries.get_mut(place(self.oldest, RING))
                && let Some(kept) = entry
                // What stands there may be a later one already.
                && kept.sequence == self.oldest
            {
                if now.since(kept.sent) < KEPT {
                    return;
                }
                *entry = None;
            }
            self.oldest += 1;
        }
        self.newest = None;
        self.entries = Vec::new();
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// The packet with this number, if it is kept and was not repaired a moment ago.
    pub fn repair(&mut self, sequence: u16, now: MonoTime) -> Option<(u64, &T)> {
        let newest = self.newest?;
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 16 bits")]
        let back = (newest as u16).wrapping_sub(sequence);
        let sequence = newest.checked_sub(u64::from(back))?;
        let kept = self.entries.get_mut(place(sequence, RING))?.as_mut()?;
        let resting = kept.repaired.is_some_and(|at| now.since(at) < LEAST_REPAIR);
        if kept.sequence != sequence || resting || now.since(kept.sent) >= KEPT {
            return None;
        }
        kept.repaired = Some(now);
        Some((sequence, &kept.packet))
    }
}

fn place(sequence: u64, places: usize) -> usize {
    usize::try_from(sequence % places as u64).unwrap_or_default()
}

/// Voice packets that are kept as they were sent: a third of a second. A jitter buffer hardly waits longer; more takes memory for
/// every voice that is heard.
const COPIES: usize = 16;

/// Longest packet that is kept: Opus at 64 kbit/s with its header and tag. Longer ones are music.
const LONGEST_COPY: usize = 256;

/// The last packets of a stream as they were sent, for receivers without a stream of repairs: browsers take a voice's packet
/// once more. Nothing is sealed twice. Takes no memory before the first packet, and none for each after a round.
#[derive(Debug, Default)]
pub struct Copies {
    entries: Vec<Sealed>,
    newest: MonoTime,
}

#[derive(Debug, Default)]
struct Sealed {
    sequence: u64,
    repaired: Option<MonoTime>,
    datagram: Vec<u8>,
}

impl Copies {
    /// Keeps a datagram.
    pub fn keep(&mut self, sequence: u64, now: MonoTime, datagram: &[u8]) {
        if datagram.len() > LONGEST_COPY {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize_with(COPIES, Sealed::default);
        }
        self.newest = self.newest.max(now);
        if let Some(entry) = self.entries.get_mut(place(sequence, COPIES))
            && (entry.datagram.is_empty() || entry.sequence < sequence)
        {
            (entry.sequence, entry.repaired) = (sequence, None);
            entry.datagram.clear();
            entry.datagram.reserve_exact(datagram.len());
            entry.datagram.extend_from_slice(datagram);
        }
    }

    /// The datagram with this number, if it is kept and was not asked for a moment ago.
    pub fn repair(&mut self, sequence: u16, now: MonoTime) -> Option<&[u8]> {
        let kept = self.entries.get_mut(place(sequence.into(), COPIES))?;
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 16 bits")]
        let same = kept.sequence as u16 == sequence && !kept.datagram.is_empty();
        let resting = kept.repaired.is_some_and(|at| now.since(at) < LEAST_REPAIR);
        if !same || resting || now.since(self.newest) >= KEPT {
            return None;
        }
        kept.repaired = Some(now);
        Some(&kept.datagram)
    }

    /// Lets go of all when the stream has ended.
    pub fn forget_old(&mut self, now: MonoTime) {
        if now.since(self.newest) >= KEPT {
            self.entries = Vec::new();
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(40);

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_millis(ms)
    }

    fn asked(missing: &mut Missing, ms: u64) -> Vec<u16> {
        let mut out = Vec::new();
        missing.request(at(ms), ROUND_TRIP, &mut out);
        out
    }

    #[test]
    fn a_gap_is_asked_for_at_once_again_after_a_round_trip_and_not_for_ever() {
        let mut missing = Missing::default();
        assert_eq!(missing.note(65_535, at(0)), Noted::Fine);
        assert_eq!(missing.note(65_539, at(10)), Noted::Gap);
        assert_eq!(asked(&mut missing, 10), [0, 1, 2]);
        assert!(asked(&mut missing, 69).is_empty());
        assert_eq!(missing.note(65_537, at(69)), Noted::Fine);
        assert_eq!(asked(&mut missing, 70), [0, 2], "the repair came for the other");
        let again: usize = (0..1_000).map(|n| asked(&mut missing, 100 + n * 10).len()).sum();
        assert_eq!(again, 2 * usize::from(MOST_REQUESTS - 2));
        assert_eq!(missing.due(), None);
    }

    #[test]
    fn an_interruption_is_not_asked_for() {
        let mut missing = Missing::default();
        missing.note(1, at(0));
        assert_eq!(missing.note(2_000, at(10)), Noted::Hopeless);
        assert_eq!(missing.due(), None);
    }

    #[test]
    fn what_was_sent_is_there_for_a_while_and_repaired_at_a_measured_pace() {
        let mut ring = Ring::default();
        for n in 0..300_u64 {
            ring.keep(65_500 + n, at(n), n);
        }
        assert_eq!(ring.repair(65_535, at(300)), None, "overwritten");
        let (sequence, packet) = ring.repair(10, at(300)).unwrap();
        assert_eq!((sequence, *packet), (65_546, 46));
        assert_eq!(ring.repair(10, at(310)), None, "it was just sent");
        assert!(ring.repair(10, at(330)).is_some());
        assert_eq!(ring.repair(10, at(46 + 2_000)), None, "too old");
        assert_eq!(ring.repair(300, at(310)), None, "never sent");
        ring.forget_old(at(300 + 2_000));
        assert!(ring.entries.is_empty(), "an idle stream pins nothing");
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_only_what_is_missing_is_asked_for(
            steps in prop::collection::vec((0_u64..400, 0_u64..50), 1..200),
        ) {
            let mut missing = Missing::default();
            let mut came = BTreeSet::new();
            let (mut sequence, mut now) = (1_000_u64, 0);
            for (step, pause) in steps {
                sequence = (sequence + step).saturating_sub(100);
                now += pause;
                missing.note(sequence, at(now));
                came.insert(sequence);
                prop_assert!(missing.waiting.len() <= MOST_MISSING);
                prop_assert!(missing.waiting.iter().zip(missing.waiting.iter().skip(1)).all(|(a, b)| a.sequence < b.sequence));
                let mut out = Vec::new();
                missing.request(at(now), ROUND_TRIP, &mut out);
                #[expect(clippy::cast_possible_truncation)]
                let came_on_wire: BTreeSet<u16> = came.iter().map(|sequence| *sequence as u16).collect();
                prop_assert!(out.iter().all(|sequence| !came_on_wire.contains(sequence)));
            }
        }

        #[test]
        fn a_ring_gives_back_only_what_was_kept(
            steps in prop::collection::vec((0_u64..40, 0_u64..100), 1..300), wanted: u16,
        ) {
            let mut ring = Ring::default();
            let (mut sequence, mut now) = (100_u64, 0);
            for (step, pause) in steps {
                sequence = (sequence + step).saturating_sub(5);
                now += pause;
                ring.keep(sequence, at(now), sequence);
                prop_assert!(ring.entries.len() <= RING);
            }
            if let Some((found, packet)) = ring.repair(wanted, at(now)) {
                prop_assert_eq!(found, *packet);
                prop_assert_eq!(found & 0xffff, u64::from(wanted));
            }
            ring.forget_old(at(now + 3_000));
            prop_assert!(ring.entries.is_empty());
        }
    }

    #[test]
    fn the_last_voice_packets_can_be_sent_again_as_they_were_until_the_stream_has_ended() {
        let at = MonoTime::from_millis;
        let mut copies = Copies::default();
        // Over the end of the 16 bits.
        for n in 65_500..65_600_u64 {
            copies.keep(n, at(20 * n), &n.to_be_bytes());
        }
        copies.keep(65_600, at(20 * 65_600), &[0; LONGEST_COPY + 1]);
        let now = at(20 * 65_600);
        assert_eq!(copies.repair(63, now), Some(&65_599_u64.to_be_bytes()[..]));
        assert_eq!(copies.repair(63, now), None, "it was sent a moment ago");
        assert_eq!(copies.repair(63, at(20 * 65_600 + 20)), Some(&65_599_u64.to_be_bytes()[..]));
        assert_eq!(copies.repair(48, now), Some(&65_584_u64.to_be_bytes()[..]), "the oldest");
        assert_eq!(copies.repair(47, now), None, "older");
        assert_eq!(copies.repair(64, now), None, "too long to be kept");
        assert_eq!(copies.repair(65_500, now), None);
        copies.keep(65_584 - 16, now, b"late");
        assert_eq!(
            copies.repair(48, now + LEAST_REPAIR),
            Some(&65_584_u64.to_be_bytes()[..]),
            "it took no one's place"
        );
        assert_eq!(copies.repair(48, at(20 * 65_700)), None, "nothing came for a second");
        copies.forget_old(at(20 * 65_700));
        assert!(copies.is_empty());
        assert_eq!(copies.repair(63, now), None);
    }
}
