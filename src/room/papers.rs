//! What is exchanged in a room besides voice and picture: documents, written messages, and the steps that the operator
//! ticks off (DOMAIN.md, steps 7 to 9).

use jiff::Timestamp;

use super::decide::Draft;
use super::state::{Room, State};
use super::{Event, Feature, Phase, Place, Refusal, Role};
use crate::id::{DocumentId, ParticipantId};
use crate::media::DocumentKind;

/// Documents that are there at once in one room. More: a room may fill the disk with files of 3 MB.
pub const MOST_DOCUMENTS: usize = 50;
/// Written messages of one room.
pub const MOST_MESSAGES: u64 = 1_000;

/// A document that was handed in, as the ledger tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name in the ledger.
    pub id: DocumentId,
    /// Who handed it in.
    pub by: ParticipantId,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: DocumentKind,
    /// When it was handed in, by the server's clock.
    pub handed_in: Timestamp,
    /// How far it is.
    pub state: DocumentState,
}

/// How far a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentState {
    /// It was received.
    Received,
    /// The register was asked for a number.
    Registering,
    /// It stands in the register.
    Registered {
        /// The register's year.
        year: i16,
        /// Its number in that year.
        number: u64,
        /// When the room heard of it.
        at: Timestamp,
    },
    /// The register will not have it.
    Refused,
    /// Who handed it in took it back; its bytes are gone.
    Deleted,
}

/// What the device check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Whether the camera gives a picture.
    pub camera: bool,
    /// Whether the microphone hears something.
    pub microphone: bool,
}

impl Room {
    /// Every document that was handed in, those that were deleted included, in that order.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// One document.
    pub fn document(&self, id: DocumentId) -> Option<&Document> {
        self.documents.iter().find(|document| document.id == id)
    }

    /// The same bytes from the same person, if they are there.
    pub fn same_document(&self, by: ParticipantId, sha256: &str) -> Option<&Document> {
        let is_there = |document: &&Document| document.state != DocumentState::Deleted;
        self.documents.iter().filter(is_there).find(|document| document.by == by && document.sha256 == sha256)
    }

    /// Who may see a document: the operator every one, the others theirs and the operator's.
    pub fn may_see(&self, who: ParticipantId, document: &Document) -> bool {
        let is_operators = |id| self.person(id).is_some_and(|person| person.role() == Role::Operator);
        document.by == who || is_operators(who) || is_operators(document.by)
    }

    /// Whether this person may hand a document in now. Asked before its bytes are read, and decided again when it is
    /// handed in.
    pub fn may_hand_in(&self, wall: Timestamp, participant: ParticipantId) -> Result<(), Refusal> {
        self.may_exchange(wall, participant)?;
        let there = self.documents.iter().filter(|document| document.state != DocumentState::Deleted).count();
        if there >= MOST_DOCUMENTS { Err(Refusal::TooManyDocuments(MOST_DOCUMENTS)) } else { Ok(()) }
    }

    /// Whether documents go to and fro for this person: in the room while the operator has switched them on (for the
    /// operator always), and after the meeting while it is extended.
    fn may_exchange(&self, wall: Timestamp, participant: ParticipantId) -> Result<(), Refusal> {
        let person = self.person(participant).ok_or(Refusal::UnknownParticipant)?;
        match (&self.state, person.place()) {
            (_, Place::Removed) => Err(Refusal::Removed),
            (State::Open(_), Place::Inside) => {
                let on = person.role() == Role::Operator || self.features.contains(&Feature::Documents);
                if on { Ok(()) } else { Err(Refusal::DocumentsOff) }
            }
            (State::Open(_) | State::Waiting, _) => Err(Refusal::NotInside),
            (State::Extended { until, .. }, _) if wall >= *until => Err(Refusal::WrongPhase(Phase::Closed)),
            (State::Extended { .. }, _) if person.is_admitted() => Ok(()),
            (State::Extended { .. }, _) => Err(Refusal::NotAdmitted),
            _ => Err(Refusal::WrongPhase(self.phase())),
        }
    }

    /// Whether this person may write a message now.
    pub fn may_write(&self, participant: ParticipantId) -> Result<(), Refusal> {
        let person = self.person(participant).ok_or(Refusal::UnknownParticipant)?;
        if !self.is_open() {
            return Err(Refusal::WrongPhase(self.phase()));
        }
        if person.place() != Place::Inside {
            return Err(Refusal::NotInside);
        }
        if !self.features.contains(&Feature::Chat) {
            return Err(Refusal::ChatOff);
        }
        if self.messages >= MOST_MESSAGES { Err(Refusal::TooManyMessages(MOST_MESSAGES)) } else { Ok(()) }
    }

    /// Number of the newest written message; 0: there is none.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// When the operator ticked a step off; `None`: it is not.
    pub fn step_done(&self, step: &str) -> Option<Timestamp> {
        self.steps.get(step).copied()
    }

    /// Takes in an event of this file's subject.
    pub(super) fn apply_paper(&mut self, event: &Event, wall: Timestamp) {
        match event {
            Event::DocumentHandedIn { document, participant, sha256, bytes, kind } => self.documents.push(Document {
                id: *document,
                by: *participant,
                sha256: sha256.clone(),
                bytes: *bytes,
                kind: *kind,
                handed_in: wall,
                state: DocumentState::Received,
            }),
            Event::DocumentDeleted { document, .. } => self.set_document(*document, DocumentState::Deleted),
            Event::RegistrationAsked { document } => self.set_document(*document, DocumentState::Registering),
            Event::RegistrationRefused { document } => self.set_document(*document, DocumentState::Refused),
            Event::DocumentRegistered { document, year, number } => {
                self.set_document(*document, DocumentState::Registered { year: *year, number: *number, at: wall });
            }
            Event::ChatSent { message, .. } => self.messages = *message,
            Event::StepTicked { step, done: true } => {
                self.steps.insert(step.clone(), wall);
            }
            Event::StepTicked { step, done: false } => {
                self.steps.remove(step);
            }
            _ => {}
        }
    }

    fn set_document(&mut self, id: DocumentId, state: DocumentState) {
        if let Some(document) = self.documents.iter_mut().find(|document| document.id == id) {
            document.state = state;
        }
    }
}

impl Draft<'_> {
    pub(super) fn hand_in(
        &mut self,
        document: DocumentId,
        participant: ParticipantId,
        sha256: String,
        bytes: u64,
        kind: DocumentKind,
    ) -> Result<(), Refusal> {
        self.room.may_hand_in(self.now.wall, participant)?;
        // Sent again, e.g. because the first answer was lost: it is there once.
        if self.room.same_document(participant, &sha256).is_none() {
            self.emit(Event::DocumentHandedIn { document, participant, sha256, bytes, kind });
        }
        Ok(())
    }

    pub(super) fn delete_document(&mut self, document: DocumentId, participant: ParticipantId) -> Result<(), Refusal> {
        self.room.may_exchange(self.now.wall, participant)?;
        let found = self.room.document(document).filter(|document| document.by == participant);
        match found.ok_or(Refusal::UnknownDocument)?.state {
            DocumentState::Deleted => Ok(()),
            DocumentState::Registering | DocumentState::Registered { .. } => Err(Refusal::DocumentRegistered),
            DocumentState::Received | DocumentState::Refused => {
                self.emit(Event::DocumentDeleted { document, participant });
                Ok(())
            }
        }
    }

    pub(super) fn ask_registration(&mut self, document: DocumentId) -> Result<(), Refusal> {
        match self.room.state {
            State::Open(_) | State::Concluded { .. } | State::Extended { .. } | State::Closed { .. } => {}
            _ => return Err(Refusal::WrongPhase(self.room.phase())),
        }
        match self.room.document(document).ok_or(Refusal::UnknownDocument)?.state {
            DocumentState::Received | DocumentState::Refused => self.emit(Event::RegistrationAsked { document }),
            DocumentState::Registering | DocumentState::Registered { .. } => {}
            DocumentState::Deleted => return Err(Refusal::DocumentDeleted),
        }
        Ok(())
    }

    /// What the register says, whenever it says it: also when the room is closed.
    pub(super) fn registered(&mut self, document: DocumentId, entry: Option<(i16, u64)>) -> Result<(), Refusal> {
        let found = self.room.document(document).ok_or(Refusal::UnknownDocument)?;
        if found.state == DocumentState::Registering {
            self.emit(match entry {
                Some((year, number)) => Event::DocumentRegistered { document, year, number },
                None => Event::RegistrationRefused { document },
            });
        }
        Ok(())
    }

    pub(super) fn write(&mut self, participant: ParticipantId, sha256: String) -> Result<(), Refusal> {
        self.room.may_write(participant)?;
        let message = self.room.messages + 1;
        self.emit(Event::ChatSent { participant, message, sha256 });
        Ok(())
    }

    pub(super) fn tick(&mut self, step: String, done: bool) -> Result<(), Refusal> {
        self.room.meeting()?;
        if !self.room.profile.steps.iter().any(|known| known.id == step) {
            return Err(Refusal::UnknownStep);
        }
        if self.room.steps.contains_key(&step) != done {
            self.emit(Event::StepTicked { step, done });
        }
        Ok(())
    }

    pub(super) fn devices_checked(&mut self, participant: ParticipantId, devices: Devices) -> Result<(), Refusal> {
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        if !person.is_admitted() {
            return Err(Refusal::NotAdmitted);
        }
        if person.devices != Some(devices) {
            let Devices { camera, microphone } = devices;
            self.emit(Event::DevicesChecked { participant, camera, microphone });
        }
        Ok(())
    }

    /// The room's operator comes in by their own key, which says more than a code.
    pub(super) fn take_seat(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        self.in_window()?;
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        match person.place() {
            Place::Removed => return Err(Refusal::Removed),
            _ if person.role() != Role::Operator => return Err(Refusal::UnknownParticipant),
            // Also who is in already: it is a new session, on another device.
            _ => self.emit(Event::SeatTaken { participant }),
        }
        Ok(())
    }
}
