//! How a room becomes what it is: by its events, and by nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::event::whole_millis;
use super::person::{Attestation, Connection, Consent, Device, MessageState, Person, Standing};
use super::presence::{Absences, Presence, earlier, later};
use super::state::{Flow, Integrity, Meeting, Room, State};
use super::{Devices, Entry, Event, Profile, Role};
use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;

/// How long after the last media the ledger must go on for that media to be on disk for sure: the longest silence of
/// the recorder that a node can be told to bear. Shorter might vouch for seconds that a crash took; longer finds holes
/// where there are none.
const SURELY_ON_DISK: Duration = Duration::from_secs(10);

/// What a room is booked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appointment {
    /// The room's name.
    pub room: RoomId,
    /// Start of the appointment.
    pub start: Timestamp,
    /// End of the appointment.
    pub end: Timestamp,
    /// Who takes part, in the order in which they are shown.
    pub participants: Vec<(ParticipantId, Role)>,
}

/// Why a room cannot be booked so. The booking system's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookingError {
    /// The times make no sense.
    #[error("the end must come after the start and lie ahead")]
    BadTimes,
    /// A role that the profile requires has nobody.
    #[error("the profile requires a participant with the role {0}")]
    RoleMissing(Role),
    /// The profile has no use for a role.
    #[error("the profile has no role {0}")]
    RoleUnknown(Role),
    /// Two people in a role that only one can have.
    #[error("only one participant can have the role {0}")]
    RoleTwice(Role),
}

/// Why a ledger is not that of a room of this profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A ledger begins with the booking.
    #[error("the ledger does not begin with the booking")]
    NotBooked,
    /// The room follows another profile.
    #[error("the room follows the profile {0:?}")]
    OtherProfile(String),
}

impl Room {
    /// The first event of a new room's ledger.
    pub fn book(now: Now, profile: &Profile, appointment: Appointment) -> Result<Event, BookingError> {
        let Appointment { room, start, end, participants } = appointment;
        if start >= end || end <= now.wall {
            return Err(BookingError::BadTimes);
        }
        for &(_, role) in &participants {
            if role != Role::Guest && !profile.required.contains(&role) {
                return Err(BookingError::RoleUnknown(role));
            }
        }
        for &role in &profile.required {
            match participants.iter().filter(|&&(_, other)| other == role).count() {
                0 => return Err(BookingError::RoleMissing(role)),
                1 => {}
                _ => return Err(BookingError::RoleTwice(role)),
            }
        }
        Ok(Event::Booked { room, profile: profile.name.clone(), start, end, participants })
    }

    /// The room that a ledger tells of. After a restart of the node, [`Command::Restarted`](super::Command::Restarted)
    /// is the first thing to tell it: times of the earlier run mean nothing in this one.
    pub fn replay<'a>(
        profile: &Arc<Profile>,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Self, ReplayError> {
        let mut entries = entries.into_iter();
        let Some(Entry { mono, event: Event::Booked { room, profile: name, start, end, participants }, .. }) =
            entries.next()
        else {
            return Err(ReplayError::NotBooked);
        };
        if *name != profile.name {
            return Err(ReplayError::OtherProfile(name.clone()));
        }
        let mut room = Self {
            id: *room,
            profile: Arc::clone(profile),
            start: *start,
            end: *end,
            people: participants.iter().map(|&(id, role)| Person::booked(id, role, profile.code_attempts)).collect(),
            features: profile.features.iter().copied().collect(),
            documents: Vec::new(),
            messages: 0,
            steps: BTreeMap::new(),
            state: State::Scheduled,
            recording: Integrity { fault: None, hole: false },
            first_live: None,
            presence: Vec::new(),
            newest: MonoTime::from_millis(mono.as_millis()),
        };
        for entry in entries {
            room.apply(entry);
        }
        Ok(room)
    }

    /// Takes in one entry of the ledger, the next one.
    pub fn apply(&mut self, entry: &Entry) {
        let now = whole_millis(Now { mono: entry.mono, wall: entry.wall });
        match &entry.event {
            Event::Booked { .. } | Event::RecordingRecovered { .. } | Event::WallClockSet { .. } => {}
            Event::Rescheduled { start, end } => self.move_to(now, *start, *end),
            Event::Cancelled => self.end_with(now, State::Cancelled),
            Event::AdmissionOpened => self.state = State::Waiting,
            Event::Expired => self.end_with(now, State::Expired),
            Event::Opened => {
                let presence = Presence::Broken { since: now.mono, before: Duration::ZERO };
                self.state = State::Open(Meeting { presence, flow: Flow::NotYet });
            }
            Event::Concluded { outcome, extension_hours: 0, .. } => {
                self.end_with(now, State::Concluded { outcome: *outcome });
            }
            Event::Concluded { outcome, extension_hours, .. } => {
                let until = later(now.wall, Duration::from_hours(u64::from(*extension_hours)));
                self.end_with(now, State::Extended { outcome: *outcome, concluded: now.wall, until });
            }
            Event::Extended { until: later } => {
                if let State::Extended { until, .. } = &mut self.state {
                    *until = *later;
                }
            }
            Event::Closed => {
                if let Some(outcome) = self.outcome() {
                    self.state = State::Closed { outcome };
                }
            }
            Event::FeatureSet { feature, on: true } => {
                self.features.insert(*feature);
            }
            Event::FeatureSet { feature, on: false } => {
                self.features.remove(feature);
            }
            Event::RecordingLost { reason } => {
                self.recording.fault = Some(*reason);
                // The recorder may notice seconds later, when the room has just been suspended for another reason.
                self.recording.hole |= self.first_live.is_some();
                // What is on disk so far says nothing about what comes: each original begins anew.
                for person in &mut self.people {
                    person.recorded.clear();
                    if let Some(link) = person.link_mut() {
                        link.missing.clear();
                    }
                }
            }
            Event::RecordingResumed => self.recording.fault = None,
            Event::PresenceHeld { ago_ms } => {
                let (since, from) = ago(now, *ago_ms);
                self.set_presence(Presence::Held { since, from, absences: Absences::default() });
            }
            Event::PresenceBroken { ago_ms, .. } => {
                let (since, _) = ago(now, *ago_ms);
                self.end_interval(since);
                self.set_presence(Presence::Broken { since, before: Duration::ZERO });
            }
            Event::WentLive => {
                self.set_flow(Flow::Live { since: now.mono, from: now.wall });
                self.first_live.get_or_insert(now.wall);
            }
            Event::Suspended { reason } => {
                self.set_flow(Flow::Suspended { reason: reason.clone(), stopped: Some(now.mono) });
            }
            Event::NodeRestarted => self.restart(now),
            Event::PictureMissing { participant, connection, source, .. } => {
                if let Some(link) = self.link_of(*participant, *connection) {
                    link.missing.insert(*source);
                }
            }
            Event::PictureBack { participant, connection, source } => {
                if let Some(link) = self.link_of(*participant, *connection) {
                    link.missing.remove(source);
                }
            }
            Event::DocumentHandedIn { .. }
            | Event::DocumentDeleted { .. }
            | Event::RegistrationAsked { .. }
            | Event::DocumentRegistered { .. }
            | Event::RegistrationRefused { .. }
            | Event::ChatSent { .. }
            | Event::StepTicked { .. } => self.apply_paper(&entry.event, now.wall),
            Event::Replaced { participant, by } => {
                let attempts = self.profile.code_attempts;
                if let Some(person) = self.person_mut(*participant) {
                    *person = Person::booked(*by, person.role, attempts);
                }
            }
            Event::CodeRejected { participant, .. }
            | Event::CodeAccepted { participant }
            | Event::SeatTaken { participant }
            | Event::DevicesChecked { participant, .. }
            | Event::CodeReissued { participant }
            | Event::CodeSent { participant }
            | Event::CodeNotSent { participant }
            | Event::ConsentGiven { participant, .. }
            | Event::EnteredWaiting { participant }
            | Event::LetIn { participant }
            | Event::SentBack { participant }
            | Event::Left { participant }
            | Event::Removed { participant }
            | Event::Connected { participant, .. }
            | Event::Disconnected { participant, .. }
            | Event::SourceStarted { participant, .. }
            | Event::SourceStopped { participant, .. }
            | Event::Attested { participant, .. }
            | Event::AttestationWithdrawn { participant }
            | Event::RecordingStarted { participant, .. } => {
                let attempts = self.profile.code_attempts;
                let at = match entry.event {
                    Event::Disconnected { silent_ms: ms, .. }
                    | Event::SourceStarted { ago_ms: ms, .. }
                    | Event::SourceStopped { ago_ms: ms, .. } => ago(now, ms).0,
                    _ => now.mono,
                };
                if let Some(person) = self.person_mut(*participant) {
                    person.apply(&entry.event, now, at, attempts);
                }
                // What comes back ends an absence or nothing, and a screen is nobody's presence: only a voice, a face
                // or a connection that goes can have begun an absence in the past.
                let began = match entry.event {
                    Event::SourceStarted { .. } | Event::SourceStopped { source: Source::Screen, .. } => now.mono,
                    _ => at,
                };
                self.watch_absence(*participant, began);
                self.watch_devices(*participant, began);
                if let Event::Attested { beside, .. } = entry.event {
                    self.watch_devices(beside, now.mono);
                }
            }
        }
        self.newest = now.mono;
    }

    /// A person's connection, if it is still this one.
    fn link_of(&mut self, participant: ParticipantId, connection: ConnectionId) -> Option<&mut Connection> {
        self.person_mut(participant)?.link_mut().filter(|link| link.id == connection)
    }

    /// Marks where an absence within the grace begins or ends, after something happened to `subject` at `at`.
    fn watch_absence(&mut self, subject: ParticipantId, at: MonoTime) {
        let missing = self.missing();
        // Whoever the subject stands for: themselves, and who sits beside them.
        let concerns = self
            .people
            .iter()
            .filter(|person| person.id == subject || person.attested_beside() == Some(subject))
            .any(|person| missing.contains(&person.role));
        let State::Open(Meeting { presence: Presence::Held { absences, .. }, .. }) = &mut self.state else {
            return;
        };
        // What happens to someone else says nothing about an absence that lasts.
        if missing.is_empty() || concerns {
            absences.watch(!missing.is_empty(), at, self.profile.absence_grace());
        }
    }

    /// Marks since when shared devices are lost, after something happened to `subject` at `at`.
    fn watch_devices(&mut self, subject: ParticipantId, at: MonoTime) {
        let seen = self.person(subject).is_some_and(|host| host.seen_and_heard_since().is_some());
        let grace = self.profile.absence_grace();
        let on_it = |attestation: &&mut Attestation| attestation.beside == subject;
        for attestation in self.people.iter_mut().filter_map(|person| person.attestation.as_mut()).filter(on_it) {
            match &mut attestation.device {
                Device::NotYet if seen => attestation.device = Device::Seen { absences: Absences::default() },
                Device::NotYet => {}
                Device::Seen { absences } => absences.watch(!seen, at, grace),
            }
        }
    }

    fn move_to(&mut self, now: Now, start: Timestamp, end: Timestamp) {
        self.start = start;
        self.end = end;
        if now.wall < self.opens_at() {
            self.state = State::Scheduled;
            // A code admits to one time window: in the new one it is asked again.
            for person in &mut self.people {
                if person.is_admitted() {
                    person.standing = Standing::Expected;
                }
            }
        }
    }

    /// The meeting is over, whichever way.
    fn end_with(&mut self, now: Now, state: State) {
        self.end_interval(now.mono);
        self.people.iter_mut().for_each(Person::drop_link);
        self.state = state;
    }

    fn end_interval(&mut self, at: MonoTime) {
        if let State::Open(meeting) = &self.state {
            // Late news may tell that the rule never held.
            self.presence.extend(meeting.presence.interval(at).filter(|interval| interval.length_ms > 0));
        }
    }

    fn restart(&mut self, now: Now) {
        // Presence is vouched for as far as the ledger goes, and the last second before a crash may not be on disk.
        self.end_interval(self.newest);
        self.recording = Integrity { fault: None, hole: self.recording.hole || self.last_media_may_be_lost() };
        for person in &mut self.people {
            person.drop_link();
            person.recorded.clear();
            if let Some(attestation) = &mut person.attestation {
                attestation.since = now.mono;
                if let Device::Seen { absences } = &mut attestation.device {
                    *absences = Absences::lasting(now.mono);
                }
            }
        }
        let newest = self.newest;
        if let State::Open(meeting) = &mut self.state {
            let before = match meeting.presence {
                Presence::Broken { since, before } => before + newest.since(since),
                Presence::Held { .. } => meeting.presence.gap().map_or(Duration::ZERO, |gap| newest.since(gap)),
            };
            meeting.presence = Presence::Broken { since: now.mono, before };
            if let Flow::Suspended { stopped, .. } = &mut meeting.flow {
                *stopped = None;
            }
        }
    }

    /// Whether the run of the node ended so soon after media flowed that the end of it may not be on disk.
    fn last_media_may_be_lost(&self) -> bool {
        match &self.state {
            State::Open(Meeting { flow: Flow::Live { .. }, .. }) => true,
            State::Open(Meeting { flow: Flow::Suspended { stopped: Some(stopped), .. }, .. }) => {
                self.newest.since(*stopped) < SURELY_ON_DISK
            }
            _ => false,
        }
    }

    fn set_presence(&mut self, presence: Presence) {
        if let State::Open(meeting) = &mut self.state {
            meeting.presence = presence;
        }
    }

    fn set_flow(&mut self, flow: Flow) {
        if let State::Open(meeting) = &mut self.state {
            meeting.flow = flow;
        }
    }
}

impl Person {
    /// Takes in an event about this person that happened at `at` and was written at `now`.
    fn apply(&mut self, event: &Event, now: Now, at: MonoTime, attempts: u8) {
        match event {
            Event::CodeRejected { attempts_left, .. } => self.attempts_left = *attempts_left,
            Event::CodeReissued { .. } => {
                self.attempts_left = attempts;
                self.message = None;
            }
            Event::CodeSent { .. } => self.message = Some(MessageState::Sent { at: now.wall }),
            Event::CodeNotSent { .. } => self.message = Some(MessageState::Failed { at: now.wall }),
            // Anyone further in stays there: the code gave a new session, on another device.
            Event::CodeAccepted { .. } | Event::SeatTaken { .. } if self.standing == Standing::Expected => {
                self.standing = Standing::Admitted;
            }
            Event::DevicesChecked { camera, microphone, .. } => {
                self.devices = Some(Devices { camera: *camera, microphone: *microphone });
            }
            Event::ConsentGiven { text_version, .. } => {
                self.consent = Some(Consent { text_version: text_version.clone(), at: now.wall });
            }
            Event::EnteredWaiting { .. } | Event::SentBack { .. } => {
                self.standing = Standing::Waiting { since: now.wall };
            }
            Event::LetIn { .. } => {
                self.came_in = true;
                self.standing = Standing::Inside { connection: None };
            }
            Event::Left { .. } => self.standing = Standing::Admitted,
            Event::Removed { .. } => self.standing = Standing::Removed,
            Event::Connected { connection: id, .. } => {
                if let Standing::Inside { connection } = &mut self.standing {
                    let replaced = connection.as_ref().map(|old| old.id);
                    let (sources, missing) = (BTreeMap::new(), BTreeSet::new());
                    *connection = Some(Connection { id: *id, sources, missing, replaced });
                }
            }
            Event::Disconnected { connection, .. } => {
                self.recorded.remove(connection);
                match self.link_mut() {
                    Some(link) if link.id == *connection => self.drop_link(),
                    Some(link) if link.replaced == Some(*connection) => link.replaced = None,
                    _ => {}
                }
            }
            Event::SourceStarted { connection, source, .. } => {
                if let Some(link) = self.link_mut().filter(|link| link.id == *connection) {
                    link.sources.insert(*source, at);
                }
            }
            Event::SourceStopped { connection, source, .. } => {
                if let Some(link) = self.link_mut().filter(|link| link.id == *connection) {
                    link.sources.remove(source);
                }
            }
            Event::Attested { beside, .. } => {
                self.attestation = Some(Attestation { beside: *beside, since: at, device: Device::NotYet });
            }
            Event::AttestationWithdrawn { .. } => self.attestation = None,
            Event::RecordingStarted { connection, .. } => {
                self.recorded.insert(*connection);
            }
            _ => {}
        }
    }
}

/// Both clocks' reading `ms` milliseconds before `now`.
fn ago(now: Now, ms: u64) -> (MonoTime, Timestamp) {
    let ago = Duration::from_millis(ms);
    (now.mono - ago, earlier(now.wall, ago))
}
