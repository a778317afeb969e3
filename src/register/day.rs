//! The daily register (registro giornaliero di protocollo, DPR 445/2000 art. 53 c. 2): the day's entries, each bound to
//! the one before it.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Entry;

/// The form of the file.
const SCHEMA: &str = "sportello-daily-register/1";

/// The entries of one day, in the order of their numbers. As JSON it is always the same bytes for the same entries.
///
/// `sha256` of an entry's line is the SHA-256 of the line's JSON without that member, and `previous` is the line before
/// (64 zeros for the first): no entry can be changed, added or left out without changing `head`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayExport {
    /// The form of this file.
    #[schema(example = "sportello-daily-register/1")]
    pub schema: String,
    /// The day, in Europe/Rome: that of the hand-ins.
    #[schema(value_type = String, format = Date, example = "2026-11-25")]
    pub date: Date,
    /// The entries.
    pub entries: Vec<DayEntry>,
    /// SHA-256 of the last line; 64 zeros if there is none.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub head: String,
}

/// A line of the daily register.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayEntry {
    /// The number.
    #[schema(example = "2026/0000042")]
    pub protocol: String,
    /// When the document was handed in, RFC 3339.
    #[schema(example = "2026-11-25T09:07:12Z")]
    pub handed_in: Timestamp,
    /// When it was entered, RFC 3339.
    #[schema(example = "2026-11-25T09:07:13Z")]
    pub entered: Timestamp,
    /// Who handed it in.
    #[schema(example = "Anna Rossi")]
    pub sender: String,
    /// What it is about.
    #[schema(example = "Delega")]
    pub subject: String,
    /// SHA-256 of the document's bytes, hex.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub document_sha256: String,
    /// The hash of the line before.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub previous: String,
    /// This line's hash.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub sha256: String,
}

/// What is wrong with a daily register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DayFault {
    /// A line does not follow the one before it, or was changed.
    #[error("line {0} was changed, or another was taken out before it")]
    Line(usize),
    /// The last line is not the one that was last.
    #[error("lines are missing at its end")]
    Head,
}

/// What a line's hash is over.
#[derive(Serialize)]
struct Bound<'a> {
    protocol: &'a str,
    handed_in: Timestamp,
    entered: Timestamp,
    sender: &'a str,
    subject: &'a str,
    document_sha256: &'a str,
    previous: &'a str,
}

/// The daily register of `date`. Entries of other days and repeated ones are left out; their order does not matter.
pub fn day_export(date: Date, entries: &[Entry]) -> DayExport {
    let mut of_day: Vec<&Entry> = entries.iter().filter(|entry| entry.date() == date).collect();
    of_day.sort_by_key(|entry| (entry.year, entry.number));
    let mut seen = BTreeSet::new();
    let mut head = first();
    let mut lines = Vec::with_capacity(of_day.len());
    for entry in of_day {
        if !seen.insert((entry.year, entry.number)) {
            continue;
        }
        let mut line = DayEntry {
            protocol: entry.protocol(),
            handed_in: entry.handed_in,
            entered: entry.entered,
            sender: entry.sender.clone(),
            subject: entry.subject.clone(),
            document_sha256: entry.sha256.clone(),
            previous: std::mem::take(&mut head),
            sha256: String::new(),
        };
        line.sha256 = line.hash();
        head.clone_from(&line.sha256);
        lines.push(line);
    }
    DayExport { schema: SCHEMA.to_owned(), date, entries: lines, head }
}

impl DayExport {
    /// Follows the chain from the first line to the head.
    ///
    /// # Errors
    /// The first [`DayFault`].
    pub fn verify(&self) -> Result<(), DayFault> {
        let mut head = first();
        for (number, line) in (1..).zip(&self.entries) {
            if line.previous != head || line.sha256 != line.hash() {
                return Err(DayFault::Line(number));
            }
            head.clone_from(&line.sha256);
        }
        if self.head == head { Ok(()) } else { Err(DayFault::Head) }
    }
}

impl DayEntry {
    fn hash(&self) -> String {
        let bound = Bound {
            protocol: &self.protocol,
            handed_in: self.handed_in,
            entered: self.entered,
            sender: &self.sender,
            subject: &self.subject,
            document_sha256: &self.document_sha256,
            previous: &self.previous,
        };
        // Texts and times always have a JSON.
        let json = serde_json::to_vec(&bound).unwrap_or_default();
        hex::encode(digest(&SHA256, &json))
    }
}

impl fmt::Debug for DayExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DayExport")
            .field("date", &self.date)
            .field("entries", &self.entries.len())
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DayEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DayEntry")
            .field("protocol", &self.protocol)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// What comes before the first line.
fn first() -> String {
    "0".repeat(64)
}
