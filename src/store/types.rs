//! What the store keeps, in the domain's words.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Personal;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::recording::Original;
use crate::room::{Entry, Phase, Profile, Role};

/// What a caller with an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "booking")]
pub enum Scope {
    /// Book, move and cancel rooms, re-issue codes.
    Booking,
    /// Run the meetings.
    Operator,
    /// Find and verify recordings.
    Compliance,
    /// Read the metrics.
    Metrics,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Booking, Self::Operator, Self::Compliance, Self::Metrics];

    /// The scope's name, as in the keys that carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Booking => "booking",
            Self::Operator => "operator",
            Self::Compliance => "compliance",
            Self::Metrics => "metrics",
        }
    }
}

/// A SHA-256 or HMAC-SHA256 value: what is stored in the place of a token or a code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// SHA-256 of a token. The tokens are random and long: neither salt nor slowness would add anything.
    pub fn of_token(token: &str) -> Self {
        let digest = digest(&SHA256, token.as_bytes());
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// A hash by its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The thirty-two bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Hash {
    /// Not in the clear: the hash of a token is enough to find its row.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

/// A booked room: what does not follow from its ledger.
#[derive(Clone, Debug)]
pub struct Appointment {
    /// The room.
    pub id: RoomId,
    /// Its profile, as it was at booking.
    pub profile: Profile,
    /// Office (sede).
    pub office: String,
    /// Counter (sportello).
    pub counter: String,
    /// Reason of the appointment (motivazione).
    pub reason: String,
    /// The booking system's own name for it.
    pub reference: Option<String>,
    /// Start of the appointment.
    pub start: Timestamp,
    /// End of the appointment.
    pub end: Timestamp,
    /// Who is booked, in the booking's order.
    pub people: Vec<Person>,
}

/// One booked person.
#[derive(Clone, Debug)]
pub struct Person {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    pub name: Personal,
    /// Fiscal code (codice fiscale).
    pub fiscal_code: Option<Personal>,
    /// Telephone number, `+` and digits.
    pub phone: Option<Personal>,
    /// Service number of an operator.
    pub operator_number: Option<String>,
    /// Hash of the join token.
    pub link: Hash,
    /// Keyed hash of the admission code.
    pub code: Hash,
    /// Hash of the open session's token, if there is one.
    pub session: Option<Hash>,
}

/// What is written together: entries of a room's ledger and the rows that belong to them.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The room.
    pub room: RoomId,
    /// What happened, in order.
    pub entries: &'a [Entry],
    /// The room's phase after it.
    pub phase: Phase,
    /// What changes with it.
    pub changes: &'a [Change],
    /// When, for the rows.
    pub at: Timestamp,
}

/// A row that changes with the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The appointment is moved.
    Times {
        /// New start.
        start: Timestamp,
        /// New end.
        end: Timestamp,
    },
    /// A new admission code.
    Code {
        /// Whose.
        participant: ParticipantId,
        /// Its keyed hash.
        code: Hash,
    },
    /// A new session in the place of any earlier one of the same person.
    SessionStarted {
        /// Whose.
        participant: ParticipantId,
        /// Hash of its token.
        token: Hash,
    },
    /// The person's session is over.
    SessionEnded {
        /// Whose.
        participant: ParticipantId,
    },
}

/// Who a session or a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The room.
    pub room: RoomId,
    /// The person.
    pub participant: ParticipantId,
    /// Their role.
    pub role: Role,
}

/// A finished original, with whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOriginal {
    /// Over which connection it came.
    pub connection: ConnectionId,
    /// Whose media it is.
    pub participant: ParticipantId,
    /// What the recorder said of it.
    pub original: Original,
}
