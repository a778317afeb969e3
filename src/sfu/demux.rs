//! Whose datagram is it: by source address, and for STUN by the ICE name that it carries.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;

use str0m::ice::StunMessage;

use crate::id::RoomId;

/// Addresses that one session may be reached from at a time. A browser checks from a handful; more is an attack on
/// the table.
const MOST_ADDRESSES: usize = 16;

/// A session on its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerKey(pub(super) u64);

/// A table of sessions. Keys are counted, so that nobody can choose ones that collide: spreading them is enough.
pub(super) type KeyMap<T> = HashMap<PeerKey, T, BuildHasherDefault<KeyHasher>>;

/// The same of rooms, whose identifiers are ours, too.
pub(super) type RoomMap<T> = HashMap<RoomId, T, BuildHasherDefault<KeyHasher>>;

/// Spreads counted keys over a table (Fibonacci hashing).
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What a datagram holds, by its first bytes (RFC 7983 §7, RFC 5761 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Media.
    Rtp,
    /// Reports and feedback.
    Rtcp,
    /// STUN, DTLS, or nothing that we know.
    Control,
}

impl Kind {
    pub(super) fn of(datagram: &[u8]) -> Self {
        match *datagram {
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, ..] => Self::Rtp,
            _ => Self::Control,
        }
    }
}

/// Finds sessions.
#[derive(Debug, Default)]
pub(super) struct Demux {
    addresses: HashMap<SocketAddr, PeerKey>,
    names: HashMap<String, PeerKey>,
    entries: KeyMap<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    ufrag: String,
    addresses: Vec<SocketAddr>,
}

impl Demux {
    /// Adds a session under its ICE name, or renames it after an ICE restart.
    pub(super) fn insert(&mut self, key: PeerKey, ufrag: String) {
        let entry = self.entries.entry(key).or_default();
        self.names.remove(&entry.ufrag);
        entry.ufrag.clone_from(&ufrag);
        self.names.insert(ufrag, key);
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, key: PeerKey) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.names.remove(&entry.ufrag);
        for address in entry.addresses {
            if self.addresses.get(&address) == Some(&key) {
                self.addresses.remove(&address);
            }
        }
    }

    /// Lets datagrams from this address go to the session; the oldest of too many addresses is forgotten.
    pub(super) fn bind(&mut self, address: SocketAddr, key: PeerKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.addresses.len() >= MOST_ADDRESSES {
            let oldest = entry.addresses.remove(0);
            if self.addresses.get(&oldest) == Some(&key) {
                self.addresses.remove(&oldest);
            }
        }
        entry.addresses.push(address);
        self.addresses.insert(address, key);
    }

    /// The session that this address was bound to.
    pub(super) fn by_address(&self, address: SocketAddr) -> Option<PeerKey> {
        self.addresses.get(&address).copied()
    }

    /// The session that a STUN request names. Not yet proven: the message's integrity is to be checked.
    pub(super) fn by_name(&self, datagram: &[u8]) -> Option<PeerKey> {
        // RFC 7983 §7: STUN begins with 0 to 3.
        if datagram.first().is_none_or(|&first| first > 3) {
            return None;
        }
        let message = StunMessage::parse(datagram).ok()?;
        let (ours, _) = message.split_username()?;
        self.names.get(ours).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn an_address_that_another_session_took_over_is_not_lost_with_the_first() {
        let mut demux = Demux::default();
        demux.insert(PeerKey(1), "aaaa".into());
        demux.insert(PeerKey(2), "bbbb".into());
        demux.bind(address(5), PeerKey(1));
        demux.bind(address(5), PeerKey(2));
        demux.remove(PeerKey(1));
        assert_eq!(demux.by_address(address(5)), Some(PeerKey(2)));
    }

    #[test]
    fn a_session_is_bound_to_a_bounded_number_of_addresses() {
        let mut demux = Demux::default();
        demux.insert(PeerKey(1), "aaaa".into());
        for port in 0..100 {
            demux.bind(address(port), PeerKey(1));
        }
        assert_eq!(demux.addresses.len(), MOST_ADDRESSES);
        assert_eq!(demux.by_address(address(0)), None);
        assert_eq!(demux.by_address(address(99)), Some(PeerKey(1)));
    }

    #[test]
    fn garbage_names_no_session() {
        let demux = Demux::default();
        for bytes in [&[][..], &[0], &[1, 2, 3], &[0; 20], &[0xff; 40]] {
            assert_eq!(demux.by_name(bytes), None);
        }
    }

    #[test]
    fn datagrams_are_told_apart_by_their_first_bytes() {
        for (bytes, kind) in [
            (&[0x80, 0x6f][..], Kind::Rtp),
            (&[0x90, 0xef], Kind::Rtp),
            (&[0x80, 200], Kind::Rtcp),
            (&[0xa1, 206], Kind::Rtcp),
            (&[0, 1], Kind::Control),
            (&[22, 254], Kind::Control),
            (&[0x80], Kind::Rtp),
            (&[], Kind::Control),
        ] {
            assert_eq!(Kind::of(bytes), kind, "{bytes:?}");
        }
    }
}
