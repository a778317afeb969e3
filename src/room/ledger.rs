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
use serde_json::Value;

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

/// Why a text is not a whole ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// There is nothing in it.
    #[error("no ledger: there are no lines")]
    Empty,
    /// It is not JSON, so that lines cannot be told apart.
    #[error("no ledger: {0}")]
    NotJson(String),
    /// One of its lines cannot be read.
    #[error("line {seq} is not a line of a ledger: {reason}")]
    Unreadable {
        /// Its position, from 1.
        seq: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// One of its lines was changed.
    #[error(transparent)]
    Changed(#[from] ChainError),
    /// Its lines follow from each other, and are not those of one room.
    #[error("line {seq} cannot be there: a room's ledger begins with its booking, and has one")]
    NotARoom {
        /// The line's position, from 1.
        seq: u64,
    },
}

impl TextError {
    /// The line that is wrong, from 1; 1 too if no lines can be told apart.
    pub fn line(&self) -> u64 {
        match self {
            Self::Empty | Self::NotJson(_) => 1,
            Self::Unreadable { seq, .. } | Self::Changed(ChainError { seq }) | Self::NotARoom { seq } => *seq,
        }
    }
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

/// Checks a whole ledger as text: the JSON array that the API answers, or one line of JSON for each of its lines.
/// Needs nothing else, neither the node nor its configuration. Gives the head: the number of lines and the last hash.
///
/// # Errors
/// The first line that is not what it was or not where it was, or that says more than is hashed.
pub fn verify_text(text: &str) -> Result<Head, TextError> {
    let lines = read(text)?;
    let head = verify(&lines)?;
    let booking = |line: &Line| matches!(line.event, Event::Booked { .. });
    match lines.iter().find(|line| booking(line) != (line.seq == 1)) {
        Some(line) => Err(TextError::NotARoom { seq: line.seq }),
        None if lines.is_empty() => Err(TextError::Empty),
        None => Ok(head),
    }
}

fn read(text: &str) -> Result<Vec<Line>, TextError> {
    if !text.trim_start().starts_with('[') {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        return (1..).zip(lines).map(|(seq, line)| read_line(seq, line)).collect();
    }
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| TextError::NotJson(error.to_string()))?;
    let lines = (1..).zip(values).map(|(seq, value)| {
        // As text again: the same reading for both forms.
        read_line(seq, &value.to_string())
    });
    let lines = lines.collect::<Result<_, _>>()?;
    // A key that is there twice shows only in the text itself.
    serde_json::from_str::<Vec<Line>>(text).map_err(|error| TextError::NotJson(error.to_string()))?;
    Ok(lines)
}

fn read_line(seq: u64, text: &str) -> Result<Line, TextError> {
    let unreadable = |reason: String| TextError::Unreadable { seq, reason };
    let line: Line = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    // What the reading leaves out is not hashed either: nobody may be shown it as part of the ledger.
    let said: Value = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    if serde_json::to_value(&line).is_ok_and(|line| line == said) {
        Ok(line)
    } else {
        Err(unreadable("it says something that is not part of its event, or in other words".into()))
    }
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
