//! A room's state and what can be read from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::papers::Document;
use super::person::Person;
use super::presence::{Presence, PresenceInterval, earlier, later};
use super::{Deadline, Feature, Outcome, Phase, Place, Profile, Refusal, Role, SuspendReason};
use crate::clock::{MonoTime, Now};
use crate::id::{ParticipantId, RoomId};
use crate::media::RecordingFault;

/// One appointment's virtual room: the fold of its ledger.
///
/// [`Room::handle`] decides without changing anything; [`Room::apply`] changes, and only by events that are in the
/// ledger. In between, the caller stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pub(super) id: RoomId,
    pub(super) profile: Arc<Profile>,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) people: Vec<Person>,
    pub(super) features: BTreeSet<Feature>,
    pub(super) documents: Vec<Document>,
    /// Number of the newest written message.
    pub(super) messages: u64,
    /// The profile's steps that are done, and since when.
    pub(super) steps: BTreeMap<String, Timestamp>,
    pub(super) state: State,
    pub(super) recording: Integrity,
    pub(super) first_live: Option<Timestamp>,
    /// Intervals of presence that are over.
    pub(super) presence: Vec<PresenceInterval>,
    /// Monotonic time of the newest entry: how far the ledger vouches for what was so.
    pub(super) newest: MonoTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Scheduled,
    Waiting,
    Open(Meeting),
    Concluded { outcome: Outcome },
    Extended { outcome: Outcome, concluded: Timestamp, until: Timestamp },
    Closed { outcome: Outcome },
    Cancelled,
    Expired,
}

/// What an open room has that others do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meeting {
    pub(super) presence: Presence,
    pub(super) flow: Flow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Media has not flowed in this room.
    NotYet,
    Live {
        since: MonoTime,
        from: Timestamp,
    },
    Suspended {
        reason: SuspendReason,
        /// Until when media flowed; `None` if that was in an earlier run of the node.
        stopped: Option<MonoTime>,
    },
}

/// Whether the recording can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Integrity {
    /// What is wrong with it now.
    pub(super) fault: Option<RecordingFault>,
    /// Whether media flowed that may not be on disk.
    pub(super) hole: bool,
}

/// Whether a room is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Nothing is to be recorded yet, or no more.
    Off,
    /// The room is open; not every original has its first write on disk.
    Starting,
    /// Originals are being written.
    On,
    /// The recording broke; nothing is forwarded.
    Lost(RecordingFault),
}

impl Room {
    /// The room.
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// The profile that it follows.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Start of the appointment.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// End of the appointment; admission closes then.
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// When admission opens.
    pub fn opens_at(&self) -> Timestamp {
        earlier(self.start, self.profile.admission_opens())
    }

    /// Where the room stands.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Scheduled => Phase::Scheduled,
            State::Waiting => Phase::Waiting,
            State::Open(meeting) => match meeting.flow {
                Flow::NotYet => Phase::Waiting,
                Flow::Live { .. } => Phase::Live,
                Flow::Suspended { .. } => Phase::Suspended,
            },
            State::Concluded { .. } => Phase::Concluded,
            State::Extended { .. } => Phase::Extended,
            State::Closed { .. } => Phase::Closed,
            State::Cancelled => Phase::Cancelled,
            State::Expired => Phase::Expired,
        }
    }

    /// Whether the operator has opened the room and the meeting is not over.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether nothing can happen in it any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closed { .. } | State::Cancelled | State::Expired)
    }

    /// Whether media flows: exactly while the room is live.
    pub fn flow(&self) -> bool {
        self.live().is_some()
    }

    /// Since when media has flowed without a break; `None` while it does not.
    pub fn live_since(&self) -> Option<Timestamp> {
        self.live().map(|(_, from)| from)
    }

    /// When media flowed for the first time.
    pub fn first_live(&self) -> Option<Timestamp> {
        self.first_live
    }

    /// Everyone booked, in the booking's order.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// One person.
    pub fn person(&self, id: ParticipantId) -> Option<&Person> {
        self.people.iter().find(|person| person.id == id)
    }

    /// Required roles that are missing at this moment, within the grace or past it.
    pub fn missing(&self) -> Vec<Role> {
        self.profile.required.iter().copied().filter(|&role| self.present_since(role).is_none()).collect()
    }

    /// Whether the room is recorded.
    pub fn recording(&self) -> Recording {
        match (self.recording.fault, &self.state) {
            (Some(fault), _) => Recording::Lost(fault),
            (None, State::Open(meeting)) => {
                let sending = self.people.iter().any(|person| !person.sources().is_empty());
                if matches!(meeting.flow, Flow::Live { .. }) || (sending && self.all_recorded()) {
                    Recording::On
                } else {
                    Recording::Starting
                }
            }
            (None, _) => Recording::Off,
        }
    }

    /// Whether media flowed that may not be on disk: `granted` is out of reach then.
    pub fn recording_has_hole(&self) -> bool {
        self.recording.hole
    }

    /// Why media does not flow any more, as things stand now; `None` unless the room is suspended. An absence of
    /// nobody: everyone is back, their originals are just beginning.
    pub fn suspended(&self) -> Option<SuspendReason> {
        match (&self.state, self.recording.fault) {
            (State::Open(Meeting { flow: Flow::Suspended { .. }, .. }), Some(reason)) => {
                Some(SuspendReason::Recording { reason })
            }
            (State::Open(Meeting { flow: Flow::Suspended { reason, .. }, .. }), None) => match reason {
                SuspendReason::Recording { .. } if self.missing().is_empty() => Some(reason.clone()),
                _ => Some(SuspendReason::Absence { missing: self.missing() }),
            },
            _ => None,
        }
    }

    /// What is switched on.
    pub fn features(&self) -> impl Iterator<Item = Feature> + '_ {
        self.features.iter().copied()
    }

    /// How the meeting ended; `None` until it did.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Concluded { outcome } | State::Extended { outcome, .. } | State::Closed { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// Until when documents may still be handed in; `None` without an extension.
    pub fn extension_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Extended { until, .. } => Some(until),
            _ => None,
        }
    }

    /// When the presence rule held, up to `now`: the proof. An absence within the grace ends the last one where it
    /// began, until it proves to have been short.
    pub fn presence_intervals(&self, now: Now) -> Vec<PresenceInterval> {
        let mut intervals = self.presence.clone();
        if let State::Open(meeting) = &self.state {
            intervals.extend(meeting.presence.interval(now.mono));
        }
        intervals
    }

    /// Whether a code that this person types may be compared at all. Asked before the comparison: a sixth attempt
    /// never reaches it.
    pub fn may_try_code(&self, now: Now, participant: ParticipantId) -> Result<(), Refusal> {
        let person = self.person(participant).ok_or(Refusal::UnknownParticipant)?;
        let late = now.wall >= self.end;
        match &self.state {
            _ if person.place() == Place::Removed => return Err(Refusal::Removed),
            State::Scheduled if now.wall < self.opens_at() => return Err(Refusal::TooEarly(self.opens_at())),
            State::Scheduled | State::Waiting if !late => {}
            // Who was admitted in the window may change the device while there is something to come back to.
            State::Open(_) if !late || person.is_admitted() => {}
            State::Extended { until, .. } if person.is_admitted() && now.wall < *until => {}
            State::Cancelled => return Err(Refusal::WrongPhase(Phase::Cancelled)),
            _ if late => return Err(Refusal::TooLate(self.end)),
            _ => return Err(Refusal::WrongPhase(self.phase())),
        }
        if person.attempts_left == 0 {
            return Err(Refusal::CodeLocked);
        }
        Ok(())
    }

    /// Whether a media connection of this person may be answered.
    pub fn may_connect(&self, participant: ParticipantId) -> Result<(), Refusal> {
        let person = self.person(participant).ok_or(Refusal::UnknownParticipant)?;
        match (person.place(), &self.state) {
            (Place::Removed, _) => Err(Refusal::Removed),
            (_, State::Scheduled | State::Waiting | State::Open(_)) if person.consent.is_none() => {
                Err(Refusal::NoConsent)
            }
            (Place::Inside, State::Open(_)) => Ok(()),
            (_, State::Scheduled | State::Waiting | State::Open(_)) => Err(Refusal::NotInside),
            _ => Err(Refusal::WrongPhase(self.phase())),
        }
    }

    /// Whether the outcome `granted` would be accepted: the presence rule holds, has held without a break for the
    /// profile's minimum while media flowed, the recording has no hole, and every picture that arrives is in it.
    pub fn can_grant(&self, now: Now) -> Result<(), Refusal> {
        let meeting = self.meeting()?;
        if !self.profile.outcomes.contains(&Outcome::Granted) {
            return Err(Refusal::OutcomeNotAllowed);
        }
        let missing = self.missing();
        if !missing.is_empty() {
            return Err(Refusal::PresenceMissing(missing));
        }
        let missing_picture = self.people.iter().any(|person| !person.missing_pictures().is_empty());
        if self.recording.hole || self.recording.fault.is_some() || !self.all_recorded() || missing_picture {
            return Err(Refusal::RecordingIncomplete);
        }
        let minimum = self.profile.minimum_presence();
        let held = match (&meeting.presence, &meeting.flow) {
            (Presence::Held { since, .. }, Flow::Live { since: live, .. }) => now.mono.since(*since.max(live)),
            _ => return Err(Refusal::WrongPhase(self.phase())),
        };
        match minimum.saturating_sub(held) {
            Duration::ZERO => Ok(()),
            // Rounded up: whoever waits as long as they are told is not refused again.
            left => Err(Refusal::PresenceTooShort(left.as_secs() + u64::from(left.subsec_nanos() > 0))),
        }
    }

    /// When [`Command::Tick`](super::Command::Tick) is due, on either clock.
    pub fn deadline(&self) -> Deadline {
        match &self.state {
            State::Scheduled => Deadline { mono: None, wall: Some(self.opens_at().min(self.end)) },
            State::Waiting => Deadline { mono: None, wall: Some(self.end) },
            State::Open(meeting) => {
                let grace = self.profile.absence_grace();
                let (mono, wall) = match (&meeting.presence, &meeting.flow) {
                    (presence @ Presence::Held { .. }, _) => (presence.gap().map(|gap| gap + grace), None),
                    (Presence::Broken { .. }, Flow::NotYet) => (None, Some(self.given_up_at())),
                    (Presence::Broken { since, before }, _) => {
                        (Some(*since + self.profile.longest_absence().saturating_sub(*before)), None)
                    }
                };
                let devices = self.people.iter().filter_map(|person| Some(person.device_lost_since()? + grace));
                Deadline { mono: devices.chain(mono).min(), wall }
            }
            State::Extended { until, .. } => Deadline { mono: None, wall: Some(*until) },
            State::Concluded { .. } | State::Closed { .. } | State::Cancelled | State::Expired => Deadline::default(),
        }
    }

    /// When an opened room whose rule never held is given up: people may come as late as the appointment lasts, so
    /// the longest absence counts from its end.
    pub(super) fn given_up_at(&self) -> Timestamp {
        later(self.end, self.profile.longest_absence())
    }

    /// The open meeting, or why there is none.
    pub(super) fn meeting(&self) -> Result<&Meeting, Refusal> {
        match &self.state {
            State::Open(meeting) => Ok(meeting),
            State::Waiting => Err(Refusal::NotOpen),
            _ => Err(Refusal::WrongPhase(self.phase())),
        }
    }

    pub(super) fn person_mut(&mut self, id: ParticipantId) -> Option<&mut Person> {
        self.people.iter_mut().find(|person| person.id == id)
    }

    /// Whether everything that arrives from someone inside is known to be on disk.
    pub(super) fn all_recorded(&self) -> bool {
        !self.people.iter().any(Person::sends_unrecorded)
    }

    /// Since when everyone required is present; `None` while someone is missing.
    pub(super) fn rule_since(&self) -> Option<MonoTime> {
        self.profile.required.iter().try_fold(MonoTime::ZERO, |since, &role| Some(since.max(self.present_since(role)?)))
    }

    /// Since when one of a role's people is seen and heard, on a device of their own or attested beside someone
    /// who is.
    fn present_since(&self, role: Role) -> Option<MonoTime> {
        self.people
            .iter()
            .filter(|person| person.role == role)
            .filter_map(|person| {
                person.seen_and_heard_since().or_else(|| {
                    let attestation = person.attestation.as_ref()?;
                    Some(self.person(attestation.beside)?.seen_and_heard_since()?.max(attestation.since))
                })
            })
            .min()
    }

    fn live(&self) -> Option<(MonoTime, Timestamp)> {
        match &self.state {
            State::Open(Meeting { flow: Flow::Live { since, from }, .. }) => Some((*since, *from)),
            _ => None,
        }
    }
}
