//! The shapes of what is exchanged in a room besides voice and picture, and of an operator's day.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{DocumentId, ParticipantId, RoomId};
use crate::media::DocumentKind;
use crate::room::{self, Outcome, Phase, Place, Role};
use crate::store::{Personal, RoomRow};

/// How far a document is (DOMAIN.md, step 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "received")]
pub enum DocumentProgress {
    /// It was received and not sent to the register.
    Received,
    /// It was sent to the register, which has not answered yet («Protocollazione in corso»).
    Registering,
    /// It has a number («Protocollato»).
    Registered,
    /// The register will not have it.
    Refused,
    /// Who handed it in took it back («Eliminato»).
    Deleted,
}

/// A document that was handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentView {
    /// The document.
    pub id: DocumentId,
    /// Who handed it in.
    pub by: ParticipantId,
    /// Their role.
    pub by_role: Role,
    /// What their device called it: text to show, never a path.
    #[schema(value_type = String, example = "CartaIdentita.pdf")]
    pub name: Personal,
    /// What it is, by its content.
    pub kind: DocumentKind,
    /// Its length, bytes.
    #[schema(example = 181_002)]
    pub bytes: u64,
    /// SHA-256 of its bytes, hex.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub sha256: String,
    /// When it was handed in, by the server's clock, RFC 3339.
    #[schema(example = "2026-01-13T09:07:12Z")]
    pub handed_in: Timestamp,
    /// How far it is.
    pub state: DocumentProgress,
    /// Its number in the register: year and at least seven digits; `null` until it has one.
    #[schema(example = "2026/0000042")]
    pub protocol: Option<String>,
    /// When the room heard of its number, RFC 3339.
    #[schema(example = "2026-01-13T09:08:02Z")]
    pub registered_at: Option<Timestamp>,
}

/// The documents of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentList {
    /// In the order in which they were handed in.
    pub documents: Vec<DocumentView>,
}

/// A written message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChatMessageView {
    /// Its number in the room, from 1.
    #[schema(example = 1)]
    pub number: u64,
    /// Who wrote it.
    pub participant: ParticipantId,
    /// Their name; empty if somebody else has taken their place since.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
    /// Their role; `null` if somebody else has taken their place since.
    pub role: Option<Role>,
    /// When, RFC 3339.
    #[schema(example = "2026-01-13T09:06:30Z")]
    pub at: Timestamp,
    /// What.
    #[schema(value_type = String, example = "Buongiorno")]
    pub text: Personal,
}

/// A part of a room's messages, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChatPage {
    /// At most 200; ask again after the last one's number.
    pub messages: Vec<ChatMessageView>,
}

/// A text in the pages' languages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Texts {
    /// Italian.
    #[schema(example = "Identità verificata")]
    pub it: String,
    /// English.
    #[schema(example = "Identity checked")]
    pub en: String,
    /// German.
    #[schema(example = "Identität geprüft")]
    pub de: String,
}

/// A step of the meeting, for the operator's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its name.
    #[schema(example = "identity")]
    pub id: String,
    /// What it is called.
    pub label: Texts,
    /// When it was ticked off, RFC 3339; `null`: it is not.
    #[schema(example = "2026-01-13T09:04:00Z")]
    pub done_at: Option<Timestamp>,
}

/// Whether the outcome `granted` would be accepted now, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum GrantView {
    /// It would.
    Possible,
    /// Everyone is there, and has not been for long enough.
    NotYet {
        /// From when on it will be, if everyone stays, RFC 3339.
        #[schema(example = "2026-01-13T09:05:11Z")]
        at: Timestamp,
    },
    /// Someone required is missing.
    Presence {
        /// Which roles.
        missing: Vec<Role>,
    },
    /// The recording has a hole, or something that arrives is not recorded.
    Recording,
    /// Media does not flow.
    NotLive,
}

/// What a person's device check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicesView {
    /// Whether the camera gives a picture.
    #[schema(example = true)]
    pub camera: bool,
    /// Whether the microphone hears something.
    #[schema(example = true)]
    pub microphone: bool,
}

impl From<room::Devices> for DevicesView {
    fn from(room::Devices { camera, microphone }: room::Devices) -> Self {
        Self { camera, microphone }
    }
}

/// The appointments of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayView {
    /// The day, in Europe/Rome.
    #[schema(value_type = String, format = Date, example = "2026-01-13")]
    pub date: Date,
    /// By their start; at most 500.
    pub appointments: Vec<DayAppointment>,
}

/// One appointment of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayAppointment {
    /// The room.
    pub room: RoomId,
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
    /// Start, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End, RFC 3339.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// Where the room stands.
    pub phase: Phase,
    /// How the meeting ended; `null` until it did.
    pub outcome: Option<Outcome>,
    /// Who is booked.
    pub participants: Vec<DayParticipant>,
}

/// A person of an appointment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayParticipant {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
    /// Where they are.
    pub place: Place,
    /// Since when they wait, RFC 3339; `null` unless they do.
    #[schema(example = "2026-01-13T08:53:02Z")]
    pub waiting_since: Option<Timestamp>,
    /// Whether a media connection stands.
    #[schema(example = false)]
    pub connected: bool,
    /// What their device check found; `null`: it did not tell.
    pub devices: Option<DevicesView>,
}

impl From<RoomRow> for DayAppointment {
    /// Of a room in which nothing goes on.
    fn from(row: RoomRow) -> Self {
        let people = row.people.into_iter();
        let participants = people.map(|(id, role, name)| DayParticipant {
            id,
            role,
            name,
            place: Place::Expected,
            waiting_since: None,
            connected: false,
            devices: None,
        });
        Self {
            room: row.id,
            profile: row.profile,
            office: row.office,
            counter: row.counter,
            reason: row.reason,
            start: row.start,
            end: row.end,
            phase: row.phase,
            outcome: row.outcome,
            participants: participants.collect(),
        }
    }
}
