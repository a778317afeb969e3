//! What participants see: the welcome behind a join link, their session, and what its events tell.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::paper_views::{DevicesView, DocumentView, GrantView, StepView};
use super::views::RecordingState;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::room::{Feature, Outcome, Phase, Place, Role, SuspendReason};
use crate::store::{Hash, Personal, Secret};

/// Recording of a room, as its participants see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingView {
    /// Whether the room is recorded.
    pub state: RecordingState,
    /// Why it is not, when it is `lost`.
    pub fault: Option<RecordingFault>,
    /// Up to when everything that came in is on disk, RFC 3339: a second or less behind the server's time, or the disk
    /// is slow. Told to the operator while the room is recorded; `null` otherwise.
    #[schema(example = "2026-01-13T09:04:59.4Z")]
    pub durable_until: Option<Timestamp>,
}

/// What a join link tells before a code was typed. No names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Welcome {
    /// Name of the room's profile.
    #[schema(example = "delega")]
    pub profile: String,
    /// Office (sede).
    #[schema(example = "Roma")]
    pub office: String,
    /// Counter (sportello).
    #[schema(example = "Deleghe")]
    pub counter: String,
    /// Start of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// When codes begin to be accepted, RFC 3339.
    #[schema(example = "2026-01-13T08:45:00Z")]
    pub opens_at: Timestamp,
    /// When codes stop being accepted, RFC 3339: the end of the appointment, or of the time for missing documents. Whoever
    /// was admitted before it may come back as long as the meeting lasts.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub closes_at: Timestamp,
    /// What a code typed now would come to.
    pub admission: Admission,
    /// Role of the person whose link it is.
    pub role: Role,
    /// Number of digits of the admission code.
    #[schema(example = 6, minimum = 4, maximum = 10)]
    pub code_digits: u8,
}

/// Whether the code of a join link is accepted, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "open")]
pub enum Admission {
    /// Not yet: from `opens_at` on.
    TooEarly,
    /// It admits to the meeting.
    Open,
    /// The meeting is over; it admits to hand in missing documents, until `closes_at`.
    Documents,
    /// Too many wrong codes: a new one is needed.
    Locked,
    /// The time to enter has passed.
    TooLate,
    /// The appointment was cancelled.
    Cancelled,
    /// The operator has ended this person's participation.
    Removed,
    /// The appointment is over.
    Over,
}

/// A session, given for a right code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Bearer token of the person's requests. 43 letters, digits, `-` and `_`.
    #[schema(value_type = String, example = "Z1Q0rN0hV0w2mTq7m3m0b1mYQy1vXb3yq9cQ5m8hV2k")]
    pub session_token: Secret,
    /// The room.
    pub room_id: RoomId,
    /// The person.
    pub participant_id: ParticipantId,
}

/// Who a session token speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The room.
    pub room: RoomId,
    /// The person.
    pub participant: ParticipantId,
    /// Their role.
    pub role: Role,
    /// The session: the latest of the person's, or it is over.
    pub(super) session: Hash,
}

/// An answered media connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub connection: ConnectionId,
    /// The SDP answer; final.
    pub answer: String,
}

/// Everything that a participant's page shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// The appointment.
    pub room: SessionRoom,
    /// The person themselves.
    pub me: Me,
    /// Where the room stands.
    pub phase: Phase,
    /// Where the person is.
    pub place: Place,
    /// Their consent to the recording; `null` until given.
    pub consent: Option<Consent>,
    /// Version of the recording notice to show and to consent to.
    #[schema(example = "2026-01")]
    pub consent_text_version: String,
    /// Whether the operator has opened the room.
    #[schema(example = true)]
    pub opened: bool,
    /// Since when media has flowed without a break, RFC 3339; `null` while it does not.
    #[schema(example = "2026-01-13T09:02:11Z")]
    pub live_since: Option<Timestamp>,
    /// When media flowed for the first time, RFC 3339; `null` until it did. The meeting's timer counts from here.
    #[schema(example = "2026-01-13T09:01:40Z")]
    pub first_live: Option<Timestamp>,
    /// The server's time when this was written, RFC 3339: for timers on clients whose clock is wrong.
    #[schema(example = "2026-01-13T09:05:00Z")]
    pub now: Timestamp,
    /// Who is booked, in the booking's order, the person themselves included.
    pub participants: Vec<ParticipantView>,
    /// Required roles that are missing now.
    pub missing: Vec<Role>,
    /// Whether media flows.
    #[schema(example = true)]
    pub flow: bool,
    /// Whether the room is recorded.
    pub recording: RecordingView,
    /// Why media does not flow any more; `null` unless the phase is `suspended`.
    pub suspended: Option<SuspendReason>,
    /// What is switched on.
    pub features: Vec<Feature>,
    /// How the meeting ended; `null` until it did.
    pub outcome: Option<Outcome>,
    /// Outcomes that the operator may record; empty for the others.
    pub outcomes: Vec<Outcome>,
    /// Until when documents may still be handed in, RFC 3339; `null` without an extension.
    #[schema(example = "2026-01-16T09:30:00Z")]
    pub extension_until: Option<Timestamp>,
    /// The documents that the person may see: their own and the operator's; the operator sees all.
    pub documents: Vec<DocumentView>,
    /// Number of the newest written message: `GET /v1/session/chat?after=` reads them.
    #[schema(example = 3)]
    pub chat_messages: u64,
    /// What the operator goes through; empty for the others.
    pub steps: Vec<StepView>,
    /// Whether `granted` would be accepted; `null` for all but the operator of a room that is open and knows it.
    pub grant: Option<GrantView>,
    /// STUN and TURN servers to use; empty: none are needed.
    pub ice_servers: Vec<IceServer>,
    /// Where a page may ask by STUN whether UDP reaches this node. Not for a connection with media: browsers take whatever
    /// comes from a STUN server for its answers.
    #[serde(default)]
    #[schema(example = json!(["stun:203.0.113.7:40000"]))]
    pub reflectors: Vec<String>,
}

/// The appointment, as its participants see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionRoom {
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
    /// Start of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// The operator's service number.
    #[schema(example = "OP-042")]
    pub operator_number: Option<String>,
}

/// The person whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
}

/// Consent to the recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Consent {
    /// Version of the notice that was shown.
    #[schema(example = "2026-01")]
    pub text_version: String,
    /// When it was given, RFC 3339.
    #[schema(example = "2026-01-13T08:51:40Z")]
    pub at: Timestamp,
}

/// A participant as the others in the room see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantView {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
    /// Fiscal code (codice fiscale), if it was booked with one. Told to the operator, to the person themselves, and to the
    /// parties once they are in the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "RSSMRA80A41H501W")]
    pub fiscal_code: Option<Personal>,
    /// Where they are.
    pub place: Place,
    /// Whether a media connection stands.
    #[schema(example = true)]
    pub connected: bool,
    /// What the server receives from them now.
    pub sources: Vec<Source>,
    /// Pictures of theirs that arrive and cannot be recorded, because no keyframe comes however often it is asked for.
    /// Told to the operator and to the person themselves.
    pub not_recorded: Vec<Source>,
    /// Since when they have been in the waiting room, RFC 3339; `null` unless they are there.
    #[schema(example = "2026-01-13T08:53:02Z")]
    pub waiting_since: Option<Timestamp>,
    /// On whose device they were attested; `null` unless they were.
    pub attested_beside: Option<ParticipantId>,
    /// What their device check found, if it told. Told to the operator.
    pub devices: Option<DevicesView>,
}

/// A STUN or TURN server, as `RTCPeerConnection` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IceServer {
    /// Its addresses.
    #[schema(example = json!(["turn:turn.sportello.example:3478?transport=udp"]))]
    pub urls: Vec<String>,
    /// User name, with its expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1768294800:0199c1c2")]
    pub username: Option<String>,
    /// Password that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "c2VjcmV0")]
    pub credential: Option<Secret>,
}

/// One message of a subscription, as the WebSocket carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionMessage {
    /// Number of the message: rises by one within a subscription, from 1.
    #[schema(example = 1)]
    pub id: u64,
    /// What is told.
    #[serde(flatten)]
    pub event: SessionEvent,
}

/// What a participant's page is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SessionEvent {
    /// Everything, as it is now. The first message, and after every change.
    Session {
        /// The view.
        session: Box<SessionView>,
    },
    /// What this connection's slots show now: the complete list each time.
    Slots {
        /// The receiving connection.
        connection: ConnectionId,
        /// Its used slots.
        slots: Vec<SlotView>,
    },
}

/// One receive-only m-line and what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotView {
    /// The m-line's `mid` in the receiver's SDP.
    #[schema(example = "3")]
    pub mid: String,
    /// Whose media.
    pub participant_id: ParticipantId,
    /// Which source.
    pub source: Source,
}
