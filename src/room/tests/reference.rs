//! A reckoning of a room from the bare sequence of facts: who was seen and heard when, by intervals on one time line.
//!
//! It shares nothing with the room: it keeps everything and computes anew at each question, where the room keeps a
//! little and updates it.

use std::collections::BTreeSet;

use crate::id::ConnectionId;
use crate::media::Source;
use crate::room::{Place, Profile, Role};

/// Milliseconds.
pub(super) type Millis = i64;

/// A point on a time line that goes on across restarts, without the time in between. Finer than a millisecond, so that
/// what happens in one millisecond has an order; only whole milliseconds count in durations, as in the room.
pub(super) type Point = i64;

/// Points in a millisecond: more than anything that happens in one.
pub(super) const POINTS: Point = 100_000;

/// Half-open times, in order and apart from each other.
type Times = Vec<(Point, Point)>;

/// The millisecond that a point lies in.
pub(super) fn millis(at: Point) -> Millis {
    at.div_euclid(POINTS)
}

fn between(from: Point, until: Point) -> Millis {
    millis(until) - millis(from)
}

pub(super) struct Reference {
    pub(super) grace: Millis,
    pub(super) minimum: Millis,
    required: Vec<Role>,
    pub(super) people: Vec<Known>,
    links: Vec<Link>,
    attestations: Vec<Attestation>,
    opened: Option<Point>,
    /// Start of this run of the node.
    run: Point,
    /// When media flowed, newest last; open at its end while it flows.
    flows: Vec<(Point, Option<Point>)>,
    /// Lengths of the presence intervals of earlier runs, or of all when the meeting is over.
    proof: Vec<Millis>,
    over: bool,
    pub(super) lost: bool,
    pub(super) hole: bool,
    recorded: BTreeSet<ConnectionId>,
}

/// What is known of a person apart from media.
pub(super) struct Known {
    pub(super) role: Role,
    pub(super) place: Place,
    pub(super) consent: bool,
    /// Wrong codes since the code was issued that were counted.
    pub(super) wrong: u8,
    /// Wrong codes since the code was issued that were compared.
    pub(super) compared: u8,
}

struct Link {
    who: usize,
    id: ConnectionId,
    from: Point,
    until: Point,
    sources: Vec<(Source, Point, Point)>,
}

struct Attestation {
    who: usize,
    beside: usize,
    /// Whether the device was seen and heard then, as far as was known.
    seen: bool,
    from: Point,
    until: Point,
}

impl Known {
    fn booked(role: Role) -> Self {
        Self { role, place: Place::Expected, consent: false, wrong: 0, compared: 0 }
    }

    pub(super) fn is_admitted(&self) -> bool {
        matches!(self.place, Place::Admitted | Place::Waiting | Place::Inside)
    }
}

impl Reference {
    pub(super) fn new(profile: &Profile, roles: &[Role], now: Point) -> Self {
        Self {
            grace: Millis::from(profile.absence_grace_seconds) * 1_000,
            minimum: Millis::from(profile.minimum_presence_seconds) * 1_000,
            required: profile.required.clone(),
            people: roles.iter().map(|&role| Known::booked(role)).collect(),
            links: Vec::new(),
            attestations: Vec::new(),
            opened: None,
            run: now,
            flows: Vec::new(),
            proof: Vec::new(),
            over: false,
            lost: false,
            hole: false,
            recorded: BTreeSet::new(),
        }
    }

    // ---- Facts

    pub(super) fn open(&mut self, now: Point) {
        self.opened.get_or_insert(now);
        for person in &mut self.people {
            if person.role == Role::Operator && person.is_admitted() && person.consent {
                person.place = Place::Inside;
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some() && !self.over
    }

    /// Whoever is not in the room any more sends nothing, and nobody sits beside them.
    pub(super) fn goes(&mut self, who: usize, place: Place, now: Point) {
        self.people[who].place = place;
        self.links.iter_mut().filter(|link| link.who == who).for_each(|link| link.until = link.until.min(now));
        self.end_attestations(now, |attestation| attestation.beside == who);
    }

    pub(super) fn replace(&mut self, who: usize, now: Point) {
        self.goes(who, Place::Expected, now);
        self.withdraw(who, now);
        self.people[who] = Known::booked(self.people[who].role);
    }

    /// The connection that stands.
    pub(super) fn link(&self, who: usize) -> Option<ConnectionId> {
        self.standing(who).map(|link| link.id)
    }

    /// Earliest time at which a connection can have been seen last: nothing of it is known later.
    pub(super) fn known_until(&self, connection: ConnectionId) -> Point {
        let link = self.links.iter().find(|link| link.id == connection).unwrap();
        let ends = |&(_, from, until): &(_, Millis, Millis)| if until == Point::MAX { from } else { until };
        link.sources.iter().map(ends).max().unwrap_or(link.from)
    }

    /// Since when a source arrives; `None`: it does not.
    pub(super) fn arrives_since(&self, who: usize, source: Source) -> Option<Point> {
        let link = self.standing(who)?;
        link.sources.iter().find(|&&(of, _, until)| of == source && until == Point::MAX).map(|&(_, from, _)| from)
    }

    pub(super) fn connect(&mut self, who: usize, id: ConnectionId, now: Point) {
        for link in self.links.iter_mut().filter(|link| link.who == who) {
            link.until = link.until.min(now);
        }
        self.withdraw(who, now);
        self.links.push(Link { who, id, from: now, until: Point::MAX, sources: Vec::new() });
    }

    pub(super) fn disconnect(&mut self, connection: ConnectionId, last_seen: Point) {
        for link in self.links.iter_mut().filter(|link| link.id == connection) {
            link.until = link.until.min(last_seen);
        }
        self.recorded.remove(&connection);
    }

    pub(super) fn source(&mut self, connection: ConnectionId, source: Source, active: bool, at: Point) {
        let Some(link) = self.links.iter_mut().find(|link| link.id == connection) else { return };
        let running = link.sources.iter_mut().find(|&&mut (of, _, until)| of == source && until == Point::MAX);
        match (running, active) {
            (None, true) => link.sources.push((source, at, Point::MAX)),
            (Some((_, _, until)), false) => *until = at,
            _ => {}
        }
    }

    pub(super) fn attest(&mut self, who: usize, beside: usize, now: Point) {
        let stands = |a: &Attestation| a.who == who && a.beside == beside && a.until == Point::MAX;
        if !self.attestations.iter().any(stands) {
            self.withdraw(who, now);
            let seen = self.own(beside).last().is_some_and(|&(_, until)| until == Point::MAX);
            self.attestations.push(Attestation { who, beside, seen, from: now, until: Point::MAX });
        }
    }

    pub(super) fn withdraw(&mut self, who: usize, now: Point) {
        self.end_attestations(now, |attestation| attestation.who == who);
    }

    pub(super) fn record(&mut self, connection: ConnectionId) {
        if self.is_open() {
            self.recorded.insert(connection);
        }
    }

    pub(super) fn lose_recording(&mut self) {
        self.lost = self.is_open();
        self.hole |= !self.flows.is_empty();
        self.recorded.clear();
    }

    pub(super) fn flow(&mut self, on: bool, now: Point) {
        match self.flows.last_mut() {
            Some((_, until @ None)) if !on => *until = Some(now),
            Some((_, None)) => {}
            _ if on => self.flows.push((now, None)),
            _ => {}
        }
    }

    /// The node is gone, and with it every connection; `newest`: how far its ledger goes.
    pub(super) fn restart(&mut self, newest: Point, now: Point) {
        // What flowed in the two seconds before may not be on disk.
        self.hole |= self.flows.last().is_some_and(|&(_, until)| until.is_none_or(|until| between(until, now) < 2_000));
        self.finish_proof(newest);
        self.flow(false, now);
        self.links.iter_mut().for_each(|link| link.until = link.until.min(now));
        self.recorded.clear();
        self.lost = false;
        self.run = now;
    }

    pub(super) fn end(&mut self, now: Point) {
        if !self.over {
            self.finish_proof(now);
            self.over = true;
            self.links.iter_mut().for_each(|link| link.until = link.until.min(now));
        }
    }

    /// Ends the attestations whose device has not been seen and heard for longer than the grace.
    pub(super) fn expire_attestations(&mut self, now: Point) {
        for index in 0..self.attestations.len() {
            let Attestation { beside, seen, from, until, .. } = self.attestations[index];
            let earliest = if seen { Point::MIN } else { from };
            let seen = intersect(&self.own(beside), &[(earliest, until)]);
            let gaps = seen.iter().enumerate().map(|(at, &(_, end))| {
                let next = seen.get(at + 1).map_or(now, |&(start, _)| start);
                (end, between(end.max(self.run.min(next)), next), next)
            });
            let mut gaps = gaps.filter(|&(end, _, next)| end < now && next > from);
            if let Some((end, ..)) = gaps.find(|&(_, length, _)| length >= self.grace) {
                self.attestations[index].until = until.min(end);
            }
        }
    }

    // ---- Questions

    /// Whether something arrives that is not known to be on disk.
    pub(super) fn sends_unrecorded(&self) -> bool {
        let sends = |link: &&Link| link.sources.iter().any(|&(.., until)| until == Point::MAX);
        let standing = self.links.iter().filter(|link| link.until == Point::MAX);
        standing.filter(sends).any(|link| !self.recorded.contains(&link.id))
    }

    /// Whether the presence rule holds now.
    pub(super) fn holds(&self) -> bool {
        self.rule().last().is_some_and(|&(_, until)| until == Point::MAX)
    }

    /// How long the rule has not held.
    pub(super) fn absent_for(&self, now: Point) -> Millis {
        match self.rule().last() {
            Some(&(_, Point::MAX)) => 0,
            Some(&(_, until)) => between(until, now),
            None => Millis::MAX,
        }
    }

    /// For how long the rule has held and media has flowed, without an absence past the grace.
    pub(super) fn good_for(&self, now: Point) -> Millis {
        match (self.flows.last(), self.intervals().last()) {
            (Some(&(flowing, None)), Some(&(from, Point::MAX))) => between(from.max(flowing), now),
            _ => 0,
        }
    }

    /// Lengths of the presence intervals.
    pub(super) fn proof(&self, now: Point) -> Vec<Millis> {
        let mut proof = self.proof.clone();
        if !self.over {
            proof.extend(lengths(&self.intervals(), now));
        }
        proof
    }

    // ---- Reckoning

    fn standing(&self, who: usize) -> Option<&Link> {
        self.links.iter().find(|link| link.who == who && link.until == Point::MAX)
    }

    fn end_attestations(&mut self, now: Point, which: impl Fn(&Attestation) -> bool) {
        let ended = self.attestations.iter_mut().filter(|attestation| which(attestation));
        ended.for_each(|attestation| attestation.until = attestation.until.min(now));
    }

    fn finish_proof(&mut self, until: Point) {
        if self.over {
            return;
        }
        let ended = intersect(&self.intervals(), &[(Point::MIN, until)]);
        self.proof.extend(lengths(&ended, until));
    }

    /// When someone was seen and heard over one connection.
    fn own(&self, who: usize) -> Times {
        let mut times = Times::new();
        for link in self.links.iter().filter(|link| link.who == who) {
            let sent = |source: Source| {
                let of = link.sources.iter().filter(|&&(of, ..)| of == source);
                of.map(|&(_, from, until)| (from, until)).collect::<Times>()
            };
            let both = intersect(&sent(Source::Microphone), &sent(Source::Camera));
            times.extend(intersect(&both, &[(link.from, link.until)]));
        }
        union(times)
    }

    /// When the presence rule held in this run.
    fn rule(&self) -> Times {
        let Some(opened) = self.opened else { return Times::new() };
        let mut times = vec![(opened.max(self.run), Point::MAX)];
        for &role in &self.required {
            let mut present = Times::new();
            for (who, _) in self.people.iter().enumerate().filter(|(_, person)| person.role == role) {
                present.extend(self.own(who));
                for attestation in self.attestations.iter().filter(|attestation| attestation.who == who) {
                    let attested = [(attestation.from, attestation.until)];
                    present.extend(intersect(&self.own(attestation.beside), &attested));
                }
            }
            times = intersect(&times, &union(present));
        }
        times
    }

    /// The presence intervals of this run: absences within the grace do not end one.
    fn intervals(&self) -> Times {
        let mut intervals = Times::new();
        for (from, until) in self.rule() {
            match intervals.last_mut() {
                Some((_, end)) if between(*end, from) < self.grace => *end = until,
                _ => intervals.push((from, until)),
            }
        }
        intervals
    }
}

fn lengths(intervals: &[(Point, Point)], now: Point) -> Vec<Millis> {
    intervals.iter().map(|&(from, until)| between(from, until.min(now))).filter(|&length| length > 0).collect()
}

fn intersect(a: &[(Point, Point)], b: &[(Point, Point)]) -> Times {
    let pairs = a.iter().flat_map(|&(from, until)| b.iter().map(move |&(f, u)| (from.max(f), until.min(u))));
    union(pairs.collect())
}

fn union(mut times: Times) -> Times {
    times.retain(|&(from, until)| from < until);
    times.sort_unstable();
    let mut apart = Times::new();
    for (from, until) in times {
        match apart.last_mut() {
            Some((_, end)) if from <= *end => *end = until.max(*end),
            _ => apart.push((from, until)),
        }
    }
    apart
}
