//! What follows from a command: who may do it, what happens, what the world must be made to do.

use std::cmp::Ordering;
use std::time::Duration;

use super::event::whole_millis;
use super::person::{MessageState, Person, Standing};
use super::presence::{Presence, later, millis};
use super::state::{Flow, Room, State};
use super::{Command, Decision, Effect, Entry, Event, Feature, Outcome, Phase, Place, Refusal, Role, SuspendReason};
use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, ParticipantId};
use crate::media::{RecordingFault, Source};

impl Room {
    /// Decides what follows from a command at `now`. The room itself does not change: the caller stores the
    /// events, then gives each to [`Room::apply`], made into an entry with the same `now` ([`Entry::at`]).
    #[must_use = "the events are not in the ledger and the effects not carried out yet"]
    pub fn handle(&self, now: Now, command: Command) -> Decision {
        let now = whole_millis(now);
        let mut draft = Draft { before: self, room: self.clone(), now, events: Vec::new(), effects: Vec::new() };
        match command {
            // The earlier run's monotonic times compare to nothing in this one: nothing is due by them.
            Command::Restarted => {}
            // Media that came back within the grace came back in time, even if the news of it did not.
            Command::SourceChanged { active: true, since, .. } => draft.settle(since.min(now.mono)),
            _ => draft.settle(now.mono),
        }
        let refusal = draft.decide(command).err();
        draft.settle(now.mono);
        draft.finish(refusal)
    }
}

/// A decision in the making: the room as it was, and as the events so far make it.
pub(super) struct Draft<'a> {
    before: &'a Room,
    pub(super) room: Room,
    pub(super) now: Now,
    events: Vec<Event>,
    effects: Vec<Effect>,
}

impl Draft<'_> {
    fn decide(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::TryCode { participant, right } => self.try_code(participant, right),
            Command::ReissueCode { participant } => self.reissue_code(participant),
            Command::MessageSent { participant } => self.message_sent(participant),
            Command::MessageFailed { participant } => self.message_failed(participant),
            Command::Consent { participant, text_version } => self.consent(participant, text_version),
            Command::EnterWaiting { participant } => self.enter_waiting(participant),
            Command::DevicesChecked { participant, devices } => self.devices_checked(participant, devices),
            Command::TakeSeat { participant } => self.take_seat(participant),
            Command::HandIn { document, participant, sha256, bytes, kind } => {
                self.hand_in(document, participant, sha256, bytes, kind)
            }
            Command::DeleteDocument { document, participant } => self.delete_document(document, participant),
            Command::AskRegistration { document } => self.ask_registration(document),
            Command::Registered { document, entry } => self.registered(document, entry),
            Command::Write { participant, sha256 } => self.write(participant, sha256),
            Command::TickStep { step, done } => self.tick(step, done),
            Command::Leave { participant } => self.leave(participant),
            Command::Open => self.open(),
            Command::Admit { participant } => self.admit(participant),
            Command::SendBack { participant } => self.send_back(participant),
            Command::Remove { participant } => self.remove(participant),
            Command::Attest { participant, beside } => self.attest(participant, beside),
            Command::WithdrawAttestation { participant } => self.withdraw_attestation(participant),
            Command::SetFeature { feature, on } => self.set_feature(feature, on),
            Command::Conclude { outcome, extension_hours } => self.conclude(outcome, extension_hours),
            Command::Extend { hours } => self.extend(hours),
            Command::Replace { participant, by } => self.replace(participant, by),
            Command::Cancel => self.cancel(),
            Command::Reschedule { start, end } => self.reschedule(start, end),
            Command::Connected { participant, connection } => self.connected(participant, connection),
            Command::Disconnected { connection, last_seen } => {
                self.disconnected(connection, last_seen);
                Ok(())
            }
            Command::SourceChanged { connection, source, active, since } => {
                self.source_changed(connection, source, active, since);
                Ok(())
            }
            Command::RecordingStarted { participant, connection } => self.recording_started(participant, connection),
            Command::RecordingLost { reason } => {
                self.recording_lost(reason);
                Ok(())
            }
            Command::RecordingResumed => {
                if self.room.recording.fault.is_some() {
                    self.emit(Event::RecordingResumed);
                }
                Ok(())
            }
            Command::PictureMissing { connection, source, since } => {
                self.picture_missing(connection, source, since);
                Ok(())
            }
            Command::PictureBack { connection, source } => {
                self.picture_back(connection, source);
                Ok(())
            }
            Command::RecordingRecovered { participant, connection, file, until_ms, tail_bytes } => {
                self.emit(Event::RecordingRecovered { participant, connection, file, until_ms, tail_bytes });
                Ok(())
            }
            Command::Restarted => {
                self.restarted();
                Ok(())
            }
            Command::WallClockSet { by_ms } => {
                if self.room.is_open() {
                    self.emit(Event::WallClockSet { by_ms });
                }
                Ok(())
            }
            Command::Tick => Ok(()),
        }
    }

    // ---- Admission

    fn try_code(&mut self, participant: ParticipantId, right: bool) -> Result<(), Refusal> {
        self.room.may_try_code(self.now, participant)?;
        if right {
            self.emit(Event::CodeAccepted { participant });
            return Ok(());
        }
        let attempts_left = self.place_of(participant)?.1.saturating_sub(1);
        self.emit(Event::CodeRejected { participant, attempts_left });
        Err(Refusal::WrongCode(attempts_left))
    }

    fn reissue_code(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        let (place, _) = self.place_of(participant)?;
        match self.room.state {
            // Who was admitted may still come from another device, to hand documents in.
            State::Extended { .. } if place != Place::Expected => {}
            _ => self.not_concluded()?,
        }
        if place == Place::Removed {
            return Err(Refusal::Removed);
        }
        self.emit(Event::CodeReissued { participant });
        Ok(())
    }

    fn message_sent(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        if !self.room.is_over() && !matches!(person.message, Some(MessageState::Sent { .. })) {
            self.emit(Event::CodeSent { participant });
        }
        Ok(())
    }

    fn message_failed(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        if !self.room.is_over() && !matches!(person.message, Some(MessageState::Failed { .. })) {
            self.emit(Event::CodeNotSent { participant });
        }
        Ok(())
    }

    fn consent(&mut self, participant: ParticipantId, text_version: String) -> Result<(), Refusal> {
        self.admitted(participant)?;
        let given = self.room.person(participant).and_then(|person| person.consent.as_ref());
        if given.is_none_or(|consent| consent.text_version != text_version) {
            self.emit(Event::ConsentGiven { participant, text_version });
        }
        Ok(())
    }

    fn enter_waiting(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        let place = self.admitted(participant)?;
        self.consented(participant)?;
        if place == Place::Admitted {
            self.emit(Event::EnteredWaiting { participant });
        }
        // Nobody lets the operator in.
        if self.room.is_open() && self.has_role(participant, Role::Operator) && place != Place::Inside {
            self.emit(Event::LetIn { participant });
        }
        Ok(())
    }

    fn leave(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        match self.place_of(participant)?.0 {
            Place::Removed => return Err(Refusal::Removed),
            Place::Expected => return Err(Refusal::NotAdmitted),
            Place::Waiting | Place::Inside if self.not_concluded().is_ok() => {
                self.end_attestations_beside(participant);
                self.emit(Event::Left { participant });
                self.effects.push(Effect::Disconnect(participant));
            }
            Place::Admitted | Place::Waiting | Place::Inside => {}
        }
        Ok(())
    }

    // ---- The operator

    fn open(&mut self) -> Result<(), Refusal> {
        match self.room.state {
            State::Waiting | State::Open(_) => {}
            State::Scheduled => return Err(Refusal::TooEarly(self.room.opens_at())),
            _ => return Err(Refusal::WrongPhase(self.room.phase())),
        }
        let operators: Vec<_> = self.room.people.iter().filter(|person| person.role == Role::Operator).collect();
        let here = |place| matches!(place, Place::Admitted | Place::Waiting | Place::Inside);
        if !operators.iter().any(|person| here(person.place())) {
            return Err(Refusal::NotAdmitted);
        }
        if !operators.iter().any(|person| here(person.place()) && person.consent.is_some()) {
            return Err(Refusal::NoConsent);
        }
        let enter: Vec<_> = operators
            .iter()
            .filter(|person| matches!(person.place(), Place::Admitted | Place::Waiting) && person.consent.is_some())
            .map(|person| person.id)
            .collect();
        if !self.room.is_open() {
            self.emit(Event::Opened);
        }
        for participant in enter {
            self.emit(Event::LetIn { participant });
        }
        Ok(())
    }

    fn admit(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        self.room.meeting()?;
        match self.place_of(participant)?.0 {
            Place::Removed => Err(Refusal::Removed),
            Place::Expected => Err(Refusal::NotAdmitted),
            Place::Admitted => Err(Refusal::NotWaiting),
            Place::Inside => Ok(()),
            Place::Waiting => {
                self.emit(Event::LetIn { participant });
                Ok(())
            }
        }
    }

    fn send_back(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        self.room.meeting()?;
        match self.place_of(participant)?.0 {
            Place::Removed => return Err(Refusal::Removed),
            Place::Waiting => {}
            Place::Expected | Place::Admitted => return Err(Refusal::NotInside),
            Place::Inside => {
                self.end_attestations_beside(participant);
                self.emit(Event::SentBack { participant });
                self.effects.push(Effect::Disconnect(participant));
            }
        }
        Ok(())
    }

    fn remove(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        let (place, _) = self.place_of(participant)?;
        self.not_concluded()?;
        if place != Place::Removed {
            self.end_attestations_beside(participant);
            self.end_attestation(participant);
            self.emit(Event::Removed { participant });
        }
        self.effects.extend([Effect::Disconnect(participant), Effect::EndSession(participant)]);
        Ok(())
    }

    fn attest(&mut self, participant: ParticipantId, beside: ParticipantId) -> Result<(), Refusal> {
        self.room.meeting()?;
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        let host = self.room.person(beside).ok_or(Refusal::UnknownParticipant)?;
        // The operator attests what they see on another's device; they cannot attest themselves.
        let attestable = |role| role != Role::Operator && self.room.profile.required.contains(&role);
        if person.place() == Place::Removed {
            return Err(Refusal::Removed);
        } else if participant == beside {
            return Err(Refusal::CannotAttest("nobody sits beside themselves"));
        } else if !attestable(person.role) {
            return Err(Refusal::CannotAttest("only a required citizen can be attested"));
        } else if !attestable(host.role) {
            return Err(Refusal::CannotAttest("the device must be that of another required citizen"));
        } else if person.is_connected() {
            return Err(Refusal::CannotAttest("they are in the room on a device of their own"));
        } else if !host.is_connected() {
            return Err(Refusal::CannotAttest("the device is not in the room"));
        }
        if person.attested_beside() != Some(beside) {
            self.emit(Event::Attested { participant, beside });
        }
        Ok(())
    }

    fn withdraw_attestation(&mut self, participant: ParticipantId) -> Result<(), Refusal> {
        self.room.meeting()?;
        self.place_of(participant)?;
        self.end_attestation(participant);
        Ok(())
    }

    fn set_feature(&mut self, feature: Feature, on: bool) -> Result<(), Refusal> {
        self.in_window()?;
        if self.room.features.contains(&feature) != on {
            self.emit(Event::FeatureSet { feature, on });
        }
        Ok(())
    }

    fn conclude(&mut self, outcome: Outcome, extension_hours: u16) -> Result<(), Refusal> {
        self.room.meeting()?;
        if !self.room.profile.outcomes.contains(&outcome) {
            return Err(Refusal::OutcomeNotAllowed);
        }
        let longest = self.room.profile.longest_extension_hours;
        if extension_hours > longest {
            return Err(Refusal::ExtensionTooLong(longest));
        }
        if outcome == Outcome::Granted {
            self.room.can_grant(self.now)?;
        }
        self.emit(Event::Concluded { outcome, by_operator: true, extension_hours });
        Ok(())
    }

    fn extend(&mut self, hours: u16) -> Result<(), Refusal> {
        let State::Extended { concluded, until, .. } = self.room.state else {
            return Err(Refusal::WrongPhase(self.room.phase()));
        };
        let longest = self.room.profile.longest_extension_hours;
        if hours > longest {
            return Err(Refusal::ExtensionTooLong(longest));
        }
        let longer = later(concluded, Duration::from_hours(hours.into()));
        match longer.cmp(&until) {
            Ordering::Less => return Err(Refusal::ExtensionNotLonger(until)),
            Ordering::Equal => {}
            Ordering::Greater => self.emit(Event::Extended { until: longer }),
        }
        Ok(())
    }

    // ---- The booking

    fn cancel(&mut self) -> Result<(), Refusal> {
        match self.room.state {
            State::Scheduled | State::Waiting => self.emit(Event::Cancelled),
            State::Cancelled => {}
            _ => return Err(Refusal::WrongPhase(self.room.phase())),
        }
        Ok(())
    }

    fn replace(&mut self, participant: ParticipantId, by: ParticipantId) -> Result<(), Refusal> {
        let (place, _) = self.place_of(participant)?;
        self.not_concluded()?;
        if place == Place::Inside {
            return Err(Refusal::StillInside);
        }
        if self.room.person(by).is_some() {
            return Err(Refusal::AlreadyBooked);
        }
        // The operator vouched for someone else.
        self.end_attestation(participant);
        self.emit(Event::Replaced { participant, by });
        self.effects.extend([Effect::Disconnect(participant), Effect::EndSession(participant)]);
        Ok(())
    }

    fn reschedule(&mut self, start: jiff::Timestamp, end: jiff::Timestamp) -> Result<(), Refusal> {
        if !matches!(self.room.state, State::Scheduled | State::Waiting) {
            return Err(Refusal::WrongPhase(self.room.phase()));
        }
        if start >= end || start < self.now.wall {
            return Err(Refusal::BadTimes);
        }
        if (start, end) != (self.room.start, self.room.end) {
            self.emit(Event::Rescheduled { start, end });
        }
        for person in &self.before.people {
            if person.is_admitted() && self.place_of(person.id)?.0 == Place::Expected {
                self.effects.push(Effect::EndSession(person.id));
            }
        }
        Ok(())
    }

    // ---- The media worker and the recorder

    fn connected(&mut self, participant: ParticipantId, connection: ConnectionId) -> Result<(), Refusal> {
        if let Err(refusal) = self.room.may_connect(participant) {
            // They lost their place while the connection was being made.
            self.effects.push(Effect::Disconnect(participant));
            return Err(refusal);
        }
        if self.room.person(participant).and_then(Person::connection) != Some(connection) {
            // Whoever has a device of their own does not sit beside someone else's.
            self.end_attestation(participant);
            self.emit(Event::Connected { participant, connection });
        }
        if self.room.flow() {
            self.effects.push(Effect::StartFlow);
        }
        Ok(())
    }

    fn disconnected(&mut self, connection: ConnectionId, last_seen: MonoTime) {
        let whose = self.room.people.iter().find(|person| {
            person.link().is_some_and(|link| link.id == connection || link.replaced == Some(connection))
        });
        // A connection that the room took away itself ends without news.
        if let Some(participant) = whose.map(|person| person.id) {
            let silent_ms = self.ms_since(last_seen);
            self.emit(Event::Disconnected { participant, connection, silent_ms });
        }
    }

    fn source_changed(&mut self, connection: ConnectionId, source: Source, active: bool, since: MonoTime) {
        let whose = self.room.people.iter().find_map(|person| {
            let link = person.link().filter(|link| link.id == connection)?;
            (link.sources.contains_key(&source) != active).then_some(person.id)
        });
        let ago_ms = self.ms_since(since);
        match whose {
            Some(participant) if active => {
                self.emit(Event::SourceStarted { participant, connection, source, ago_ms });
            }
            Some(participant) => self.emit(Event::SourceStopped { participant, connection, source, ago_ms }),
            None => {}
        }
    }

    fn recording_started(&mut self, participant: ParticipantId, connection: ConnectionId) -> Result<(), Refusal> {
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        if self.room.is_open() && !person.recorded.contains(&connection) {
            self.emit(Event::RecordingStarted { participant, connection });
        }
        Ok(())
    }

    fn recording_lost(&mut self, reason: RecordingFault) {
        // Told again it is news only if files begun since then are lost as well. Before the room is opened there is
        // nothing to lose; a fault at the very end of a meeting still belongs in its ledger.
        let begun = self.room.people.iter().any(|person| !person.recorded.is_empty());
        let news = self.room.recording.fault.is_none() || begun;
        let met = !matches!(self.room.state, State::Scheduled | State::Waiting | State::Cancelled | State::Expired);
        if news && met {
            self.emit(Event::RecordingLost { reason });
        }
    }

    fn picture_missing(&mut self, connection: ConnectionId, source: Source, since: MonoTime) {
        let ago_ms = self.ms_since(since);
        if let Some(participant) = self.owner_of_picture(connection, source, false) {
            self.emit(Event::PictureMissing { participant, connection, source, ago_ms });
        }
    }

    fn picture_back(&mut self, connection: ConnectionId, source: Source) {
        if let Some(participant) = self.owner_of_picture(connection, source, true) {
            self.emit(Event::PictureBack { participant, connection, source });
        }
    }

    /// Whose picture it is, if it is known to be `missing` or not to be.
    fn owner_of_picture(&self, connection: ConnectionId, source: Source, missing: bool) -> Option<ParticipantId> {
        self.room.people.iter().find_map(|person| {
            let link = person.link().filter(|link| link.id == connection)?;
            (link.missing.contains(&source) == missing).then_some(person.id)
        })
    }

    // ---- The node and the time

    fn restarted(&mut self) {
        if matches!(self.room.state, State::Waiting | State::Open(_) | State::Extended { .. }) {
            self.emit(Event::NodeRestarted);
        }
        // The crash may have come between the removal and what followed from it.
        let removed = self.room.people.iter().filter(|person| person.standing == Standing::Removed);
        self.effects.extend(removed.map(|person| Effect::EndSession(person.id)));
    }

    /// Carries out what has become due by the monotonic time `at` and by the wall clock.
    fn settle(&mut self, at: MonoTime) {
        while let Some(event) = self.due(at) {
            self.emit(event);
        }
    }

    /// The next thing that follows from the state and the time alone.
    fn due(&self, at: MonoTime) -> Option<Event> {
        let room = &self.room;
        let wall = self.now.wall;
        let meeting = match &room.state {
            State::Scheduled | State::Waiting if wall >= room.end => return Some(Event::Expired),
            State::Scheduled if wall >= room.opens_at() => return Some(Event::AdmissionOpened),
            State::Extended { until, .. } if wall >= *until => return Some(Event::Closed),
            State::Concluded { .. } => return Some(Event::Closed),
            State::Open(meeting) => meeting,
            _ => return None,
        };
        let grace = room.profile.absence_grace();
        // Late news may also tell that the rule never held.
        if let (Presence::Held { since, .. }, Some(gap)) = (&meeting.presence, meeting.presence.gap())
            && (at.since(gap) >= grace || gap < *since)
        {
            return Some(Event::PresenceBroken { missing: room.missing(), ago_ms: self.ms_since(gap) });
        }
        // As when the device leaves: what the operator saw on it is not vouched for when it comes back.
        let lost = |person: &&Person| person.device_lost_since().is_some_and(|since| at.since(since) >= grace);
        if let Some(person) = room.people.iter().find(lost) {
            return Some(Event::AttestationWithdrawn { participant: person.id });
        }
        let incomplete = Event::Concluded { outcome: Outcome::Incomplete, by_operator: false, extension_hours: 0 };
        match (&meeting.presence, &meeting.flow) {
            (_, Flow::Live { .. }) if room.recording.fault.is_some() => {
                let reason = room.recording.fault?;
                Some(Event::Suspended { reason: SuspendReason::Recording { reason } })
            }
            (Presence::Broken { .. }, Flow::Live { .. }) => {
                Some(Event::Suspended { reason: SuspendReason::Absence { missing: room.missing() } })
            }
            (Presence::Broken { since, .. }, _) if room.rule_since().is_some() => {
                let held = room.rule_since()?.max(*since);
                Some(Event::PresenceHeld { ago_ms: self.ms_since(held) })
            }
            (Presence::Broken { .. }, Flow::NotYet) => (wall >= room.given_up_at()).then_some(incomplete),
            (Presence::Broken { since, before }, _) => {
                (*before + at.since(*since) >= room.profile.longest_absence()).then_some(incomplete)
            }
            (Presence::Held { .. }, Flow::NotYet | Flow::Suspended { .. }) => {
                let recorded = room.recording.fault.is_none() && room.all_recorded();
                (recorded && meeting.presence.gap().is_none()).then_some(Event::WentLive)
            }
            (Presence::Held { .. }, Flow::Live { .. }) => None,
        }
    }

    fn finish(mut self, refusal: Option<Refusal>) -> Decision {
        let ended = |room: &Room| !matches!(room.state, State::Scheduled | State::Waiting | State::Open(_));
        let mut effects = Vec::new();
        if self.before.flow() && !self.room.flow() {
            effects.push(Effect::StopFlow);
        }
        if !self.before.flow() && self.room.flow() {
            self.effects.retain(|effect| *effect != Effect::StartFlow);
            self.effects.push(Effect::StartFlow);
        }
        effects.append(&mut self.effects);
        if ended(&self.room) && !ended(self.before) {
            effects.push(Effect::CloseMedia);
        }
        if self.before.phase() == Phase::Extended && self.room.phase() == Phase::Closed {
            effects.extend(self.room.people.iter().map(|person| Effect::EndSession(person.id)));
        }
        Decision { events: self.events, effects, refusal }
    }

    // ---- Conditions that several commands share

    /// Where a person is, and how many attempts they have left.
    fn place_of(&self, participant: ParticipantId) -> Result<(Place, u8), Refusal> {
        let person = self.room.person(participant).ok_or(Refusal::UnknownParticipant)?;
        Ok((person.place(), person.attempts_left))
    }

    /// The place of someone who typed a right code, while people may come and go.
    fn admitted(&self, participant: ParticipantId) -> Result<Place, Refusal> {
        let (place, _) = self.place_of(participant)?;
        match place {
            Place::Removed => return Err(Refusal::Removed),
            Place::Expected => return Err(Refusal::NotAdmitted),
            Place::Admitted | Place::Waiting | Place::Inside => {}
        }
        self.in_window()?;
        Ok(place)
    }

    fn consented(&self, participant: ParticipantId) -> Result<(), Refusal> {
        match self.room.person(participant) {
            Some(person) if person.consent.is_some() => Ok(()),
            Some(_) => Err(Refusal::NoConsent),
            None => Err(Refusal::UnknownParticipant),
        }
    }

    fn has_role(&self, participant: ParticipantId, role: Role) -> bool {
        self.room.person(participant).is_some_and(|person| person.role == role)
    }

    /// Admission has opened and the meeting is not over.
    pub(super) fn in_window(&self) -> Result<(), Refusal> {
        match self.room.state {
            State::Waiting | State::Open(_) => Ok(()),
            _ => Err(Refusal::WrongPhase(self.room.phase())),
        }
    }

    fn not_concluded(&self) -> Result<(), Refusal> {
        match self.room.state {
            State::Scheduled => Ok(()),
            _ => self.in_window(),
        }
    }

    // ---- Steps that several commands share

    fn end_attestation(&mut self, participant: ParticipantId) {
        if self.room.person(participant).is_some_and(|person| person.attestation.is_some()) {
            self.emit(Event::AttestationWithdrawn { participant });
        }
    }

    /// The device goes: what the operator saw on it is not vouched for when it comes back.
    fn end_attestations_beside(&mut self, host: ParticipantId) {
        let people = self.room.people.iter();
        let beside: Vec<_> =
            people.filter(|person| person.attested_beside() == Some(host)).map(|person| person.id).collect();
        for participant in beside {
            self.end_attestation(participant);
        }
    }

    pub(super) fn emit(&mut self, event: Event) {
        let entry = Entry::at(self.now, event);
        self.room.apply(&entry);
        self.events.push(entry.event);
    }

    fn ms_since(&self, earlier: MonoTime) -> u64 {
        millis(self.now.mono.since(earlier))
    }
}
