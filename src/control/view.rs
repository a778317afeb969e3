//! How a room looks to whom: the booking system, the holder of a link, a participant.

use std::net::SocketAddr;

use jiff::Timestamp;

use super::Error;
use super::paper_views::{
    ChatMessageView, DayAppointment, DayParticipant, DevicesView, DocumentProgress, DocumentView, GrantView, StepView,
    Texts,
};
use super::session_views::{Admission, Consent, Me, ParticipantView, RecordingView, SessionRoom, SessionView, Welcome};
use super::views::{Delivery, RecordingState, RoomParticipantView, RoomView};
use crate::clock::Now;
use crate::id::{DocumentId, ParticipantId};
use crate::media::DocumentKind;
use crate::register::protocol;
use crate::room::{self, DocumentState, Outcome, Phase, Place, Recording, Refusal, Role, Room};
use crate::store::{Appointment, ChatMessage, Person, Personal};

/// A room at one moment.
pub(super) struct View<'a> {
    pub(super) room: &'a Room,
    pub(super) appointment: &'a Appointment,
    /// Number of the ledger's last line.
    pub(super) revision: u64,
    /// Whether this server sends codes by text message.
    pub(super) sends_codes: bool,
    pub(super) consent_text_version: &'a str,
    pub(super) held_back: bool,
    /// Up to when everything is on disk.
    pub(super) durable_until: Option<Timestamp>,
    /// Where a page may ask whether UDP comes through.
    pub(super) reflectors: Vec<SocketAddr>,
    pub(super) now: Now,
}

/// A document, for whoever reads its bytes or its receipt.
#[derive(Debug)]
pub(in crate::control) struct DocumentFile {
    pub(super) name: Personal,
    pub(super) sha256: String,
    pub(super) kind: DocumentKind,
    pub(super) deleted: bool,
    pub(super) office: String,
    pub(super) counter: String,
}

impl View<'_> {
    /// For booking systems and operators.
    pub(super) fn room(&self) -> RoomView {
        let (room, appointment) = (self.room, self.appointment);
        RoomView {
            id: room.id(),
            profile: room.profile().name.clone(),
            office: appointment.office.clone(),
            counter: appointment.counter.clone(),
            reason: appointment.reason.clone(),
            reference: appointment.reference.clone(),
            start: room.start(),
            end: room.end(),
            opens_at: room.opens_at(),
            phase: room.phase(),
            outcome: room.outcome(),
            participants: self
                .people()
                .map(|(person, state)| RoomParticipantView {
                    id: person.id,
                    role: person.role,
                    name: person.name.clone(),
                    place: state.place(),
                    connected: state.is_connected(),
                    waiting_since: state.waiting_since(),
                    attested_beside: state.attested_beside(),
                    attempts_left: state.attempts_left(),
                    message: self.message(person, state),
                })
                .collect(),
            recording: self.recording().state,
            revision: self.revision,
        }
    }

    /// For the holder of a link, who may be anybody: no names.
    pub(super) fn welcome(&self, participant: ParticipantId) -> Result<Welcome, Error> {
        let (room, appointment) = (self.room, self.appointment);
        let admission = self.admission(participant);
        Ok(Welcome {
            profile: room.profile().name.clone(),
            office: appointment.office.clone(),
            counter: appointment.counter.clone(),
            start: room.start(),
            end: room.end(),
            opens_at: room.opens_at(),
            closes_at: match admission {
                Admission::Documents => room.extension_until().unwrap_or_else(|| room.end()),
                _ => room.end(),
            },
            admission,
            role: self.state_of(participant)?.role(),
            code_digits: room.profile().code_digits,
        })
    }

    /// What the room would answer to a code, before it is typed.
    fn admission(&self, participant: ParticipantId) -> Admission {
        match self.room.may_try_code(self.now, participant) {
            Ok(()) if self.room.phase() == Phase::Extended => Admission::Documents,
            Ok(()) => Admission::Open,
            Err(Refusal::TooEarly(_)) => Admission::TooEarly,
            Err(Refusal::CodeLocked) => Admission::Locked,
            Err(Refusal::Removed) => Admission::Removed,
            Err(Refusal::WrongPhase(Phase::Cancelled)) => Admission::Cancelled,
            // Whoever comes after a meeting that was held is not told that nobody opened it.
            Err(Refusal::TooLate(_)) if self.room.outcome().is_none() => Admission::TooLate,
            Err(_) => Admission::Over,
        }
    }

    /// For a participant.
    pub(super) fn session(&self, participant: ParticipantId) -> Result<SessionView, Error> {
        let (room, appointment) = (self.room, self.appointment);
        let state = self.state_of(participant)?;
        let person = self.person(participant)?;
        let runs = state.role() == Role::Operator;
        // The operator checks identities; the parties to the act see each other's once they are in the room.
        // When the meeting is over there is nothing left to check.
        let inside = state.place() == Place::Inside && state.role() != Role::Guest;
        let checks = !room.is_over() && (runs || inside);
        let operator = appointment.people.iter().find(|person| person.role == Role::Operator);
        Ok(SessionView {
            room: SessionRoom {
                id: room.id(),
                profile: room.profile().name.clone(),
                office: appointment.office.clone(),
                counter: appointment.counter.clone(),
                reason: appointment.reason.clone(),
                start: room.start(),
                end: room.end(),
                operator_number: operator.and_then(|person| person.operator_number.clone()),
            },
            me: Me { id: person.id, role: person.role, name: person.name.clone() },
            phase: room.phase(),
            place: state.place(),
            consent: state
                .consent()
                .map(|consent| Consent { text_version: consent.text_version.clone(), at: consent.at }),
            consent_text_version: self.consent_text_version.to_owned(),
            opened: room.is_open(),
            live_since: room.live_since(),
            first_live: room.first_live(),
            now: self.now.wall,
            participants: self
                .people()
                .map(|(other, state)| ParticipantView {
                    id: other.id,
                    role: other.role,
                    name: other.name.clone(),
                    fiscal_code: other.fiscal_code.clone().filter(|_| checks || other.id == participant),
                    place: state.place(),
                    connected: state.is_connected(),
                    sources: state.sources(),
                    not_recorded: if runs || other.id == participant { state.missing_pictures() } else { Vec::new() },
                    waiting_since: state.waiting_since(),
                    attested_beside: state.attested_beside(),
                    devices: state.devices().filter(|_| runs).map(DevicesView::from),
                })
                .collect(),
            missing: room.missing(),
            flow: room.flow() && !self.held_back,
            recording: RecordingView { durable_until: self.durable_until.filter(|_| runs), ..self.recording() },
            suspended: room.suspended(),
            features: room.features().collect(),
            outcome: room.outcome(),
            outcomes: if runs { room.profile().outcomes.clone() } else { Vec::new() },
            extension_until: room.extension_until(),
            documents: self.documents_of(participant),
            chat_messages: room.messages(),
            steps: if runs { self.steps() } else { Vec::new() },
            grant: if runs { self.grant() } else { None },
            ice_servers: Vec::new(),
            reflectors: self.reflectors.iter().map(|address| format!("stun:{address}")).collect(),
        })
    }

    /// What a participant sees of the documents.
    fn documents_of(&self, participant: ParticipantId) -> Vec<DocumentView> {
        let seen = self.room.documents().iter().filter(|document| self.room.may_see(participant, document));
        seen.map(|document| self.describe(document)).collect()
    }

    /// All documents.
    pub(super) fn documents(&self) -> Vec<DocumentView> {
        self.room.documents().iter().map(|document| self.describe(document)).collect()
    }

    /// One document.
    pub(super) fn document(&self, id: DocumentId) -> Result<DocumentView, Error> {
        Ok(self.describe(self.room.document(id).ok_or(Refusal::UnknownDocument)?))
    }

    /// What is needed to read one.
    pub(super) fn document_file(&self, id: DocumentId) -> Result<DocumentFile, Error> {
        let document = self.room.document(id).ok_or(Refusal::UnknownDocument)?;
        Ok(DocumentFile {
            name: self.document_name(id),
            sha256: document.sha256.clone(),
            kind: document.kind,
            deleted: document.state == DocumentState::Deleted,
            office: self.appointment.office.clone(),
            counter: self.appointment.counter.clone(),
        })
    }

    fn document_name(&self, id: DocumentId) -> Personal {
        let named = self.appointment.documents.iter().find(|named| named.id == id);
        named.map_or_else(|| Personal::new(String::new()), |named| named.name.clone())
    }

    fn describe(&self, document: &room::Document) -> DocumentView {
        let (state, protocol, registered_at) = match document.state {
            DocumentState::Received => (DocumentProgress::Received, None, None),
            DocumentState::Registering => (DocumentProgress::Registering, None, None),
            DocumentState::Refused => (DocumentProgress::Refused, None, None),
            DocumentState::Deleted => (DocumentProgress::Deleted, None, None),
            DocumentState::Registered { year, number, at } => {
                (DocumentProgress::Registered, Some(protocol(year, number)), Some(at))
            }
        };
        DocumentView {
            id: document.id,
            by: document.by,
            // Whoever was replaced is not among the people any more.
            by_role: self.room.person(document.by).map_or(Role::Guest, room::Person::role),
            name: self.document_name(document.id),
            kind: document.kind,
            bytes: document.bytes,
            sha256: document.sha256.clone(),
            handed_in: document.handed_in,
            state,
            protocol,
            registered_at,
        }
    }

    /// A written message, with who wrote it.
    pub(super) fn message_of(&self, message: ChatMessage) -> ChatMessageView {
        let writer = self.appointment.people.iter().find(|person| person.id == message.participant);
        ChatMessageView {
            number: message.number,
            participant: message.participant,
            name: writer.map_or_else(|| Personal::new(String::new()), |person| person.name.clone()),
            role: writer.map(|person| person.role),
            at: message.written,
            text: message.text,
        }
    }

    fn steps(&self) -> Vec<StepView> {
        let steps = self.room.profile().steps.iter();
        let step = |step: &room::Step| StepView {
            id: step.id.clone(),
            label: Texts { it: step.it.clone(), en: step.en.clone(), de: step.de.clone() },
            done_at: self.room.step_done(&step.id),
        };
        steps.map(step).collect()
    }

    /// Whether `granted` would be accepted; `None`: the profile has no such outcome, or the meeting is not on.
    fn grant(&self) -> Option<GrantView> {
        let knows = self.room.profile().outcomes.contains(&Outcome::Granted);
        if !self.room.is_open() || !knows {
            return None;
        }
        Some(match self.room.can_grant(self.now) {
            Ok(()) => GrantView::Possible,
            Err(Refusal::PresenceMissing(missing)) => GrantView::Presence { missing },
            Err(Refusal::RecordingIncomplete) => GrantView::Recording,
            Err(Refusal::PresenceTooShort(seconds)) => {
                let left = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                GrantView::NotYet { at: self.now.wall.saturating_add(left).unwrap_or(Timestamp::MAX) }
            }
            Err(_) => GrantView::NotLive,
        })
    }

    /// For an operator's day.
    pub(super) fn day(&self) -> DayAppointment {
        let (room, appointment) = (self.room, self.appointment);
        DayAppointment {
            room: room.id(),
            profile: room.profile().name.clone(),
            office: appointment.office.clone(),
            counter: appointment.counter.clone(),
            reason: appointment.reason.clone(),
            start: room.start(),
            end: room.end(),
            phase: room.phase(),
            outcome: room.outcome(),
            participants: self
                .people()
                .map(|(person, state)| DayParticipant {
                    id: person.id,
                    role: person.role,
                    name: person.name.clone(),
                    place: state.place(),
                    waiting_since: state.waiting_since(),
                    connected: state.is_connected(),
                    devices: state.devices().map(DevicesView::from),
                })
                .collect(),
        }
    }

    fn message(&self, person: &Person, state: &room::Person) -> Option<Delivery> {
        let sent = self.sends_codes && person.phone.is_some();
        state.message().map(Delivery::from).or(sent.then_some(Delivery::QUEUED))
    }

    fn recording(&self) -> RecordingView {
        let (state, fault) = match self.room.recording() {
            Recording::Off => (RecordingState::Off, None),
            Recording::Starting => (RecordingState::Starting, None),
            Recording::On => (RecordingState::On, None),
            Recording::Lost(fault) => (RecordingState::Lost, Some(fault)),
        };
        RecordingView { state, fault, durable_until: None }
    }

    /// Everyone, with what the booking and what the rules know of them.
    fn people(&self) -> impl Iterator<Item = (&Person, &room::Person)> {
        self.appointment.people.iter().filter_map(|person| Some((person, self.room.person(person.id)?)))
    }

    fn state_of(&self, participant: ParticipantId) -> Result<&room::Person, Error> {
        self.room.person(participant).ok_or(Error::Refused(Refusal::UnknownParticipant))
    }

    fn person(&self, participant: ParticipantId) -> Result<&Person, Error> {
        let known = self.appointment.people.iter().find(|person| person.id == participant);
        known.ok_or(Error::Refused(Refusal::UnknownParticipant))
    }
}
