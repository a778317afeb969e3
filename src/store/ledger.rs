//! The ledger's chain: each line's hash covers the line before it, so none can be changed, moved or left out unseen.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;

use super::{Error, Hash};
use crate::clock::MonoTime;
use crate::id::RoomId;
use crate::room::{Entry, Event};

/// One stored line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Number, from 1.
    pub seq: u64,
    /// What happened, and when.
    pub entry: Entry,
    /// The line's hash.
    pub hash: Hash,
}

/// A line as it is written: the texts that were hashed.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) seq: u64,
    pub(super) wall: String,
    pub(super) mono_ms: u64,
    pub(super) event: String,
    pub(super) prev: Hash,
    pub(super) hash: Hash,
}

impl Written {
    /// Writes `entry` as the line after `(seq, hash)`.
    pub(super) fn after(previous: (u64, Hash), room: RoomId, entry: &Entry) -> Result<Self, Error> {
        let (seq, prev) = (previous.0 + 1, previous.1);
        let wall = entry.wall.to_string();
        let mono_ms = entry.mono.as_millis();
        let event = serde_json::to_string(&entry.event).map_err(|_| Error::Corrupt("event"))?;
        let hash = chain(prev, room, seq, &wall, mono_ms, &event);
        Ok(Self { seq, wall, mono_ms, event, prev, hash })
    }

    /// Checks that the line follows `(seq, hash)` unchanged, and reads it.
    pub(super) fn verify(self, previous: (u64, Hash), room: RoomId) -> Result<Line, Error> {
        let expected = chain(previous.1, room, previous.0 + 1, &self.wall, self.mono_ms, &self.event);
        if self.seq != previous.0 + 1 || self.prev != previous.1 || self.hash != expected {
            return Err(Error::Corrupt("ledger line"));
        }
        let wall: Timestamp = self.wall.parse().map_err(|_| Error::Corrupt("ledger time"))?;
        let event: Event = serde_json::from_str(&self.event).map_err(|_| Error::Corrupt("ledger event"))?;
        let entry = Entry { mono: MonoTime::from_millis(self.mono_ms), wall, event };
        Ok(Line { seq: self.seq, entry, hash: self.hash })
    }
}

/// What stands before a room's first line.
pub(super) const START: (u64, Hash) = (0, Hash::ZERO);

/// SHA-256 over `prev`, room, number, wall time, monotonic milliseconds and event, each as text (hashes in hex, the
/// event as its JSON) and each ended by a line feed, which none of them contains.
fn chain(prev: Hash, room: RoomId, seq: u64, wall: &str, mono_ms: u64, event: &str) -> Hash {
    let mut text = String::with_capacity(256 + event.len());
    // Writing to a String cannot fail.
    let _ = write!(text, "{}\n{room}\n{seq}\n{wall}\n{mono_ms}\n{event}\n", prev.to_hex());
    let mut context = Context::new(&SHA256);
    context.update(text.as_bytes());
    Hash::from_digest(&context.finish())
}
