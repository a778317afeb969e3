//! What can be asked of a room, and how it says no.

use jiff::Timestamp;

use super::{Devices, Event, Feature, Outcome, Phase, Role};
use crate::clock::MonoTime;
use crate::id::{ConnectionId, DocumentId, ParticipantId};
use crate::media::{DocumentKind, RecordingFault, Source};

/// One thing that someone asks, that the media worker or the recorder saw, or that time brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A code was typed. The caller first asks `may_try_code`, then compares, then tells which.
    TryCode {
        /// Whose link it was typed at.
        participant: ParticipantId,
        /// Whether it was theirs.
        right: bool,
    },
    /// A new code takes the old one's place and unlocks.
    ReissueCode {
        /// Whose code.
        participant: ParticipantId,
    },
    /// The gateway took the message with the code.
    MessageSent {
        /// Whose code.
        participant: ParticipantId,
    },
    /// The message with the code could not be delivered, and is not tried again.
    MessageFailed {
        /// Whose code.
        participant: ParticipantId,
    },
    /// The recording notice was read and agreed to.
    Consent {
        /// Who agreed.
        participant: ParticipantId,
        /// Version of the text that was shown.
        text_version: String,
    },
    /// «Entra nella stanza»: the devices are checked, the person waits to be let in.
    EnterWaiting {
        /// Who enters.
        participant: ParticipantId,
    },
    /// What the device check found.
    DevicesChecked {
        /// Whose devices.
        participant: ParticipantId,
        /// What was found.
        devices: Devices,
    },
    /// The operator comes in with a key of their own instead of a code.
    TakeSeat {
        /// The operator.
        participant: ParticipantId,
    },
    /// A document is handed in: it was checked, and its bytes are kept.
    HandIn {
        /// Its name.
        document: DocumentId,
        /// Who hands it in.
        participant: ParticipantId,
        /// SHA-256 of its bytes, hex.
        sha256: String,
        /// Its length.
        bytes: u64,
        /// What it is.
        kind: DocumentKind,
    },
    /// A document is taken back.
    DeleteDocument {
        /// Which.
        document: DocumentId,
        /// Who takes it back.
        participant: ParticipantId,
    },
    /// The operator sends a document to the register.
    AskRegistration {
        /// Which.
        document: DocumentId,
    },
    /// The register has answered.
    Registered {
        /// Which document.
        document: DocumentId,
        /// Year and number; `None`: it will not have it.
        entry: Option<(i16, u64)>,
    },
    /// A message is written.
    Write {
        /// By whom.
        participant: ParticipantId,
        /// SHA-256 of its text, hex.
        sha256: String,
    },
    /// The operator ticks a step off, or takes the tick back.
    TickStep {
        /// Which.
        step: String,
        /// Whether it is done.
        done: bool,
    },
    /// The person leaves of their own will; they may come back with their session.
    Leave {
        /// Who leaves.
        participant: ParticipantId,
    },
    /// The operator opens the room (and is in it).
    Open,
    /// The operator lets a waiting person in.
    Admit {
        /// Who is let in.
        participant: ParticipantId,
    },
    /// The operator sends someone back to the waiting room.
    SendBack {
        /// Who is sent back.
        participant: ParticipantId,
    },
    /// The operator removes someone for good: their session ends.
    Remove {
        /// Who is removed.
        participant: ParticipantId,
    },
    /// The operator attests that `participant` sits beside `beside` on one device.
    Attest {
        /// Who has no device of their own.
        participant: ParticipantId,
        /// Whose device shows both.
        beside: ParticipantId,
    },
    /// The operator takes the attestation back.
    WithdrawAttestation {
        /// Who was attested.
        participant: ParticipantId,
    },
    /// The operator switches a feature.
    SetFeature {
        /// Which.
        feature: Feature,
        /// On or off.
        on: bool,
    },
    /// The operator records the outcome.
    Conclude {
        /// How it ended.
        outcome: Outcome,
        /// Hours in which documents may still be handed in; 0: none.
        extension_hours: u16,
    },
    /// The operator gives more time for documents.
    Extend {
        /// Hours in which documents may be handed in, counted from the conclusion.
        hours: u16,
    },
    /// Another person takes a booked one's role.
    Replace {
        /// Who was booked.
        participant: ParticipantId,
        /// Who comes in their place.
        by: ParticipantId,
    },
    /// The booking is withdrawn.
    Cancel,
    /// The booking is moved.
    Reschedule {
        /// New start.
        start: Timestamp,
        /// New end.
        end: Timestamp,
    },
    /// A media connection stands (ICE and DTLS done).
    Connected {
        /// Whose.
        participant: ParticipantId,
        /// Which.
        connection: ConnectionId,
    },
    /// A media connection is gone.
    Disconnected {
        /// Which.
        connection: ConnectionId,
        /// When its last packet came.
        last_seen: MonoTime,
    },
    /// A source of a connection began to send, or fell silent.
    SourceChanged {
        /// Over which connection.
        connection: ConnectionId,
        /// Which source.
        source: Source,
        /// Whether media arrives.
        active: bool,
        /// Since when: its first packet if it began, its last if it fell silent.
        since: MonoTime,
    },
    /// The first write of a connection's original is on disk. May overtake [`Command::Connected`]: it comes from
    /// the recorder, that one from the worker.
    RecordingStarted {
        /// Whose.
        participant: ParticipantId,
        /// Whose media it is.
        connection: ConnectionId,
    },
    /// The room is not recorded whole any more.
    RecordingLost {
        /// Why.
        reason: RecordingFault,
    },
    /// The recorder writes again, into new files.
    RecordingResumed,
    /// A picture arrives and nothing of it can be recorded, because no keyframe comes.
    PictureMissing {
        /// Over which connection.
        connection: ConnectionId,
        /// Which source.
        source: Source,
        /// Since when.
        since: MonoTime,
    },
    /// It is recorded again, or does not arrive any more.
    PictureBack {
        /// Over which connection.
        connection: ConnectionId,
        /// Which source.
        source: Source,
    },
    /// An original was found unfinished when the node came up, and was cut to its last whole cluster.
    RecordingRecovered {
        /// Whose.
        participant: ParticipantId,
        /// Whose media it is.
        connection: ConnectionId,
        /// Its file's name.
        file: String,
        /// How far it goes, in milliseconds from its beginning.
        until_ms: u64,
        /// Bytes that were cut off and kept beside it.
        tail_bytes: u64,
    },
    /// The node came up again; every connection is gone.
    Restarted,
    /// The wall clock went another way than the monotonic one.
    WallClockSet {
        /// By how many milliseconds it was set forward.
        by_ms: i64,
    },
    /// A deadline may have passed.
    Tick,
}

/// When a room must be asked again, on either clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline {
    /// A grace or the longest absence runs out.
    pub mono: Option<MonoTime>,
    /// The admission window opens or closes, or the document extension ends.
    pub wall: Option<Timestamp>,
}

/// What the world must be made to do after a command; each is safe to carry out twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Forward media between everyone inside.
    StartFlow,
    /// Forward nothing.
    StopFlow,
    /// End this person's media connection.
    Disconnect(ParticipantId),
    /// End this person's session.
    EndSession(ParticipantId),
    /// The meeting is over: end all media, finish the originals.
    CloseMedia,
}

/// What follows from a command. Nothing has happened yet: the caller persists the events, applies them to the room
/// ([`Room::apply`](super::Room::apply)), carries out the effects, and answers last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What happened, in this order. A refused command may have events too: a wrong code counts an attempt, and
    /// what had become due before the command is carried out first.
    pub events: Vec<Event>,
    /// What the world must be made to do, in this order, once the events are stored.
    pub effects: Vec<Effect>,
    /// Why the command itself was not accepted; `None`: it was.
    pub refusal: Option<Refusal>,
}

/// Why a command was not accepted. It changed nothing, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such person in this room.
    #[error("there is no such participant in this room")]
    UnknownParticipant,
    /// The room's phase does not allow it.
    #[error("not possible while the room is {0}")]
    WrongPhase(Phase),
    /// The admission window is not open yet.
    #[error("too early: admission opens at {0}")]
    TooEarly(Timestamp),
    /// The admission window is closed.
    #[error("too late: admission closed at {0}")]
    TooLate(Timestamp),
    /// The code is wrong; so many attempts are left. The attempt is counted.
    #[error("wrong code, {0} attempts left")]
    WrongCode(u8),
    /// Too many wrong codes: a new one must be issued.
    #[error("the code is locked, a new one must be issued")]
    CodeLocked,
    /// The person was removed by the operator.
    #[error("removed from the room")]
    Removed,
    /// The code comes first.
    #[error("the admission code comes first")]
    NotAdmitted,
    /// Consent to the recording comes first.
    #[error("consent to the recording comes first")]
    NoConsent,
    /// Only someone in the waiting room can be let in.
    #[error("not in the waiting room")]
    NotWaiting,
    /// The operator has not let this person in.
    #[error("not let into the room")]
    NotInside,
    /// The operator opens the room first.
    #[error("the room is not open")]
    NotOpen,
    /// The profile does not know this outcome.
    #[error("the profile does not allow this outcome")]
    OutcomeNotAllowed,
    /// `granted` needs the presence rule to hold now.
    #[error("the presence rule does not hold: {} missing", names(.0))]
    PresenceMissing(Vec<Role>),
    /// `granted` needs longer unbroken presence.
    #[error("the presence rule must hold {0} more seconds")]
    PresenceTooShort(u64),
    /// `granted` needs a recording without a hole.
    #[error("the recording has a hole")]
    RecordingIncomplete,
    /// More hours than the profile allows.
    #[error("the extension is longer than {0} hours")]
    ExtensionTooLong(u16),
    /// The extension lasts at least as long already: it is only made longer.
    #[error("the extension already lasts until {0}")]
    ExtensionNotLonger(Timestamp),
    /// Someone in the room is not replaced: they are sent back or removed first.
    #[error("still in the room: send them back or remove them first")]
    StillInside,
    /// Whoever is to come in another's place is booked already.
    #[error("the new participant is already booked into this room")]
    AlreadyBooked,
    /// An attestation names someone who cannot be attested, or a device that is not in the room.
    #[error("cannot attest: {0}")]
    CannotAttest(&'static str),
    /// The operator has not switched documents on.
    #[error("the operator has not switched documents on")]
    DocumentsOff,
    /// The operator has not switched the chat on.
    #[error("the operator has not switched the chat on")]
    ChatOff,
    /// So many documents are there already.
    #[error("at most {0} documents in a room: delete one first")]
    TooManyDocuments(usize),
    /// So many messages were written already.
    #[error("at most {0} messages in a room")]
    TooManyMessages(u64),
    /// No such document, or none of this person's.
    #[error("there is no such document")]
    UnknownDocument,
    /// What was sent to the register stays.
    #[error("the document was sent to the register and stays")]
    DocumentRegistered,
    /// It was taken back.
    #[error("the document was deleted")]
    DocumentDeleted,
    /// The profile has no such step.
    #[error("the profile has no such step")]
    UnknownStep,
    /// The new times make no sense.
    #[error("the end must come after the start, and the start lie ahead")]
    BadTimes,
}

/// Roles as people read them, one after the other.
fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")
}
