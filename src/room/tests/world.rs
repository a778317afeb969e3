//! A room on virtual time: what control does with decisions, without a store, a worker or a recorder.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::room::{
    Appointment, Command, Decision, Effect, Entry, Event, Outcome, Phase, Profile, Refusal, Role, Room, SuspendReason,
};

pub(super) const NINE: &str = "2026-01-13T09:00:00Z";

/// One person's place in [`World::people`].
pub(super) const OPERATOR: usize = 0;
pub(super) const DELEGATO: usize = 1;
pub(super) const DELEGANTE: usize = 2;
pub(super) const GUEST: usize = 3;

pub(super) struct World {
    pub(super) profile: Arc<Profile>,
    pub(super) room: Room,
    pub(super) ledger: Vec<Entry>,
    pub(super) now: Now,
    pub(super) people: Vec<ParticipantId>,
    /// Everything that was to be done, oldest first.
    pub(super) effects: Vec<Effect>,
}

pub(super) fn profile(name: &str) -> Profile {
    Profile::shipped().into_iter().find(|profile| profile.name == name).unwrap()
}

pub(super) fn wall(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    /// A `delega` room from 9:00 to 9:30, with a guest; it is 8:30.
    pub(super) fn delega() -> Self {
        Self::booked(profile("delega"), &[Role::Operator, Role::Delegato, Role::Delegante, Role::Guest])
    }

    /// A `videochiamata` room from 9:00 to 9:30; it is 8:30.
    pub(super) fn videochiamata() -> Self {
        Self::booked(profile("videochiamata"), &[Role::Operator, Role::Citizen])
    }

    pub(super) fn booked(profile: Profile, roles: &[Role]) -> Self {
        let start = wall(NINE);
        let now = Now { mono: MonoTime::from_millis(5_000), wall: start - SignedDuration::from_mins(30) };
        let participants: Vec<_> = roles.iter().map(|&role| (ParticipantId::new(now.wall), role)).collect();
        let people = participants.iter().map(|&(id, _)| id).collect();
        let end = start + SignedDuration::from_mins(30);
        let appointment = Appointment { room: RoomId::new(now.wall), start, end, participants };
        let booked = Entry::at(now, Room::book(now, &profile, appointment).unwrap());
        let profile = Arc::new(profile);
        let room = Room::replay(&profile, [&booked]).unwrap();
        Self { profile, room, ledger: vec![booked], now, people, effects: Vec::new() }
    }

    /// A `delega` room at 9:00 in which everyone but the guest waits with their consent; nobody has opened it.
    pub(super) fn waiting() -> Self {
        let mut world = Self::delega();
        world.until(NINE);
        for who in [OPERATOR, DELEGATO, DELEGANTE] {
            world.enter(who);
        }
        world
    }

    /// A `delega` room that went live at 9:00.
    pub(super) fn live() -> Self {
        let mut world = Self::waiting();
        world.ok(Command::Open);
        world.admit(DELEGATO);
        world.admit(DELEGANTE);
        for who in [OPERATOR, DELEGATO, DELEGANTE] {
            world.join(who);
        }
        assert_eq!(world.room.phase(), Phase::Live);
        world
    }

    // ---- Time

    /// Lets time pass; what becomes due on the way is done when it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let target = self.after(time);
        while let Some(next) = self.next_due().filter(|next| next.mono <= target.mono) {
            self.now = next;
            let due = self.room.deadline();
            self.ok(Command::Tick);
            assert_ne!(self.room.deadline(), due, "nothing became of what was due");
        }
        self.now = target;
        self.ok(Command::Tick);
    }

    /// Lets time pass until the wall clock reads `at`.
    pub(super) fn until(&mut self, at: &str) {
        self.pass(wall(at).duration_since(self.now.wall).unsigned_abs());
    }

    /// The wall clock is set; no time passes.
    pub(super) fn set_clock(&mut self, by: SignedDuration) {
        self.now.wall += by;
    }

    pub(super) fn after(&self, time: Duration) -> Now {
        Now { mono: self.now.mono + time, wall: self.now.wall + time }
    }

    pub(super) fn next_due(&self) -> Option<Now> {
        let deadline = self.room.deadline();
        let mono = deadline.mono.map(|mono| mono.since(self.now.mono));
        let wall = deadline.wall.map(|at| at.duration_since(self.now.wall).max(SignedDuration::ZERO).unsigned_abs());
        mono.into_iter().chain(wall).min().map(|time| self.after(time))
    }

    /// A time of this run: `ago` before now.
    pub(super) fn ago(&self, ago: Duration) -> MonoTime {
        self.now.mono - ago
    }

    // ---- Commands

    /// Persist, announce: as control does.
    pub(super) fn handle(&mut self, command: Command) -> Decision {
        let decision = self.room.handle(self.now, command);
        for event in &decision.events {
            let entry = Entry::at(self.now, event.clone());
            self.room.apply(&entry);
            self.ledger.push(entry);
        }
        self.effects.extend(decision.effects.iter().cloned());
        decision
    }

    pub(super) fn ok(&mut self, command: Command) -> Decision {
        let shown = format!("{command:?}");
        let decision = self.handle(command);
        assert_eq!(decision.refusal, None, "{shown}");
        decision
    }

    /// Refused, and nothing happened.
    pub(super) fn refused(&mut self, command: Command) -> Refusal {
        let shown = format!("{command:?}");
        let decision = self.handle(command);
        assert_eq!(decision.events, [], "{shown}");
        decision.refusal.unwrap_or_else(|| panic!("{shown} was accepted"))
    }

    pub(super) fn id(&self, who: usize) -> ParticipantId {
        self.people[who]
    }

    /// Right code, consent, «Entra nella stanza».
    pub(super) fn enter(&mut self, who: usize) {
        let participant = self.id(who);
        self.ok(Command::TryCode { participant, right: true });
        self.ok(Command::Consent { participant, text_version: "2026-01".into() });
        self.ok(Command::EnterWaiting { participant });
    }

    pub(super) fn admit(&mut self, who: usize) {
        self.ok(Command::Admit { participant: self.id(who) });
    }

    /// A connection with voice and face, recorded.
    pub(super) fn join(&mut self, who: usize) -> ConnectionId {
        let connection = self.connect(who);
        self.source(connection, Source::Microphone, true, seconds(0));
        self.source(connection, Source::Camera, true, seconds(0));
        self.record(who, connection);
        connection
    }

    pub(super) fn connect(&mut self, who: usize) -> ConnectionId {
        let connection = ConnectionId::new(self.now.wall);
        self.ok(Command::Connected { participant: self.id(who), connection });
        connection
    }

    pub(super) fn record(&mut self, who: usize, connection: ConnectionId) {
        self.ok(Command::RecordingStarted { participant: self.id(who), connection });
    }

    pub(super) fn source(&mut self, connection: ConnectionId, source: Source, active: bool, ago: Duration) -> Decision {
        let since = self.ago(ago);
        self.ok(Command::SourceChanged { connection, source, active, since })
    }

    /// The worker's word that the camera went on or off just now.
    pub(super) fn camera(&mut self, who: usize, on: bool) -> Decision {
        let connection = self.room.person(self.id(who)).unwrap().connection().unwrap();
        self.source(connection, Source::Camera, on, seconds(0))
    }

    pub(super) fn drop_connection(&mut self, who: usize, silent: Duration) -> Decision {
        let connection = self.room.person(self.id(who)).unwrap().connection().unwrap();
        let last_seen = self.ago(silent);
        self.ok(Command::Disconnected { connection, last_seen })
    }

    pub(super) fn lose_recording(&mut self) -> Decision {
        self.ok(Command::RecordingLost { reason: RecordingFault::DiskFull })
    }

    pub(super) fn conclude(&mut self, outcome: Outcome, extension_hours: u16) -> Decision {
        self.handle(Command::Conclude { outcome, extension_hours })
    }

    /// The node comes up after `down`: the room is read from its ledger, the monotonic clock starts anew.
    pub(super) fn restart(&mut self, down: Duration) -> Decision {
        self.room = Room::replay(&self.profile, &self.ledger).unwrap();
        self.now = Now { mono: MonoTime::from_millis(1_500), wall: self.now.wall + down };
        self.ok(Command::Restarted)
    }

    // ---- What to look at

    pub(super) fn phase(&self) -> Phase {
        self.room.phase()
    }

    pub(super) fn has_happened(&self, event: &Event) -> bool {
        self.ledger.iter().any(|entry| entry.event == *event)
    }

    /// Whether media flows as far as the effects that were carried out say.
    pub(super) fn forwards(&self) -> bool {
        let mut flows = false;
        for effect in &self.effects {
            match effect {
                Effect::StartFlow => flows = true,
                Effect::StopFlow | Effect::CloseMedia => flows = false,
                Effect::Disconnect(_) | Effect::EndSession(_) => {}
            }
        }
        flows
    }
}

pub(super) fn absent(missing: &[Role]) -> SuspendReason {
    SuspendReason::Absence { missing: missing.to_vec() }
}
