//! Random commands, absences, clock jumps, losses of the recording and restarts against what must never happen.
//!
//! The room is judged by the [`Reference`], which knows only what was sent to it.

use std::cell::Cell;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::reference::{Millis, POINTS, Point, Reference, millis};
use super::steps::{Kind, Old, Start, Step, steps};
use super::world::*;
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId};
use crate::media::{RecordingFault, Source};
use crate::room::ledger::{self, Head, Line};
use crate::room::*;

struct Run {
    world: World,
    reference: Reference,
    /// The room that only reads the ledger, as it is kept and read back.
    reader: Room,
    lines: Vec<Line>,
    head: Head,
    /// Effects that were carried out.
    carried_out: usize,
    flows: bool,
    /// What the reference's time line is ahead of the monotonic clock.
    offset: Millis,
    /// The newest point of it.
    newest: Cell<Point>,
}

impl Run {
    fn new(kind: Kind, start: Start) -> Self {
        let roles = [Role::Operator, Role::Delegato, Role::Delegante, Role::Guest];
        let mut hasty = profile("delega");
        hasty.absence_grace_seconds = 3;
        hasty.minimum_presence_seconds = 20;
        hasty.longest_absence_seconds = 40;
        hasty.code_attempts = 3;
        let world = match kind {
            Kind::Delega => World::delega(),
            Kind::Hasty => World::booked(hasty, &roles),
            Kind::Videochiamata => World::booked(profile("videochiamata"), &[Role::Operator, Role::Citizen]),
        };
        let roles: Vec<Role> = world.room.people().iter().map(Person::role).collect();
        let mut run = Self {
            reference: Reference::new(&world.profile, &roles, 0),
            reader: world.room.clone(),
            lines: Vec::new(),
            head: Head::empty(),
            carried_out: 0,
            flows: false,
            offset: 0,
            newest: Cell::new(0),
            world,
        };
        run.observe();
        if !matches!(start, Start::Booked) {
            run.pass(seconds(30 * 60));
            (0..roles.len()).for_each(|who| run.enter(who));
        }
        match start {
            Start::Booked | Start::Waiting => {}
            Start::Unrecorded => {
                run.take(Step::Open);
                run.take(Step::Lose(RecordingFault::NotWritable));
                run.take(Step::Everyone);
                assert_eq!(run.world.room.missing(), []);
            }
            Start::Live => {
                run.take(Step::Open);
                run.take(Step::Everyone);
                assert_eq!(run.world.phase(), Phase::Live);
            }
        }
        run
    }

    /// A new point of the reference's time line, later than all before.
    fn now(&self) -> Point {
        let now = self.millis() * POINTS;
        self.newest.set(now.max(self.newest.get() + 1));
        self.newest.get()
    }

    fn millis(&self) -> Millis {
        self.offset + whole(self.world.now.mono)
    }

    /// A point `ago` before now and not before `earliest`, and the time that the room is told.
    fn ago(&self, ago: Millis, earliest: Point) -> (Point, MonoTime) {
        let at = (self.millis() - ago).max(millis(earliest));
        let told = MonoTime::from_millis(u64::try_from(at - self.offset).unwrap());
        (((at + 1) * POINTS - 1).min(self.now()), told)
    }

    fn id(&self, who: usize) -> ParticipantId {
        self.world.id(who)
    }

    fn take(&mut self, step: Step) {
        let people = self.world.people.len();
        let one = |who: usize| who % people;
        match step {
            Step::Pass(time) => self.pass(time),
            Step::Stall(time) => self.world.now = self.world.after(time),
            Step::SetClock(by) => {
                self.world.set_clock(by);
                self.send(Command::Tick);
            }
            Step::Restart(down) => self.restart(down),
            Step::TryCode { who, right } => self.try_code(one(who), right),
            Step::Guess { who, times } => (0..times).for_each(|_| self.try_code(one(who), false)),
            Step::ReissueCode { who } => {
                let who = one(who);
                if self.accepts(Command::ReissueCode { participant: self.id(who) }) {
                    (self.reference.people[who].wrong, self.reference.people[who].compared) = (0, 0);
                }
            }
            Step::Message { who, sent: true } => {
                assert!(self.accepts(Command::MessageSent { participant: self.id(one(who)) }));
            }
            Step::Message { who, sent: false } => {
                assert!(self.accepts(Command::MessageFailed { participant: self.id(one(who)) }));
            }
            Step::Enter { who } => self.enter(one(who)),
            Step::Open => {
                if self.accepts(Command::Open) {
                    assert!(self.knows(|person| person.role == Role::Operator && person.is_admitted()));
                    self.reference.open(self.now());
                    self.judge();
                }
            }
            Step::Admit { who } => self.admit(one(who)),
            Step::SendBack { who } => {
                let who = one(who);
                let accepted = self.world.handle(Command::SendBack { participant: self.id(who) }).refusal.is_none();
                self.goes(who, Place::Waiting, accepted);
            }
            Step::Leave { who } => {
                let who = one(who);
                let accepted = self.world.handle(Command::Leave { participant: self.id(who) }).refusal.is_none();
                self.goes(who, Place::Admitted, accepted && !self.is_over());
            }
            Step::Remove { who } => {
                let who = one(who);
                let accepted = self.world.handle(Command::Remove { participant: self.id(who) }).refusal.is_none();
                self.goes(who, Place::Removed, accepted);
                if accepted {
                    assert!(self.world.effects.contains(&Effect::EndSession(self.id(who))));
                }
            }
            Step::Replace { who } => self.replace(one(who)),
            Step::Attest { who, beside } => {
                let (who, beside) = (one(who), one(beside));
                if self.accepts(Command::Attest { participant: self.id(who), beside: self.id(beside) }) {
                    let (attested, host) = (&self.reference.people[who], &self.reference.people[beside]);
                    assert!(who != beside && attested.role != Role::Operator && host.role != Role::Operator);
                    assert!(attested.role != Role::Guest && host.role != Role::Guest);
                    assert!(self.reference.link(who).is_none() && self.reference.link(beside).is_some());
                    self.reference.attest(who, beside, self.now());
                    self.judge();
                }
            }
            Step::Withdraw { who } => {
                let who = one(who);
                if self.accepts(Command::WithdrawAttestation { participant: self.id(who) }) {
                    self.reference.withdraw(who, self.now());
                    self.judge();
                }
            }
            Step::Connect { who, old, silent_ms } => self.connect(one(who), old, silent_ms),
            Step::Source { who, source, active, ago_ms } => self.source(one(who), source, active, ago_ms),
            Step::Record { who } => {
                if let Some(connection) = self.reference.link(one(who)) {
                    self.record(one(who), connection);
                }
            }
            Step::Disconnect { who, silent_ms } => {
                if let Some(connection) = self.reference.link(one(who)) {
                    self.disconnect(connection, silent_ms);
                }
            }
            Step::Arrive { who } => self.arrive(one(who)),
            Step::Everyone => {
                for who in 0..people {
                    let sees = |source| self.reference.arrives_since(who, source).is_some();
                    if sees(Source::Microphone) && sees(Source::Camera) {
                        self.take(Step::Record { who });
                    } else if self.reference.people[who].role != Role::Guest {
                        self.arrive(who);
                    }
                }
            }
            Step::Lose(reason) => {
                self.send(Command::Tick);
                self.reference.lose_recording();
                self.send(Command::RecordingLost { reason });
            }
            Step::Resume => {
                self.reference.lost = false;
                self.send(Command::RecordingResumed);
            }
            Step::Switch { feature, on } => {
                if self.accepts(Command::SetFeature { feature, on }) {
                    assert_eq!(self.world.room.features().any(|is_on| is_on == feature), on);
                }
            }
            Step::Conclude { outcome, hours } => self.conclude(outcome, hours),
            Step::Extend { hours } => {
                let until = self.world.room.extension_until();
                if self.accepts(Command::Extend { hours }) {
                    assert!(self.world.room.extension_until() >= until && hours <= 72);
                }
            }
            Step::Reschedule { minutes } => self.reschedule(minutes),
            Step::Cancel => {
                let opened = self.reference.is_open();
                assert!(!self.accepts(Command::Cancel) || !opened);
            }
        }
    }

    /// Whether there is no meeting, and will be none.
    fn is_over(&self) -> bool {
        !matches!(self.world.phase(), Phase::Scheduled | Phase::Waiting | Phase::Live | Phase::Suspended)
    }

    // ---- Time

    fn pass(&mut self, time: Duration) {
        let end = self.world.after(time);
        while self.world.now.mono < end.mono {
            // In small steps: whatever becomes due is judged at its own time.
            let left = end.mono.since(self.world.now.mono).min(seconds(5));
            let target = self.world.after(left);
            while let Some(next) = self.world.next_due().filter(|next| next.mono <= target.mono) {
                self.world.now = next;
                self.tick();
            }
            self.world.now = target;
            self.send(Command::Tick);
        }
    }

    /// Something is due.
    fn tick(&mut self) {
        let due = self.world.room.deadline();
        self.send(Command::Tick);
        assert_ne!(self.world.room.deadline(), due, "nothing became of what was due");
    }

    /// The node dies and comes up again; it has only what was stored.
    fn restart(&mut self, down: Duration) {
        assert_eq!(ledger::verify(&self.lines).as_ref(), Ok(&self.head));
        let entries: Vec<Entry> = self.lines.iter().map(Line::entry).collect();
        assert_eq!(Room::replay(&self.world.profile, &entries).as_ref(), Ok(&self.world.room));
        let newest = (self.offset + whole(entries.last().unwrap().mono) + 1) * POINTS - 1;
        let (now, alive) = (self.now(), self.millis());
        self.reference.expire_attestations(now);
        self.reference.restart(newest, now);
        self.flows = false;
        self.world.restart(down);
        self.offset = alive - whole(self.world.now.mono);
        self.observe();
        self.judge();
    }

    /// Nobody is there any more and nothing is asked: the room must come to its end by itself.
    fn abandon(&mut self) {
        for who in 0..self.world.people.len() {
            self.take(Step::Disconnect { who, silent_ms: 0 });
        }
        for _ in 0..12 {
            if self.world.room.is_over() {
                return;
            }
            self.world.now = self.world.next_due().expect("the room waits for nothing");
            self.tick();
        }
        panic!("the room never ends: {:?}", self.world.room);
    }

    // ---- People

    fn knows(&self, what: impl Fn(&super::reference::Known) -> bool) -> bool {
        self.reference.people.iter().any(what)
    }

    fn try_code(&mut self, who: usize, right: bool) {
        let participant = self.id(who);
        let may = self.world.room.may_try_code(self.world.now, participant);
        if may.is_ok() && !right {
            // This is where the caller would compare.
            let attempts = self.world.profile.code_attempts;
            assert!(self.reference.people[who].compared < attempts, "one attempt too many is compared");
            self.reference.people[who].compared += 1;
        }
        let decision = self.world.handle(Command::TryCode { participant, right });
        match &decision.refusal {
            None => {
                assert!(right && may.is_ok());
                assert!(self.reference.people[who].place != Place::Removed);
                if self.reference.people[who].place == Place::Expected {
                    self.reference.people[who].place = Place::Admitted;
                }
            }
            Some(Refusal::WrongCode(_)) => {
                assert!(!right && may.is_ok());
                self.reference.people[who].wrong += 1;
            }
            Some(_) => {}
        }
        self.observe();
        self.judge();
    }

    fn enter(&mut self, who: usize) {
        let participant = self.id(who);
        if self.reference.people[who].place == Place::Expected {
            self.try_code(who, true);
        }
        if self.accepts(Command::Consent { participant, text_version: "2026-01".into() }) {
            assert!(self.reference.people[who].is_admitted());
            self.reference.people[who].consent = true;
        }
        let decision = self.world.handle(Command::EnterWaiting { participant });
        let open = self.reference.is_open();
        let person = &mut self.reference.people[who];
        if decision.refusal.is_none() {
            assert!(person.is_admitted() && person.consent);
            if person.place == Place::Admitted {
                person.place = Place::Waiting;
            }
            if open && person.role == Role::Operator {
                person.place = Place::Inside;
            }
        }
        self.observe();
        self.judge();
    }

    fn admit(&mut self, who: usize) {
        let decision = self.world.handle(Command::Admit { participant: self.id(who) });
        if decision.refusal.is_none() {
            assert!(self.reference.is_open());
            let place = &mut self.reference.people[who].place;
            assert!(matches!(place, Place::Waiting | Place::Inside), "{place:?}");
            *place = Place::Inside;
        }
        self.observe();
        self.judge();
    }

    fn goes(&mut self, who: usize, place: Place, accepted: bool) {
        // Who was not further than that stays where they are.
        if accepted && (self.reference.people[who].place != Place::Admitted || place == Place::Removed) {
            let now = self.now();
            self.reference.goes(who, place, now);
            if place == Place::Removed {
                self.reference.withdraw(who, now);
            }
        }
        self.observe();
        self.judge();
    }

    fn replace(&mut self, who: usize) {
        let (participant, by) = (self.id(who), ParticipantId::new(self.world.now.wall));
        let inside = self.reference.people[who].place == Place::Inside;
        let decision = self.world.handle(Command::Replace { participant, by });
        if decision.refusal.is_none() {
            assert!(!inside && !self.is_over());
            assert!(decision.effects.contains(&Effect::EndSession(participant)));
            self.world.people[who] = by;
            let now = self.now();
            self.reference.replace(who, now);
        }
        self.observe();
        self.judge();
    }

    fn arrive(&mut self, who: usize) {
        self.enter(who);
        self.admit(who);
        self.connect(who, Old::Last, 0);
        self.source(who, Source::Microphone, true, 0);
        self.source(who, Source::Camera, true, 0);
        self.take(Step::Record { who });
    }

    // ---- Media

    fn connect(&mut self, who: usize, old: Old, silent_ms: Millis) {
        let before = self.reference.link(who);
        if let (Some(before), Old::First) = (before, old) {
            self.disconnect(before, silent_ms);
        }
        let connection = ConnectionId::new(self.world.now.wall);
        let decision = self.world.handle(Command::Connected { participant: self.id(who), connection });
        let person = &self.reference.people[who];
        if decision.refusal.is_none() {
            assert!(self.reference.is_open() && person.place == Place::Inside && person.consent);
            let now = self.now();
            self.reference.expire_attestations(now);
            self.reference.connect(who, connection, now);
        }
        self.observe();
        self.judge();
        if let (Some(before), Old::Last) = (before, old) {
            self.disconnect(before, silent_ms);
        }
    }

    fn disconnect(&mut self, connection: ConnectionId, silent_ms: Millis) {
        let (at, last_seen) = self.ago(silent_ms, self.reference.known_until(connection));
        self.reference.disconnect(connection, at);
        self.send(Command::Disconnected { connection, last_seen });
    }

    fn source(&mut self, who: usize, source: Source, active: bool, ago_ms: Millis) {
        let Some(connection) = self.reference.link(who) else { return };
        let now = self.now();
        let (at, since) = match self.reference.arrives_since(who, source) {
            Some(since) if !active => self.ago(ago_ms, since),
            _ => self.ago(0, now),
        };
        // An attestation that has run out does not come back with the device.
        self.reference.expire_attestations(now);
        self.reference.source(connection, source, active, at);
        self.send(Command::SourceChanged { connection, source, active, since });
    }

    fn record(&mut self, who: usize, connection: ConnectionId) {
        self.reference.record(connection);
        self.send(Command::RecordingStarted { participant: self.id(who), connection });
    }

    // ---- The act and the booking

    fn conclude(&mut self, outcome: Outcome, hours: u16) {
        let decision = self.world.handle(Command::Conclude { outcome, extension_hours: hours });
        if decision.refusal.is_none() {
            assert!(self.world.profile.outcomes.contains(&outcome) && hours <= 72);
            if outcome == Outcome::Granted {
                self.may_be_granted();
            }
        }
        self.observe();
        self.judge();
    }

    fn may_be_granted(&mut self) {
        let now = self.now();
        self.reference.expire_attestations(now);
        let (reference, good) = (&self.reference, self.reference.good_for(now));
        assert!(reference.is_open() && reference.holds(), "granted while someone is missing");
        assert!(!reference.hole && !reference.lost && !reference.sends_unrecorded(), "granted with a hole");
        assert!(good >= reference.minimum, "granted after {good} ms of presence");
    }

    fn reschedule(&mut self, minutes: i64) {
        let start = self.world.now.wall + SignedDuration::from_mins(minutes);
        let command = Command::Reschedule { start, end: start + SignedDuration::from_mins(30) };
        let opened = self.reference.is_open();
        if self.accepts(command) {
            assert!(!opened && minutes >= 0);
            if self.world.now.wall < start - self.world.profile.admission_opens() {
                assert_eq!(self.world.phase(), Phase::Scheduled);
                for person in self.reference.people.iter_mut().filter(|person| person.is_admitted()) {
                    person.place = Place::Expected;
                }
            }
            self.judge();
        }
    }

    // ---- What follows, and the judgement

    fn accepts(&mut self, command: Command) -> bool {
        let accepted = self.world.handle(command).refusal.is_none();
        self.observe();
        accepted
    }

    fn send(&mut self, command: Command) {
        self.world.handle(command);
        self.observe();
        self.judge();
    }

    /// Carries out the effects, and reads what the ledger gained.
    fn observe(&mut self) {
        let now = self.now();
        for effect in &self.world.effects[self.carried_out..] {
            match effect {
                Effect::StartFlow if !self.flows => {
                    assert!(!self.reference.sends_unrecorded(), "media flows before it is on disk");
                    self.flows = true;
                }
                Effect::StopFlow | Effect::CloseMedia => self.flows = false,
                Effect::StartFlow | Effect::Disconnect(_) | Effect::EndSession(_) => {}
            }
            self.reference.flow(self.flows, now);
        }
        self.carried_out = self.world.effects.len();
        for entry in &self.world.ledger[self.lines.len()..] {
            let line = ledger::chain(&self.head, entry);
            let read: Line = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
            assert_eq!(read, line);
            self.head = read.head();
            // The booking made the reader.
            if !self.lines.is_empty() {
                self.reader.apply(&read.entry());
            }
            self.lines.push(read);
        }
        assert_eq!(self.reader, self.world.room, "the fold of the ledger equals the state");
        if self.reference.is_open() && !self.world.room.is_open() {
            self.reference.expire_attestations(now);
            self.reference.end(now);
        }
    }

    fn judge(&mut self) {
        let now = self.now();
        self.reference.expire_attestations(now);
        let (room, reference) = (&self.world.room, &self.reference);
        // Media and what permits it.
        assert_eq!(room.flow(), room.phase() == Phase::Live);
        assert_eq!(self.flows, room.flow(), "the effects say something else than the phase");
        assert_eq!(reference.is_open(), room.is_open());
        if reference.is_open() {
            let absent = reference.absent_for(now);
            assert!(!self.flows || absent < reference.grace, "media flows after {absent} ms of absence");
            assert!(!self.flows || !reference.lost, "media flows unrecorded");
            let ready = reference.holds() && !reference.lost && !reference.sends_unrecorded();
            assert!(self.flows || !ready, "nothing is missing, and media does not flow");
        } else {
            assert!(!self.flows, "media flows when there is no meeting");
        }
        let shown = room.presence_intervals(self.world.now);
        let shown = shown.iter().map(|interval| Millis::try_from(interval.length_ms).unwrap());
        assert_eq!(shown.filter(|&length| length > 0).collect::<Vec<_>>(), reference.proof(now));
        // People.
        for (person, known) in room.people().iter().zip(&reference.people) {
            assert_eq!((person.role(), person.place()), (known.role, known.place));
            assert_eq!(person.attempts_left(), self.world.profile.code_attempts - known.wrong, "attempts");
            assert_eq!(person.consent().is_some(), known.consent);
        }
        // A deadline that has passed was carried out: nobody waits for it in vain, or in a loop.
        let deadline = room.deadline();
        assert!(deadline.mono.is_none_or(|mono| mono > self.world.now.mono), "{deadline:?} has passed");
        assert!(deadline.wall.is_none_or(|wall| wall > self.world.now.wall), "{deadline:?} has passed");
    }
}

fn whole(at: MonoTime) -> Millis {
    Millis::try_from(at.as_millis()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Each case is up to 60 steps. The same seed every time: a failure is the change's, not the day's. The two
        // variables are for looking further.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_200),
        rng_seed: std::env::var("PROPTEST_RNG_SEED").ok().and_then(|n| n.parse().ok()).map_or(RngSeed::Fixed(2026), RngSeed::Fixed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_order_of_events_breaks_the_rules(
        kind in prop::sample::select(vec![Kind::Delega, Kind::Delega, Kind::Hasty, Kind::Videochiamata]),
        start in prop::sample::select(vec![Start::Booked, Start::Waiting, Start::Unrecorded, Start::Live, Start::Live]),
        steps in steps(),
    ) {
        let mut run = Run::new(kind, start);
        for step in steps {
            run.take(step);
        }
        run.abandon();
        let entries: Vec<Entry> = run.lines.iter().map(Line::entry).collect();
        prop_assert_eq!(Room::replay(&run.world.profile, &entries), Ok(run.world.room));
    }
}
