//! How a room looks to whom: the booking system, the holder of a link, a participant.

use jiff::Timestamp;

use super::Error;
use super::views::{
    Consent, Delivery, Me, ParticipantView, RecordingState, RecordingView, RoomParticipantView, RoomView, SessionRoom,
    SessionView, Welcome,
};
use crate::id::ParticipantId;
use crate::room::{self, Place, Recording, Refusal, Role, Room};
use crate::store::{Appointment, Person};

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
    pub(super) now: Timestamp,
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
        Ok(Welcome {
            profile: room.profile().name.clone(),
            office: appointment.office.clone(),
            counter: appointment.counter.clone(),
            start: room.start(),
            end: room.end(),
            opens_at: room.opens_at(),
            closes_at: room.end(),
            role: self.state_of(participant)?.role(),
            code_digits: room.profile().code_digits,
        })
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
            now: self.now,
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
            ice_servers: Vec::new(),
        })
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
