//! One room from booking to conclusion: everyone comes, goes and comes back as the script has it, and the operator ends it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::appointment::Appointment;
use crate::call::millis;
use crate::client::{Client, ClientError, Devices, Habits};
use crate::delay::Delays;
use crate::flow::Flows;
use crate::light::Light;
use crate::live::{Meters, Rooms};
use crate::media::{Film, Voice};
use crate::network::Network;
use crate::numbered::Record;
use crate::plan::Plan;
use crate::report::{ClientReport, ReturnReport, RoomReport};
use crate::script::{Cause, Departure};
use crate::target::{Meeting, Person, Server};

/// After this the room runs without those who did not get through. Longer than any threshold of interest, short
/// enough that a dead server ends the run soon.
const LONGEST_CONNECT: Duration = Duration::from_secs(15);
/// Who hangs up has sent nothing for so long, so that what is still under way arrives, and is neither lost nor missing
/// from a recording.
const FAREWELL: Duration = Duration::from_millis(500);

/// What all rooms of a run share.
pub(crate) struct Run {
    pub(crate) plan: Arc<Plan>,
    pub(crate) server: Server,
    pub(crate) film: Arc<Film>,
    /// By seat.
    pub(crate) voices: Vec<Voice>,
    pub(crate) delays: Arc<Delays>,
    pub(crate) light: Option<Light>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) flows: Arc<Flows>,
    /// How long appointments are booked for.
    pub(crate) booked_for: SignedDuration,
}

/// What a room left behind, to be held against its recording.
pub(crate) struct Evidence {
    pub(crate) number: u32,
    /// The room's name with the server.
    pub(crate) room: String,
    pub(crate) concluded: Instant,
    pub(crate) senders: Vec<Sender>,
}

/// What someone sent.
pub(crate) struct Sender {
    pub(crate) role: &'static str,
    pub(crate) record: Arc<Record>,
    /// Connections whose last packets may never have come: the network was bad, or gone.
    pub(crate) unsure: BTreeSet<u32>,
}

/// One room: booked, joined, opened, everyone admitted, held for the plan's duration, concluded.
pub(crate) async fn hold_room(number: u32, run: &Run) -> Result<(RoomReport, Evidence), String> {
    let mut stage = Stage { rooms: &run.meters.rooms, at: At::Begun };
    let held = hold(number, run, &mut stage).await;
    if held.is_ok() {
        stage.at = At::Done;
    }
    held.map_err(|error| format!("room {number}: {error}"))
}

async fn hold(number: u32, run: &Run, stage: &mut Stage<'_>) -> Result<(RoomReport, Evidence), ClientError> {
    let Run { plan, server, .. } = run;
    let began = Instant::now();
    let appointment = Appointment { lasts: run.booked_for, start: Timestamp::now(), profile: plan.profile, number };
    let meeting = server.begin_meeting(&appointment).await?;
    let seats = (0..).zip(plan.profile.roles()).zip(&run.voices);
    let seats = seats.map(|((seat, role), voice)| Seat::new(run, (number, seat, role), voice.clone()));
    let mut room = Room { number, meeting, run, began, seats: seats.collect(), returns: Vec::new() };
    for seat in &mut room.seats {
        seat.connect(&room.meeting, run, began).await?;
    }
    // The duration is that of a whole room: it counts from when all are connected, or from the patience's end.
    let _ = tokio::time::timeout(LONGEST_CONNECT, async {
        for seat in &mut room.seats {
            seat.connected(&run.meters).await;
        }
    })
    .await;
    stage.is_up();
    let flow = run.flows.begin();
    let whole = Instant::now();
    // Whether it fits was asked before the run.
    for departure in plan.script.departures(number, room.seats.len(), plan.duration).unwrap_or_default() {
        tokio::time::sleep_until((whole + departure.away.after).into()).await;
        room.departs(&departure).await?;
    }
    tokio::time::sleep_until((whole + plan.duration).into()).await;
    stage.is_over();
    drop(flow);
    room.ends().await
}

struct Room<'a> {
    number: u32,
    meeting: Meeting,
    run: &'a Run,
    began: Instant,
    seats: Vec<Seat>,
    returns: Vec<ReturnReport>,
}

impl Room<'_> {
    /// Sources of others that everyone should receive: voices and pictures.
    fn sources_expected(&self) -> usize {
        if self.run.plan.idle { 0 } else { 2 * self.seats.len().saturating_sub(1) }
    }

    fn excuse_all(&self, others_away: bool) {
        for client in self.seats.iter().filter_map(|seat| seat.client.as_ref()) {
            client.excuse(others_away);
        }
    }

    /// Someone goes, is away, and comes back.
    async fn departs(&mut self, departure: &Departure) -> Result<(), ClientError> {
        let (run, expected, began) = (self.run, self.sources_expected(), self.began);
        self.excuse_all(true);
        let Some(seat) = self.seats.get_mut(departure.seat) else { return Ok(()) };
        let returned = match departure.cause {
            Cause::Churn | Cause::Absence => seat.hangs_up(expected).await?,
            Cause::Reconnect => seat.vanishes(expected).await?,
        };
        self.returns.extend(returned);
        run.meters.away.add(1);
        tokio::time::sleep(departure.away.length).await;
        run.meters.away.sub(1);
        let suspended = self.meeting.is_suspended().await?;
        seat.returning = Some(ReturnReport {
            role: seat.role.to_owned(),
            cause: departure.cause,
            away_ms: millis(departure.away.length),
            suspended,
            join_ms: None,
            media_ms: None,
        });
        seat.connect(&self.meeting, run, began).await?;
        let _ = tokio::time::timeout(LONGEST_CONNECT, seat.connected(&run.meters)).await;
        self.excuse_all(false);
        Ok(())
    }

    /// Everyone hangs up, and the operator concludes.
    async fn ends(mut self) -> Result<(RoomReport, Evidence), ClientError> {
        let expected = self.sources_expected();
        // Nobody sends while the figures are taken, so that what is still under way is not counted as lost.
        for client in self.seats.iter().filter_map(|seat| seat.client.as_ref()) {
            client.switch(Devices::OFF);
        }
        tokio::time::sleep(FAREWELL).await;
        // All at once: whoever is left behind is told that the others' places are empty, and counts them no more.
        let leaving = self.seats.iter_mut().map(|seat| seat.client.take().map(Client::leave));
        let leaving: Vec<_> = leaving.collect();
        let all = join_all(leaving.into_iter().map(async |leaving| match leaving {
            Some(leaving) => leaving.await.map(Some),
            None => Ok(None),
        }));
        let mut report = RoomReport::new(self.number);
        let mut senders = Vec::new();
        for (mut seat, seen) in self.seats.into_iter().zip(all.await) {
            if let Some(seen) = seen? {
                self.returns.extend(seat.ended(seen, expected));
            }
            senders.extend(seat.sender());
            report.clients.extend(seat.seen.map(|seen| ClientReport { sources_expected: expected, ..seen }));
        }
        report.returns = self.returns;
        let room = self.meeting.name().to_owned();
        self.meeting.conclude().await?;
        let evidence = Evidence { number: self.number, room, concluded: Instant::now(), senders };
        Ok((report, evidence))
    }
}

/// One person of a room, over all their connections.
struct Seat {
    number: u32,
    role: &'static str,
    voice: Voice,
    habits: Habits,
    client: Option<Client>,
    present: Option<Present>,
    connections: u32,
    /// Those of them that ended without a goodbye.
    vanished: BTreeSet<u32>,
    /// What the connections that have ended saw.
    seen: Option<ClientReport>,
    /// That this connection is a return.
    returning: Option<ReturnReport>,
}

impl Seat {
    fn new(run: &Run, (room, number, role): (u32, u32, &'static str), voice: Voice) -> Self {
        let people = u32::try_from(run.voices.len()).unwrap_or(u32::MAX);
        let person = room.saturating_mul(people).saturating_add(number);
        let record = run.plan.verify.then(|| Arc::new(Record::stamping(person, Arc::clone(&run.delays))));
        let habits = Habits {
            record,
            network: run.plan.network.network(run.plan.script.seed, person),
            delays: Some(Arc::clone(&run.delays)),
            light: run.light.clone(),
            meters: Arc::clone(&run.meters),
            ..Habits::default()
        };
        let (client, present, seen, returning) = (None, None, None, None);
        let (connections, vanished) = (0, BTreeSet::new());
        Self { number, role, voice, habits, client, present, connections, vanished, seen, returning }
    }

    async fn connect(&mut self, meeting: &Meeting, run: &Run, began: Instant) -> Result<(), ClientError> {
        let person = Person {
            role: self.role,
            film: Arc::clone(&run.film),
            voice: self.voice.clone(),
            began,
            habits: self.habits.clone(),
        };
        self.connections += 1;
        let client = meeting.join(self.number, person).await?;
        if run.plan.idle {
            client.switch(Devices::OFF);
        }
        self.client = Some(client);
        Ok(())
    }

    async fn connected(&mut self, meters: &Arc<Meters>) {
        if let Some(client) = &mut self.client
            && client.connected().await
        {
            self.present = Some(Present::new(Arc::clone(meters)));
        }
    }

    async fn hangs_up(&mut self, expected: usize) -> Result<Option<ReturnReport>, ClientError> {
        let Some(client) = self.client.take() else { return Ok(None) };
        client.switch(Devices::OFF);
        tokio::time::sleep(FAREWELL).await;
        let seen = client.leave().await?;
        Ok(self.ended(seen, expected))
    }

    async fn vanishes(&mut self, expected: usize) -> Result<Option<ReturnReport>, ClientError> {
        let Some(client) = self.client.take() else { return Ok(None) };
        let seen = client.vanish().await?;
        self.vanished.insert(self.connections);
        Ok(self.ended(seen, expected))
    }

    /// A connection has ended, and this was seen; gives what is now known of the return that it was.
    fn ended(&mut self, seen: ClientReport, expected: usize) -> Option<ReturnReport> {
        self.present = None;
        let media_ms = seen.first_media_ms.filter(|_| seen.sources >= expected);
        let returned = self.returning.take().map(|back| ReturnReport { join_ms: seen.join_ms, media_ms, ..back });
        self.seen = Some(match self.seen.take() {
            Some(earlier) => earlier.followed_by(&seen),
            None => seen,
        });
        returned
    }

    fn sender(&mut self) -> Option<Sender> {
        let record = self.habits.record.take()?;
        let bad = self.habits.network != Network::default();
        let unsure = if bad { (1..=self.connections).collect() } else { std::mem::take(&mut self.vanished) };
        Some(Sender { role: self.role, record, unsure })
    }
}

/// Counted among those who are connected until it is dropped.
struct Present(Arc<Meters>);

impl Present {
    fn new(meters: Arc<Meters>) -> Self {
        meters.connected.add(1);
        Self(meters)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.connected.sub(1);
    }
}

/// Where a room is counted. Dropped before it is done, it has failed.
struct Stage<'a> {
    rooms: &'a Rooms,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Begun,
    Up,
    Over,
    Done,
}

impl Stage<'_> {
    fn is_up(&mut self) {
        self.rooms.up.add(1);
        self.at = At::Up;
    }

    fn is_over(&mut self) {
        self.rooms.up.sub(1);
        self.rooms.over.add(1);
        self.at = At::Over;
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        match self.at {
            At::Done => return,
            At::Begun => {}
            At::Up => self.rooms.up.sub(1),
            At::Over => self.rooms.over.sub(1),
        }
        self.rooms.failed.add(1);
    }
}
