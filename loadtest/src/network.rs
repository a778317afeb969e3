//! A network that loses, repeats and reorders datagrams, the same ones at every run with the same seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;

use crate::plan::duration;

/// A bad network inside the clients, for every datagram in both directions.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Bad network inside the clients (not with --light: light clients ask for no repairs)")]
pub struct NetworkOptions {
    /// Share of datagrams that never arrive, 0 to 1, from two seconds after a connection stands. What repairs do not
    /// bring back counts as missing: mind --max-loss.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "light")]
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "light")]
    pub duplicate: f64,
    /// Share of datagrams that are held back, so that later ones overtake them; all of them with --jitter alone.
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "light")]
    pub reorder: Option<f64>,
    /// The longest time that one is held back for; 50ms with --reorder alone.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "light")]
    pub jitter: Option<Duration>,
}

impl NetworkOptions {
    /// The network of the person with this number.
    pub(crate) fn network(&self, seed: u64, person: u32) -> Network {
        let Self { loss: lost, duplicate: doubled, reorder, jitter } = *self;
        let held_back = reorder.unwrap_or(if jitter.is_some() { 1.0 } else { 0.0 });
        let longest_hold = if held_back > 0.0 { jitter.unwrap_or(LONGEST_HOLD) } else { Duration::ZERO };
        let way = Way { lost, doubled, held_back, longest_hold };
        if way.is_clear() {
            return Network::default();
        }
        Network { seed: seed ^ (u64::from(person) << 32), good_for: GOOD_FOR, up: way, down: way }
    }
}

/// A network begins well, so that streams' first packets are known and the handshake is not what is tried.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// Longer than two voices' steps, shorter than a repair's patience.
const LONGEST_HOLD: Duration = Duration::from_millis(50);

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0 to 1".to_owned()) }
}

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
    lost: u64,
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
        Self { way, dice: Dice::new(seed), under_way: BinaryHeap::new(), entered: 0, lost: 0 }
    }

    /// Whether every datagram comes out as it goes in.
    pub(crate) fn is_clear(&self) -> bool {
        self.way.is_clear()
    }

    /// A datagram goes in.
    pub(crate) fn enter(&mut self, now: Instant, bytes: &[u8], address: SocketAddr) {
        if self.dice.falls_within(self.way.lost) {
            self.lost += 1;
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

    /// Datagrams that it has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
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
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At least 0, less than 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of `0..count`; 0, if there is none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few seats"
    )]
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.roll() * count as f64) as usize).min(count.saturating_sub(1))
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
    fn options_make_networks_of_their_own_for_everyone_or_a_clear_one() {
        assert_eq!(NetworkOptions::default().network(1, 2), Network::default());
        let options = NetworkOptions { loss: 0.02, ..NetworkOptions::default() };
        assert_ne!(options.network(1, 2).seed, options.network(1, 3).seed);
        assert_eq!(options.network(1, 2).up, Way::losing(0.02));
        let jitter = NetworkOptions { jitter: Some(GOOD_FOR), ..NetworkOptions::default() }.network(1, 2);
        assert!((jitter.up.held_back - 1.0).abs() < f64::EPSILON && jitter.down.longest_hold == GOOD_FOR);
        let reorder = NetworkOptions { reorder: Some(0.1), ..NetworkOptions::default() }.network(1, 2);
        assert_eq!(reorder.up.longest_hold, LONGEST_HOLD);
        assert!(share("1.1").is_err() && share("-0.1").is_err() && share("NaN").is_err() && share("0.5") == Ok(0.5));
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
