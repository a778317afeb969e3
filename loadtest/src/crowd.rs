//! Those who are not in the rooms: appointments of other days, people in waiting rooms, and a probe that asks the API as
//! booking systems and pages do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::{Api, ApiError};
use crate::appointment::{Appointment, Profile};
use crate::client::ClientError;
use crate::events::{self, Slot};
use crate::live::Meters;
use crate::timing::{Figures, Times};

/// Those around the rooms.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Around the rooms")]
pub struct CrowdOptions {
    /// Further rooms that are booked before the first one begins, of other days.
    #[arg(long, value_name = "ROOMS", default_value_t = 0)]
    pub booked: u32,
    /// Further people who type their codes before the first room begins, and stay in waiting rooms, their events open.
    /// Each is a join more for the server's `http.join_burst` and `http.join_per_minute`.
    #[arg(long, value_name = "PEOPLE", default_value_t = 0)]
    pub waiting: u32,
    /// Requests a second that a probe makes while all rooms are up: books a room of another day, lists a page of rooms,
    /// reads a room, reads the session of someone who waits, in turn. 20, if --booked, --waiting or --max-api-p99 is there and this
    /// is not; else none.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub api_rate: Option<u32>,
}

/// Requests at the same time while the crowd gathers. More: it gathers sooner, in larger bursts.
const AT_ONCE: usize = 8;
/// Appointments of other days begin every so many minutes, and so many at the same time, each day.
const STEP_MINUTES: u32 = 15;
const A_DAY: u32 = 24 * 60 / STEP_MINUTES * 10;

/// Those who were booked or wait. Dropped, the waiting close their events.
pub(crate) struct Crowd {
    /// Booked rooms, by name.
    rooms: Vec<String>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    session: String,
    events: mpsc::Receiver<HashMap<String, Slot>>,
}

impl Crowd {
    /// Books the rooms, and lets the people come.
    pub(crate) async fn gather(
        api: &Api,
        key: &str,
        (profile, options): (Profile, &CrowdOptions),
        lasts: SignedDuration,
        meters: &Arc<Meters>,
    ) -> Result<Self, ClientError> {
        meters.begin("booking", options.booked.into());
        let rooms = stream::iter(0..options.booked).map(async |number| {
            let booked = api.book(key, &of_another_day(profile, number)?).await?;
            meters.advance();
            Ok::<_, ClientError>(booked.room.id)
        });
        let rooms = rooms.buffer_unordered(AT_ONCE).try_collect().await?;

        meters.begin("waiting", options.waiting.into());
        // The operator does not wait.
        let guests = u32::try_from(profile.roles().len() - 1).unwrap_or(1);
        let booked = stream::iter(0..options.waiting.div_ceil(guests)).map(async |number| {
            let appointment = Appointment { lasts, ..Appointment::now(profile, number) };
            let booked = api.book(key, &appointment).await?.participants;
            Ok::<_, ClientError>(booked.into_iter().filter(|participant| participant.role != "operator"))
        });
        let booked: Vec<_> = booked.buffer_unordered(AT_ONCE).try_collect().await?;
        let people = booked.into_iter().flatten().take(usize::try_from(options.waiting).unwrap_or(usize::MAX));
        let waiting = stream::iter(people).map(async |participant| {
            let session = api.join(&participant).await?;
            let events = events::listen(api, &session).await?;
            meters.waiting.add(1);
            meters.advance();
            Ok::<_, ClientError>(Waiting { session, events })
        });
        let waiting = waiting.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self { rooms, waiting })
    }

    /// How many of those who wait still hear the server's events.
    pub(crate) fn still_waiting(&self) -> usize {
        self.waiting.iter().filter(|waiting| !waiting.events.is_closed()).count()
    }
}

/// Those around the rooms, and what the probe found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CrowdReport {
    /// Rooms of other days.
    pub booked: u32,
    /// People who came into waiting rooms.
    pub waiting: u32,
    /// People whose events were still open at the end.
    pub still_waiting: usize,
    /// What the probe found, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
}

/// How the API answered while rooms were up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProbeReport {
    /// Requests a second that were made.
    pub rate: u32,
    /// How long it was asked for, seconds.
    pub seconds: f64,
    /// Times by kind of request.
    pub kinds: BTreeMap<Request, Figures>,
    /// Requests that brought nothing.
    pub failed: u64,
    /// What the first of them was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A room of another day is booked.
    BookRoom,
    /// A page of a day's rooms is read.
    ListRooms,
    /// A room is read.
    ReadRoom,
    /// Someone in a waiting room reads their session.
    ReadSession,
}

impl Request {
    const ALL: [Self; 4] = [Self::BookRoom, Self::ListRooms, Self::ReadRoom, Self::ReadSession];

    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BookRoom => "booking a room",
            Self::ListRooms => "listing rooms",
            Self::ReadRoom => "reading a room",
            Self::ReadSession => "reading a session",
        }
    }
}

/// Rooms of a page that the probe lists.
const PAGE: u32 = 50;
/// How often it is looked whether the rooms are up.
const GLANCE: Duration = Duration::from_millis(50);
/// Requests without an answer so far; what would go beyond counts as failed.
const MOST_WAITING: usize = 1_000;

/// What the probe knows.
pub(crate) struct Probe {
    pub(crate) api: Api,
    pub(crate) key: String,
    pub(crate) profile: Profile,
    /// Requests a second.
    pub(crate) rate: u32,
    pub(crate) meters: Arc<Meters>,
}

impl Probe {
    /// Asks from when all rooms are up until the first of them is over; if they are never all up at once, from the first
    /// one's end to the last one's. Requests begin at their time, whether or not others were answered.
    pub(crate) async fn run(self, crowd: &Crowd) -> Result<ProbeReport, ClientError> {
        let mut rooms = crowd.rooms.clone();
        // There must be something to read.
        if rooms.is_empty() {
            rooms.push(self.api.book(&self.key, &of_another_day(self.profile, 0)?).await?.room.id);
        }
        let (rooms, sessions): (Arc<[String]>, Arc<[String]>) =
            (rooms.into(), crowd.waiting.iter().map(|waiting| waiting.session.clone()).collect());
        while !self.meters.rooms.all_up() {
            tokio::time::sleep(GLANCE).await;
        }
        let one_is_over = self.meters.rooms.over.now() > 0;
        let began = Instant::now();
        let mut interval = tokio::time::interval(Duration::from_secs(1) / self.rate.max(1));
        let (mut asked, mut found) = (JoinSet::new(), Found::default());
        for turn in 0_u32.. {
            interval.tick().await;
            let rooms_now = &self.meters.rooms;
            if rooms_now.all_over() || !one_is_over && rooms_now.over.now() > 0 {
                break;
            }
            while let Some(answer) = asked.try_join_next() {
                found.take(answer.ok());
            }
            if asked.len() >= MOST_WAITING {
                found.take(None);
                continue;
            }
            // Without anyone who waits there is no session to read.
            let kinds = if sessions.is_empty() { Request::ALL.len() - 1 } else { Request::ALL.len() };
            let kind = usize::try_from(turn).unwrap_or(0) % kinds;
            let Some(request) = Request::ALL.get(kind).copied() else { continue };
            let ask = Ask { api: self.api.clone(), key: self.key.clone(), profile: self.profile, turn };
            let (rooms, sessions, meters) = (Arc::clone(&rooms), Arc::clone(&sessions), Arc::clone(&self.meters));
            asked.spawn(async move {
                let begins = Instant::now();
                let answer = ask.make(request, &rooms, &sessions).await;
                let took = begins.elapsed();
                meters.requests.add(1);
                (request, answer.map(|()| took))
            });
        }
        let seconds = began.elapsed().as_secs_f64();
        while let Some(answer) = asked.join_next().await {
            found.take(answer.ok());
        }
        let kinds = found.times.into_iter().map(|(kind, times)| (kind, times.figures())).collect();
        let Found { failed, first_failure, .. } = found;
        Ok(ProbeReport { rate: self.rate, seconds, kinds, failed, first_failure })
    }
}

#[derive(Default)]
struct Found {
    times: BTreeMap<Request, Times>,
    failed: u64,
    first_failure: Option<String>,
}

impl Found {
    fn take(&mut self, answer: Option<(Request, Result<Duration, ApiError>)>) {
        let failure = match answer {
            Some((request, Ok(took))) => return self.times.entry(request).or_default().add(took),
            Some((request, Err(error))) => format!("{}: {error}", request.name()),
            None => format!("{MOST_WAITING} requests wait for their answers"),
        };
        self.failed += 1;
        self.first_failure.get_or_insert(failure);
    }
}

/// One request of the probe.
struct Ask {
    api: Api,
    key: String,
    profile: Profile,
    turn: u32,
}

impl Ask {
    async fn make(&self, request: Request, rooms: &[String], sessions: &[String]) -> Result<(), ApiError> {
        let Self { api, key, profile, turn } = self;
        let pick = |of: &[String]| {
            usize::try_from(*turn)
                .ok()
                .and_then(|turn| of.get((turn / 4) % of.len().max(1)))
                .cloned()
                .unwrap_or_default()
        };
        match request {
            Request::BookRoom => drop(api.book(key, &of_another_day(*profile, *turn)?).await?),
            Request::ListRooms => {
                let from = days_ahead(2).ok_or(CLOCK)?;
                let to = from.saturating_add(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MAX);
                let query = [("from", from.to_string()), ("to", to.to_string()), ("limit", PAGE.to_string())];
                api.get::<Value>("/v1/rooms", key, &query).await?;
            }
            Request::ReadRoom => drop(api.get::<Value>(&format!("/v1/rooms/{}", pick(rooms)), key, &[]).await?),
            Request::ReadSession => drop(api.get::<Value>("/v1/session", &pick(sessions), &[]).await?),
        }
        Ok(())
    }
}

const CLOCK: ApiError = ApiError::Answer("this machine's clock is out of range");

/// An appointment that no run comes to.
fn of_another_day(profile: Profile, number: u32) -> Result<Appointment, ApiError> {
    let day = days_ahead(2 + i64::from(number / A_DAY)).ok_or(CLOCK)?;
    let minutes = number % (A_DAY / 10) * STEP_MINUTES;
    let start = day.saturating_add(SignedDuration::from_mins(minutes.into())).map_err(|_| CLOCK)?;
    Ok(Appointment { start, ..Appointment::now(profile, number) })
}

fn days_ahead(days: i64) -> Option<Timestamp> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = today.checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
    Some(day.to_datetime(Time::midnight()).to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appointments_of_other_days_are_spread_over_days_and_hours() {
        let start = |number| of_another_day(Profile::Delega, number).unwrap().start;
        assert!(start(0) > Timestamp::now() + SignedDuration::from_hours(24));
        assert_eq!(start(1), start(0) + SignedDuration::from_mins(15));
        assert_eq!(start(96), start(0));
        assert_eq!(start(960), start(0) + SignedDuration::from_hours(24));
    }

    #[test]
    fn the_first_failure_is_told_and_all_are_counted() {
        let mut found = Found::default();
        found.take(Some((Request::ReadRoom, Ok(Duration::from_millis(2)))));
        found.take(Some((Request::ReadRoom, Err(CLOCK))));
        found.take(None);
        assert_eq!((found.failed, found.times.len()), (2, 1));
        assert!(found.first_failure.is_some_and(|told| told.starts_with("reading a room")));
    }
}
