//! The register (protocollo): what is handed to it, the numbers that it gives, and what people get of them: the receipt
//! and the daily register.
//!
//! Who numbers is either this node's own register, in its database, or the administration's, over HTTP
//! ([`HttpRegister`]). Both keep one contract (DPR 445/2000 art. 53 and 57):
//!
//! - An entry belongs to the calendar year of its *hand-in* in Europe/Rome ([`register_year`]), whenever it was entered:
//!   a document that waited for the register over New Year keeps its date and its year.
//! - In each year numbers begin at 1 and rise by one, and no number is given twice or taken back.
//! - Number, date, sender, subject and SHA-256 are written as one, and nothing changes them.
//! - A document's id names it: the same document registered again has the number that it had.
//!
//! # Over HTTP
//! ```text
//! POST <url>
//! Authorization: Bearer <token>
//! Idempotency-Key: <document id>
//! Content-Type: application/json
//!
//! {"document": "0199…", "room": "0199…", "handed_in": "2026-11-25T09:30:00Z", "sender": "Anna Rossi",
//!  "subject": "Delega", "sha256": "64 hex digits", "bytes": 48213, "kind": "pdf"}
//! ```
//! | answer | means |
//! |---|---|
//! | 200 or 201 `{"year": 2026, "number": 42, "entered": "2026-11-25T09:30:01Z"}` | it is registered, now or before |
//! | 400, 409, 413, 415 or 422 `{"reason": "…"}` | the register does not take this document: not asked again |
//! | anything else, or nothing | the register is not there: asked again later, with the same key |
//!
//! The year is that of `handed_in`, the number from 1 on; another answer counts as none, because a number that breaks
//! the contract must not reach a receipt. Redirects are not followed: they would carry personal data elsewhere.

mod day;
mod http;
mod receipt;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use self::day::{DayEntry, DayExport, DayFault, day_export};
pub use self::http::{HttpRegister, HttpRegisterConfig, RegisterClientError, RegisterError};
pub use self::receipt::{Receipt, ReceiptError, receipt};
use crate::id::{DocumentId, RoomId};
use crate::media::DocumentKind;

/// Digits that a number has at least (DPR 445/2000 art. 57).
const DIGITS: usize = 7;

/// A document on its way into the register.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Which document; the register knows it again by this.
    pub document: DocumentId,
    /// The room that it was handed in to.
    pub room: RoomId,
    /// When it was handed in: what its date in the register is.
    pub handed_in: Timestamp,
    /// Who handed it in.
    pub sender: String,
    /// What it is about.
    pub subject: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: DocumentKind,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("document", &self.document)
            .field("room", &self.room)
            .field("handed_in", &self.handed_in)
            .field("sha256", &self.sha256)
            .field("bytes", &self.bytes)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What the register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Of which year.
    pub year: i16,
    /// The number in that year, from 1.
    pub number: u64,
    /// When it was written.
    pub entered: Timestamp,
}

impl Numbered {
    /// As people write it, the year first: `2026/0000042`.
    pub fn protocol(&self) -> String {
        protocol(self.year, self.number)
    }
}

/// An entry of the register. Once made, it never changes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Calendar year of `handed_in` in Europe/Rome.
    pub year: i16,
    /// The number in that year, from 1.
    pub number: u64,
    /// When the document was handed in.
    pub handed_in: Timestamp,
    /// When the entry was written; later than `handed_in` if the register was not there.
    pub entered: Timestamp,
    /// Which document.
    pub document: DocumentId,
    /// The room that it was handed in to.
    pub room: RoomId,
    /// Who handed it in.
    pub sender: String,
    /// What it is about.
    pub subject: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

impl Entry {
    /// The entry of a document that was given a number.
    pub fn new(submission: &Submission, numbered: Numbered) -> Self {
        Self {
            year: numbered.year,
            number: numbered.number,
            handed_in: submission.handed_in,
            entered: numbered.entered,
            document: submission.document,
            room: submission.room,
            sender: submission.sender.clone(),
            subject: submission.subject.clone(),
            sha256: submission.sha256.clone(),
        }
    }

    /// As people write the number, the year first: `2026/0000042`.
    pub fn protocol(&self) -> String {
        protocol(self.year, self.number)
    }

    /// The day that it belongs to in the register: that of its hand-in in Europe/Rome.
    pub fn date(&self) -> Date {
        self.handed_in.to_zoned(rome()).date()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("protocol", &self.protocol())
            .field("handed_in", &self.handed_in)
            .field("entered", &self.entered)
            .field("document", &self.document)
            .field("room", &self.room)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// The year in whose register something is entered that was handed in at `handed_in`: the calendar year in Europe/Rome.
pub fn register_year(handed_in: Timestamp) -> i16 {
    handed_in.to_zoned(rome()).year()
}

/// A number as people write it, the year first: `2026/0000042`.
pub fn protocol(year: i16, number: u64) -> String {
    format!("{year}/{number:0DIGITS$}")
}

/// Italy's time, with its rules of today if this machine has no time zones.
fn rome() -> TimeZone {
    TimeZone::get("Europe/Rome").or_else(|_| TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3")).unwrap_or(TimeZone::UTC)
}
