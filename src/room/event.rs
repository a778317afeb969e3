//! What happened: the entries of a room's ledger.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Feature, Outcome, Role};
use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, DocumentId, ParticipantId, RoomId};
use crate::media::{DocumentKind, RecordingFault, Source};

/// One event with the time it happened at, on both clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Monotonic time of the node's run; comparable up to the next [`Event::NodeRestarted`].
    pub mono: MonoTime,
    /// Wall time.
    pub wall: Timestamp,
    /// What happened.
    pub event: Event,
}

impl Entry {
    /// `event` as it happens at `now`. Both times are cut to whole milliseconds, which is what the ledger keeps: a
    /// room replayed from it is then equal to the room that lived.
    pub fn at(now: Now, event: Event) -> Self {
        let now = whole_millis(now);
        Self { mono: now.mono, wall: now.wall, event }
    }
}

/// Both clocks without what is finer than the ledger.
pub(super) fn whole_millis(now: Now) -> Now {
    Now {
        mono: MonoTime::from_millis(now.mono.as_millis()),
        wall: Timestamp::from_millisecond(now.wall.as_millisecond()).unwrap_or(now.wall),
    }
}

/// What can happen in a room. Personal data stays out: people appear by id and role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each field is the subject of its event and named after its type")]
pub enum Event {
    /// The room was booked. First entry of every ledger.
    Booked { room: RoomId, profile: String, start: Timestamp, end: Timestamp, participants: Vec<(ParticipantId, Role)> },
    /// The booking was moved.
    Rescheduled { start: Timestamp, end: Timestamp },
    /// The booking was withdrawn.
    Cancelled,
    /// The admission window opened.
    AdmissionOpened,
    /// Nobody opened the room in its window.
    Expired,
    /// A wrong code was typed.
    CodeRejected { participant: ParticipantId, attempts_left: u8 },
    /// The right code was typed.
    CodeAccepted { participant: ParticipantId },
    /// A new code was issued.
    CodeReissued { participant: ParticipantId },
    /// The gateway took the message with the code.
    CodeSent { participant: ParticipantId },
    /// The message with the code could not be delivered.
    CodeNotSent { participant: ParticipantId },
    /// The recording notice was agreed to.
    ConsentGiven { participant: ParticipantId, text_version: String },
    /// The person waits to be let in.
    EnteredWaiting { participant: ParticipantId },
    /// The operator opened the room.
    Opened,
    /// The operator let the person in.
    LetIn { participant: ParticipantId },
    /// The operator sent the person back to the waiting room.
    SentBack { participant: ParticipantId },
    /// The person left.
    Left { participant: ParticipantId },
    /// The operator removed the person.
    Removed { participant: ParticipantId },
    /// Another person, `by`, took the booked one's role and place in the list.
    Replaced { participant: ParticipantId, by: ParticipantId },
    /// A media connection stands.
    Connected { participant: ParticipantId, connection: ConnectionId },
    /// A media connection is gone; `silent_ms`: how long before this entry its last packet came.
    Disconnected { participant: ParticipantId, connection: ConnectionId, silent_ms: u64 },
    /// A source began to send; `ago_ms`: how long before this entry.
    SourceStarted { participant: ParticipantId, connection: ConnectionId, source: Source, ago_ms: u64 },
    /// A source fell silent; `ago_ms`: how long before this entry its last packet came.
    SourceStopped { participant: ParticipantId, connection: ConnectionId, source: Source, ago_ms: u64 },
    /// A shared device was attested.
    Attested { participant: ParticipantId, beside: ParticipantId },
    /// The attestation was taken back, or its device was gone for longer than the grace.
    AttestationWithdrawn { participant: ParticipantId },
    /// A connection's original has its first write on disk.
    RecordingStarted { participant: ParticipantId, connection: ConnectionId },
    /// The room is not recorded whole any more.
    RecordingLost { reason: RecordingFault },
    /// It is recorded again, in new files.
    RecordingResumed,
    /// A picture arrives and nothing of it can be recorded, because no keyframe comes; `ago_ms`: since how long before
    /// this entry.
    PictureMissing { participant: ParticipantId, connection: ConnectionId, source: Source, ago_ms: u64 },
    /// It is recorded again, or does not arrive any more.
    PictureBack { participant: ParticipantId, connection: ConnectionId, source: Source },
    /// An original that a crash left unfinished was cut to its last whole cluster: it goes on for `until_ms` from its
    /// beginning, and the `tail_bytes` after that are kept beside it.
    RecordingRecovered {
        participant: ParticipantId,
        connection: ConnectionId,
        file: String,
        until_ms: u64,
        tail_bytes: u64,
    },
    /// A feature was switched.
    FeatureSet { feature: Feature, on: bool },
    /// The operator took their seat with a key of their own instead of a code.
    SeatTaken { participant: ParticipantId },
    /// What the person's device check found.
    DevicesChecked { participant: ParticipantId, camera: bool, microphone: bool },
    /// A document was handed in, and declared to conform to its original.
    DocumentHandedIn {
        document: DocumentId,
        participant: ParticipantId,
        sha256: String,
        bytes: u64,
        kind: DocumentKind,
    },
    /// Who handed it in took it back; its bytes are gone.
    DocumentDeleted { document: DocumentId, participant: ParticipantId },
    /// The operator sent it to the register.
    RegistrationAsked { document: DocumentId },
    /// The register gave it a number.
    DocumentRegistered { document: DocumentId, year: i16, number: u64 },
    /// The register will not have it.
    RegistrationRefused { document: DocumentId },
    /// A message was written; `sha256` is that of its text, which is kept apart.
    ChatSent { participant: ParticipantId, message: u64, sha256: String },
    /// The operator ticked a step of the profile off, or took the tick back.
    StepTicked { step: String, done: bool },
    /// Every required role is present. Opens a presence interval; `ago_ms`: how long before this entry.
    PresenceHeld { ago_ms: u64 },
    /// Someone required is missing. Closes the presence interval; `ago_ms`: how long before this entry.
    PresenceBroken { missing: Vec<Role>, ago_ms: u64 },
    /// Media flows.
    WentLive,
    /// Media stopped.
    Suspended { reason: SuspendReason },
    /// The meeting is over.
    Concluded { outcome: Outcome, by_operator: bool, extension_hours: u16 },
    /// Documents may be handed in for longer.
    Extended { until: Timestamp },
    /// The document extension, or the room, is over.
    Closed,
    /// The node came up again: all connections are gone and the monotonic clock starts anew. Not written while the
    /// room is only scheduled, or over: nothing in it then hangs on that clock.
    NodeRestarted,
    /// The wall clock was set by so many milliseconds, back if they are negative: the times that people read jump here,
    /// those of media and presence do not.
    WallClockSet { by_ms: i64 },
}

/// Why a room that was live is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum SuspendReason {
    /// Someone required is missing past the grace.
    Absence {
        /// Which roles.
        missing: Vec<Role>,
    },
    /// The recording broke.
    Recording {
        /// How.
        reason: RecordingFault,
    },
}
