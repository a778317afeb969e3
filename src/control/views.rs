//! What goes in and what comes out: the shapes of the API's bodies.
//!
//! Times are RFC 3339 in UTC. Names, fiscal codes and telephone numbers are [`Personal`]; codes and tokens are
//! [`Secret`]: both serialise in the clear and print as nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::schemas;
use crate::id::{MessageId, ParticipantId, RoomId};
use crate::room::ledger::Line;
use crate::room::{self, Event, Outcome, Phase, Place, Role};
use crate::store::{Language, Message, MessageState, NewMessage, Personal, RoomRow, Secret};

/// A room to be booked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Booking {
    /// Name of the profile that the room follows.
    #[schema(example = "delega", min_length = 1, max_length = 64)]
    pub profile: String,
    /// Office (sede).
    #[schema(example = "Roma", min_length = 1, max_length = 200)]
    pub office: String,
    /// Counter (sportello).
    #[schema(example = "Deleghe", min_length = 1, max_length = 200)]
    pub counter: String,
    /// Reason of the appointment (motivazione).
    #[schema(example = "Delega dell'identità digitale", min_length = 1, max_length = 500)]
    pub reason: String,
    /// Start of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339; after the start and still ahead, at most 24 hours later.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// The booking system's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "PRN-2026-000123", max_length = 200)]
    pub reference: Option<String>,
    /// Who takes part: one of each role that the profile requires, and any guests.
    #[schema(min_items = 1, max_items = 10)]
    pub participants: Vec<BookingParticipant>,
}

/// One person of a booking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BookingParticipant {
    /// Their role; each but `guest` at most once.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi", min_length = 1, max_length = 200)]
    pub name: Personal,
    /// Fiscal code (codice fiscale): 16 letters and digits, or 11 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "RSSMRA80A41H501W", min_length = 11, max_length = 16)]
    pub fiscal_code: Option<Personal>,
    /// Telephone number for the SMS, international: `+` and 6 to 15 digits; spaces are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "+393331234567", max_length = 32)]
    pub phone: Option<Personal>,
    /// The operator's service number, shown to the others; only for the role `operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "OP-042", max_length = 64)]
    pub operator_number: Option<String>,
    /// Language of the text message with their code; the node's usual one if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

/// A booked room, with what each person needs to get in. Codes and links are told here and never again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Booked {
    /// The room.
    pub room: RoomView,
    /// One per participant, in the booking's order.
    pub participants: Vec<Invitation>,
}

/// How one person gets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
    /// Identifies the person; the code admits. 22 letters, digits, `-` and `_`.
    #[schema(value_type = String, example = "dWqIYlYp0mPBkdJwJSDSIA")]
    pub join_token: Secret,
    /// The address to send to the person.
    #[schema(value_type = String, example = "https://sportello.example/join/dWqIYlYp0mPBkdJwJSDSIA")]
    pub join_url: Secret,
    /// The admission code, digits; for an SMS, not for the channel that carries the link. Left out if this server
    /// sends it by text message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "402913")]
    pub code: Option<Secret>,
    /// Where the text message with the code stands; left out if the code is told here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Delivery>,
}

/// A re-issued admission code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReissuedCode {
    /// The new code, digits; the old one is void. Left out if this server sends it by text message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "719340")]
    pub code: Option<Secret>,
    /// Where the text message with the code stands; left out if the code is told here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Delivery>,
}

/// Where the text message with a person's code stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// How far it is.
    pub state: DeliveryState,
    /// Since when, RFC 3339; `null` while it is queued.
    #[schema(example = "2026-01-12T16:20:07Z")]
    pub at: Option<Timestamp>,
}

/// How far a text message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "sent")]
pub enum DeliveryState {
    /// It is to be handed to the gateway, for the first time or again.
    Queued,
    /// The gateway took it.
    Sent,
    /// It was given up: the code must reach the person another way, or be re-issued.
    Failed,
}

impl Delivery {
    pub(super) const QUEUED: Self = Self { state: DeliveryState::Queued, at: None };

    /// What these messages mean for whose code they carry.
    pub(super) fn of(messages: &[NewMessage]) -> Option<Self> {
        (!messages.is_empty()).then_some(Self::QUEUED)
    }
}

impl From<room::MessageState> for Delivery {
    fn from(state: room::MessageState) -> Self {
        match state {
            room::MessageState::Sent { at } => Self { state: DeliveryState::Sent, at: Some(at) },
            room::MessageState::Failed { at } => Self { state: DeliveryState::Failed, at: Some(at) },
        }
    }
}

/// A page of rooms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomPage {
    /// The rooms, by start.
    pub rooms: Vec<RoomSummary>,
    /// Where the next page begins: pass it as `cursor`; `null`: this is the last page.
    #[schema(example = "MTc2ODI5NDgwMDAwMCAwMTk5YzFjMi03YjFlLTdjYzMtOWE1ZS0wZjRiN2M3ZTJkMTE")]
    pub next_cursor: Option<String>,
}

/// A room in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomSummary {
    /// The room.
    pub id: RoomId,
    /// Name of its profile.
    #[schema(example = "delega")]
    pub profile: String,
    /// Office (sede).
    #[schema(example = "Roma")]
    pub office: String,
    /// Counter (sportello).
    #[schema(example = "Deleghe")]
    pub counter: String,
    /// Reason of the appointment (motivazione).
    #[schema(example = "Delega dell'identità digitale")]
    pub reason: String,
    /// The booking system's own name for it.
    #[schema(example = "PRN-2026-000123")]
    pub reference: Option<String>,
    /// Start of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// Where the room stands.
    pub phase: Phase,
    /// How the meeting ended; `null` until it did.
    pub outcome: Option<Outcome>,
    /// Who is booked, in the booking's order.
    pub participants: Vec<ParticipantSummary>,
}

/// A participant in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantSummary {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
}

impl From<RoomRow> for RoomSummary {
    fn from(row: RoomRow) -> Self {
        let RoomRow { id, profile, office, counter, reason, reference, start, end, phase, outcome, people } = row;
        let people = people.into_iter().map(|(id, role, name)| ParticipantSummary { id, role, name });
        let participants = people.collect();
        Self { id, profile, office, counter, reason, reference, start, end, phase, outcome, participants }
    }
}

/// A slot of the calendar in which a room can be booked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotOffer {
    /// Name of the profile.
    #[schema(example = "delega")]
    pub profile: String,
    /// Office (sede).
    #[schema(example = "Roma")]
    pub office: String,
    /// Counter (sportello).
    #[schema(example = "Deleghe")]
    pub counter: String,
    /// Start, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End, RFC 3339.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// How many more rooms fit, at least 1.
    #[schema(example = 1, minimum = 1)]
    pub places: u32,
}

/// A page of webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookPage {
    /// The webhooks, oldest first.
    pub webhooks: Vec<WebhookView>,
    /// Where the next page begins: pass it as `cursor`; `null`: this is the last page.
    #[schema(example = "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11")]
    pub next_cursor: Option<MessageId>,
}

/// A webhook and how its delivery stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    /// Its id: the header `webhook-id` is `msg_` and this.
    pub id: MessageId,
    /// The room it is about.
    pub room_id: RoomId,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "room.concluded")]
    pub kind: String,
    /// How its delivery stands.
    pub state: MessageState,
    /// Number of attempts so far.
    #[schema(example = 3)]
    pub attempts: u32,
    /// When it was written, RFC 3339.
    #[schema(example = "2026-01-13T09:21:40Z")]
    pub created: Timestamp,
    /// When the next attempt is made, RFC 3339; `null` unless one is to be made.
    #[schema(example = "2026-01-13T09:31:40Z")]
    pub next_attempt: Option<Timestamp>,
    /// When no further attempt is made, RFC 3339.
    #[schema(example = "2026-01-16T09:21:40Z")]
    pub give_up: Timestamp,
    /// What was wrong at the last attempt; `null` if nothing was.
    #[schema(example = "HTTP 503")]
    pub last_error: Option<String>,
    /// The body, as it is sent: see the schema `Webhook`.
    #[schema(schema_with = schemas::payload)]
    pub payload: Value,
}

impl From<Message> for WebhookView {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            room_id: message.room,
            kind: message.subject,
            state: message.state,
            attempts: message.attempts,
            created: message.created,
            next_attempt: (message.state == MessageState::Pending).then_some(message.due),
            give_up: message.give_up,
            last_error: message.last_error,
            // We wrote it ourselves as JSON.
            payload: serde_json::from_slice(&message.body).unwrap_or_default(),
        }
    }
}

/// A room as booking systems and operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomView {
    /// The room.
    pub id: RoomId,
    /// Name of its profile.
    #[schema(example = "delega")]
    pub profile: String,
    /// Office (sede).
    #[schema(example = "Roma")]
    pub office: String,
    /// Counter (sportello).
    #[schema(example = "Deleghe")]
    pub counter: String,
    /// Reason of the appointment (motivazione).
    #[schema(example = "Delega dell'identità digitale")]
    pub reason: String,
    /// The booking system's own name for it.
    #[schema(example = "PRN-2026-000123")]
    pub reference: Option<String>,
    /// Start of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339; admission closes then.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// When admission opens, RFC 3339.
    #[schema(example = "2026-01-13T08:45:00Z")]
    pub opens_at: Timestamp,
    /// Where the room stands.
    pub phase: Phase,
    /// How the meeting ended; `null` until it did.
    pub outcome: Option<Outcome>,
    /// Who is booked, in the booking's order.
    pub participants: Vec<RoomParticipantView>,
    /// Whether the room is recorded.
    pub recording: RecordingState,
    /// Number of the ledger's last line: rises with everything that happens. The `ETag`, for `If-Match`.
    #[schema(example = 17)]
    pub revision: u64,
}

/// A participant as booking systems and operators see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoomParticipantView {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
    /// Where they are.
    pub place: Place,
    /// Whether a media connection stands.
    #[schema(example = true)]
    pub connected: bool,
    /// Since when they have been in the waiting room, RFC 3339; `null` unless they are there.
    #[schema(example = "2026-01-13T08:53:02Z")]
    pub waiting_since: Option<Timestamp>,
    /// On whose device they were attested; `null` unless they were.
    pub attested_beside: Option<ParticipantId>,
    /// How many more wrong codes they may type before theirs is locked.
    #[schema(example = 5)]
    pub attempts_left: u8,
    /// Where the text message with their code stands; `null` if this server did not send it.
    pub message: Option<Delivery>,
}

/// Whether a room is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "on")]
pub enum RecordingState {
    /// Nothing is to be recorded yet, or no more.
    Off,
    /// The room is open; no original has its first write on disk.
    Starting,
    /// Originals are being written.
    On,
    /// The recording broke; nothing is forwarded.
    Lost,
}

/// One line of a room's ledger. Each hash covers the line before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerLine {
    /// Number of the line, from 1.
    #[schema(example = 1)]
    pub seq: u64,
    /// Wall time, RFC 3339.
    #[schema(example = "2026-01-13T08:45:00Z")]
    pub wall: Timestamp,
    /// Monotonic time since the node started, milliseconds; starts anew at each `node_restarted`.
    #[schema(example = 271_828)]
    pub mono_ms: u64,
    /// What happened: an object with a `type` and that type's fields.
    #[schema(schema_with = schemas::event)]
    pub event: Event,
    /// Hash of the line before, hex; zeros in the first line.
    #[schema(example = "0000000000000000000000000000000000000000000000000000000000000000")]
    pub prev: String,
    /// SHA-256 of this line as JSON without this field, hex.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

impl From<Line> for LedgerLine {
    fn from(line: Line) -> Self {
        let Line { seq, wall, mono_ms, event, prev, hash } = line;
        Self { seq, wall, mono_ms, event, prev, hash }
    }
}
