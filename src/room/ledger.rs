//! The ledger's lines: each event with its times, bound by SHA-256 to the line before.
//!
//! A line's hash is over the UTF-8 bytes of the JSON object
//! `{"seq":…,"wall":"…","mono_ms":…,"event":{…},"prev":"…"}`: these keys in this order, no white space, as `serde_json`
//! writes it; that is the line as it is kept, less its last key `hash`. The first line's `prev` is 64 zeros. Fields
//! that events gain later must be left out when they are absent, or old lines would no longer verify.

use std::io;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Entry, Event};
use crate::clock::{MonoTime, Now};

/// What the first line names as the hash before it.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Position in the room's ledger, from 1, without gaps.
    pub seq: u64,
    /// Wall time.
    pub wall: Timestamp,
    /// Monotonic time of the node's run, milliseconds.
    pub mono_ms: u64,
    /// What happened.
    pub event: Event,
    /// The hash of the line before.
    pub prev: String,
    /// SHA-256 of this line without this field, lower-case hex.
    pub hash: String,
}

/// Where a ledger stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its last line's position; 0: it is empty.
    pub seq: u64,
    /// Its last line's hash.
    pub hash: String,
}

/// A ledger that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger does not verify at line {seq}")]
pub struct ChainError {
    /// The first line that is not what it was, or not where it was.
    pub seq: u64,
}

impl Head {
    /// The head of an empty ledger.
    pub fn empty() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

impl Line {
    /// The entry that it holds.
    pub fn entry(&self) -> Entry {
        Entry { mono: MonoTime::from_millis(self.mono_ms), wall: self.wall, event: self.event.clone() }
    }

    /// The head of a ledger that ends with this line.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }
}

/// The line that an entry becomes after `prev`.
pub fn chain(prev: &Head, entry: &Entry) -> Line {
    let Entry { mono, wall, event } = Entry::at(Now { mono: entry.mono, wall: entry.wall }, entry.event.clone());
    let mut line = Line {
        seq: prev.seq + 1,
        wall,
        mono_ms: mono.as_millis(),
        event,
        prev: prev.hash.clone(),
        hash: String::new(),
    };
    line.hash = hash(&line);
    line
}

/// Checks a whole ledger, from its first line; its head, if every line is what it was and where it was. What is
/// missing at its end shows only against a head that is kept elsewhere.
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Result<Head, ChainError> {
    let mut head = Head::empty();
    for line in lines {
        let seq = head.seq + 1;
        if line.seq != seq || line.prev != head.hash || line.hash != hash(line) {
            return Err(ChainError { seq });
        }
        head = line.head();
    }
    Ok(head)
}

fn hash(line: &Line) -> String {
    /// A line as it is hashed.
    #[derive(Serialize)]
    struct Hashed<'a> {
        seq: u64,
        wall: Timestamp,
        mono_ms: u64,
        event: &'a Event,
        prev: &'a str,
    }

    struct Digest(Context);

    impl io::Write for Digest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let Line { seq, wall, mono_ms, event, prev, .. } = line;
    let mut digest = Digest(Context::new(&SHA256));
    let written =
        serde_json::to_writer(&mut digest, &Hashed { seq: *seq, wall: *wall, mono_ms: *mono_ms, event, prev });
    debug_assert!(written.is_ok(), "events are plain JSON and the digest takes every byte");
    hex::encode(digest.0.finish())
}
