//! A network that loses, repeats and reorders datagrams, the same ones at every run with the same seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What happens to datagrams between a client and its server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Network {
    /// Where the dice begin.
    pub seed: u64,
    /// How long after the connection stands the network turns bad.
    pub good_for: Duration,
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
}

/// One direction of a network. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Way {
    /// Share of datagrams that never arrive.
    pub lost: f64,
    /// Share of datagrams that arrive twice.
    pub doubled: f64,
    /// Share of datagrams that are held back, so that later ones overtake them.
    pub held_back: f64,
    /// The longest time that one is held back for.
    pub longest_hold: Duration,
}

impl Way {
    /// Loses this share, and does nothing else.
    pub fn losing(share: f64) -> Self {
        Self { lost: share, ..Self::default() }
    }

    fn is_clear(&self) -> bool {
        *self == Self::default()
    }
}

/// One direction at work: datagrams go in and, later or more often or never, come out.
pub(crate) struct Road {
    way: Way,
    dice: Dice,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    entered: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Instant,
    /// Keeps those that are due at the same time in order.
    turn: u64,
    bytes: Vec<u8>,
    address: SocketAddr,
}

impl Road {
    pub(crate) fn new(way: Way, seed: u64) -> Self {
        Self { way, dice: Dice(seed), under_way: BinaryHeap::new(), entered: 0 }
    }

    /// Whether every datagram comes out as it goes in.
    pub(crate) fn is_clear(&self) -> bool {
        self.way.is_clear()
    }

    /// A datagram goes in.
    pub(crate) fn enter(&mut self, now: Instant, bytes: &[u8], address: SocketAddr) {
        if self.dice.falls_within(self.way.lost) {
            return;
        }
        let copies = if self.dice.falls_within(self.way.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let held = self.dice.falls_within(self.way.held_back);
            let hold = if held { self.way.longest_hold.mul_f64(self.dice.roll()) } else { Duration::ZERO };
            self.entered += 1;
            let bytes = bytes.to_vec();
            self.under_way.push(Reverse(UnderWay { due: now + hold, turn: self.entered, bytes, address }));
        }
    }

    /// When the next datagram comes out.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(first)| first.due)
    }

    /// The next datagram that has come out by now.
    pub(crate) fn leave(&mut self, now: Instant) -> Option<(Vec<u8>, SocketAddr)> {
        if self.next()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse(first)| (first.bytes, first.address))
    }
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): good enough for losses, and the same everywhere.
struct Dice(u64);

impl Dice {
    /// At least 0, less than 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn falls_within(&mut self, share: f64) -> bool {
        self.roll() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travelled(way: Way, seed: u64) -> Vec<u16> {
        let mut road = Road::new(way, seed);
        let (start, address) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut out = Vec::new();
        for n in 0..2_000_u16 {
            let now = start + Duration::from_millis(n.into());
            road.enter(now, &n.to_be_bytes(), address);
            out.extend(std::iter::from_fn(|| road.leave(now)));
        }
        out.extend(std::iter::from_fn(|| road.leave(start + Duration::from_mins(1))));
        out.into_iter().map(|(bytes, _)| u16::from_be_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn a_clear_way_changes_nothing() {
        assert_eq!(travelled(Way::default(), 1), (0..2_000).collect::<Vec<_>>());
        assert!(Road::new(Way::default(), 1).is_clear() && !Road::new(Way::losing(0.1), 1).is_clear());
    }

    #[test]
    fn the_shares_are_kept_and_the_same_seed_loses_the_same() {
        let lossy = travelled(Way::losing(0.3), 7);
        assert!((1_300..1_500).contains(&lossy.len()), "{}", lossy.len());
        assert_eq!(lossy, travelled(Way::losing(0.3), 7));
        assert_ne!(lossy, travelled(Way::losing(0.3), 8));
        let way = Way { doubled: 0.1, held_back: 0.2, longest_hold: Duration::from_millis(50), ..Way::default() };
        let mixed = travelled(way, 7);
        assert!((2_120..2_280).contains(&mixed.len()), "{}", mixed.len());
        assert!(!mixed.is_sorted());
        let mut all = mixed;
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..2_000).collect::<Vec<_>>(), "none is lost");
    }
}
