//! What the store keeps, in the domain's words.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ChatMessage, Language, NamedDocument, Personal, Registration};
use crate::id::{ConnectionId, DocumentId, KeyId, MessageId, ParticipantId, RoomId};
use crate::recording::Original;
use crate::room::ledger::Line;
use crate::room::{Outcome, Phase, Profile, Role};

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
    /// What the documents are called that were handed in.
    pub documents: Vec<NamedDocument>,
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
    /// Language of their messages; `None`: the node's.
    pub language: Option<Language>,
    /// Hash of the join token.
    pub link: Hash,
    /// Keyed hash of the admission code.
    pub code: Hash,
    /// Hash of the open session's token, if there is one.
    pub session: Option<Hash>,
}

/// A room to be kept, with everything that is written together with it.
#[derive(Clone, Copy)]
pub struct NewRoom<'a> {
    /// The appointment and its people.
    pub appointment: &'a Appointment,
    /// The ledger's first lines.
    pub lines: &'a [Line],
    /// The room's phase after them.
    pub phase: Phase,
    /// When, for the rows.
    pub at: Timestamp,
    /// What goes out with it.
    pub messages: &'a [NewMessage],
    /// The answer to keep for a repeated request.
    pub answer: Option<&'a Answer>,
    /// Says whether there is room, by what is taken at that time; `None`: nobody asks.
    pub fits: Option<Fits<'a>>,
}

/// Whether there is room, by what is taken at that time.
pub type Fits<'a> = &'a (dyn Fn(&[Taken]) -> bool + Sync);

/// What became of a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Booked {
    /// It is kept.
    Now,
    /// The same request was answered before; nothing was done.
    Before(Answer),
    /// There is no room at that time; nothing was done.
    Full,
}

/// The answer to a request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub caller: String,
    /// Their name for the request (`Idempotency-Key`).
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: Hash,
    /// The answer, sealed: it holds codes and links.
    pub sealed: Vec<u8>,
}

/// A time in which a room takes up a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Office (sede).
    pub office: String,
    /// Counter (sportello).
    pub counter: String,
    /// Start of the appointment.
    pub start: Timestamp,
    /// End of the appointment.
    pub end: Timestamp,
}

/// Which rooms to list. What is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct RoomFilter {
    /// Start of the appointment, earliest.
    pub from: Option<Timestamp>,
    /// Start of the appointment, before this.
    pub to: Option<Timestamp>,
    /// Office (sede).
    pub office: Option<String>,
    /// Counter (sportello).
    pub counter: Option<String>,
    /// Name of the profile.
    pub profile: Option<String>,
    /// Phase.
    pub phase: Option<Phase>,
    /// The booking system's own name.
    pub reference: Option<String>,
    /// Only rooms behind this one, by start and id.
    pub after: Option<(Timestamp, RoomId)>,
    /// Most rooms.
    pub limit: u32,
}

/// A room in a list.
#[derive(Clone, Debug)]
pub struct RoomRow {
    /// The room.
    pub id: RoomId,
    /// Name of its profile.
    pub profile: String,
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
    /// Where it stands.
    pub phase: Phase,
    /// How the meeting ended.
    pub outcome: Option<Outcome>,
    /// Who is booked, in the booking's order.
    pub people: Vec<(ParticipantId, Role, Personal)>,
}

/// What is written together: lines of a room's ledger and the rows that belong to them.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The room.
    pub room: RoomId,
    /// What happened, in order; they continue the stored ledger.
    pub lines: &'a [Line],
    /// The room's phase after it.
    pub phase: Phase,
    /// How the meeting ended, if it did.
    pub outcome: Option<Outcome>,
    /// What changes with it.
    pub changes: &'a [Change],
    /// What goes out with it.
    pub messages: &'a [NewMessage],
    /// Says whether the room's new times have room; `None`: nobody asks.
    pub fits: Option<Fits<'a>>,
    /// When, for the rows.
    pub at: Timestamp,
}

/// A row that changes with the ledger.
#[derive(Clone, Debug)]
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
    /// A document was handed in.
    DocumentNamed {
        /// Which.
        document: DocumentId,
        /// What its sender's device called it.
        name: Personal,
    },
    /// A message was written.
    Written(Box<ChatMessage>),
    /// The register is asked for a number.
    RegistrationAsked(Box<Registration>),
    /// Somebody else takes a person's place.
    Replaced {
        /// Whose.
        participant: ParticipantId,
        /// Who takes it.
        by: Box<Person>,
    },
}

/// An API key, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's name for commands.
    pub id: KeyId,
    /// Whose it is, in the words of who made it.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// When it was made.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// What kind of message goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// To the booking system.
    Webhook,
    /// A text message to a person.
    Sms,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "delivered")]
pub enum MessageState {
    /// To be sent, for the first time or again.
    Pending,
    /// It arrived.
    Delivered,
    /// Given up.
    Parked,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Its name, the same at every attempt.
    pub id: MessageId,
    /// What kind.
    pub kind: MessageKind,
    /// The room it is about.
    pub room: RoomId,
    /// The person it is for, if it is a text message.
    pub participant: Option<ParticipantId>,
    /// The event's type, e.g. `room.concluded`; `code` for a text message.
    pub subject: String,
    /// A webhook's JSON, as it is sent; a text message, sealed.
    pub body: Vec<u8>,
    /// When no further attempt is made.
    pub give_up: Timestamp,
}

/// A message, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name, the same at every attempt.
    pub id: MessageId,
    /// What kind.
    pub kind: MessageKind,
    /// The room it is about.
    pub room: RoomId,
    /// The person it is for, if it is a text message.
    pub participant: Option<ParticipantId>,
    /// The event's type, e.g. `room.concluded`; `code` for a text message.
    pub subject: String,
    /// A webhook's JSON; a text message, sealed, and nothing once it is settled.
    pub body: Vec<u8>,
    /// When it was written.
    pub created: Timestamp,
    /// When the next attempt is made.
    pub due: Timestamp,
    /// When no further attempt is made.
    pub give_up: Timestamp,
    /// Attempts that were made.
    pub attempts: u32,
    /// Where it stands.
    pub state: MessageState,
    /// What was wrong at the last attempt, in our own words.
    pub last_error: Option<String>,
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

/// How a text message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledText {
    /// The person it is for.
    pub participant: ParticipantId,
    /// Whether it was sent; otherwise it was given up.
    pub sent: bool,
}
