//! Many bookings: how long it takes to make a room and to list a day of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

use crate::api::{Api, ApiError};
use crate::plan::duration;
use crate::timing::{Figures, Times};

/// Many rooms of one day, booked and listed.
#[derive(Clone, Debug, Args)]
pub struct Bookings {
    /// The server, plain HTTP.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// API key with the scope `booking`.
    #[arg(long, env = "SPORTELLO_BOOKING_KEY", hide_env_values = true)]
    pub booking_key: String,
    /// Rooms to book, all of the day after tomorrow (UTC).
    #[arg(long, default_value_t = 10_000)]
    pub rooms: u32,
    /// Booking systems that book at the same time.
    #[arg(long, default_value_t = 2)]
    pub at_once: u32,
    /// Longest time of all but one in a hundred requests of each kind.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = duration)]
    pub max_p99: Duration,
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BookReport {
    /// Making a room.
    pub create: Figures,
    /// A page of 200 rooms of the day, from the first to the last page.
    pub list: Figures,
    /// Rooms that the list told of.
    pub listed: usize,
    /// Rooms that were booked.
    pub booked: u32,
}

/// Pages of a list are this long: the most that the API gives.
const PAGE: usize = 200;
/// The whole day is listed so often: a percentile of fifty pages would be its maximum.
const READINGS: usize = 4;
/// Appointments begin every so many minutes, so that a day of them is spread over the day.
const STEP_MINUTES: u32 = 15;

/// Books and lists.
///
/// # Errors
/// The first request that is refused.
pub async fn run(plan: &Bookings) -> Result<BookReport, ApiError> {
    let midnight = midnight_after_tomorrow().ok_or(ApiError::Answer("this machine's clock is out of range"))?;
    let api = Api::new(&plan.url);
    let next = Arc::new(AtomicU32::new(0));
    let mut systems = JoinSet::new();
    for _ in 0..plan.at_once.max(1) {
        let (api, key, next, rooms) = (api.clone(), plan.booking_key.clone(), Arc::clone(&next), plan.rooms);
        systems.spawn(async move {
            let mut times = Times::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= rooms {
                    return Ok::<_, ApiError>(times);
                }
                let booking = booking(midnight, number);
                let began = Instant::now();
                api.book_this(&key, &booking).await?;
                times.add(began.elapsed());
            }
        });
    }
    let mut create = Times::default();
    while let Some(times) = systems.join_next().await {
        create.extend(times.map_err(|_| ApiError::Answer("a booking system's task ended early"))??);
    }
    let (list, listed) = list_day(&api, &plan.booking_key, midnight).await?;
    Ok(BookReport { create: create.figures(), list: list.figures(), listed, booked: plan.rooms })
}

impl BookReport {
    /// For people.
    pub fn table(&self) -> String {
        format!("create  {}\nlist    {}\n", self.create, self.list)
    }

    /// Every limit that was not kept, in words.
    pub fn misses(&self, plan: &Bookings) -> Vec<String> {
        let limit = plan.max_p99;
        let slow = [("making a room", self.create), ("listing a day", self.list)].into_iter();
        let slow = slow.filter(|(_, figures)| figures.exceed(limit));
        let mut misses: Vec<_> = slow.map(|(what, figures)| format!("{what}: p99 {:.1} ms", figures.p99_ms)).collect();
        if u32::try_from(self.listed).ok().is_none_or(|listed| listed < self.booked) {
            misses.push(format!("{} of {} rooms are in the list", self.listed, self.booked));
        }
        misses
    }
}

fn midnight_after_tomorrow() -> Option<Timestamp> {
    let day = Timestamp::now().to_zoned(TimeZone::UTC).date().tomorrow().ok()?.tomorrow().ok()?;
    Some(day.to_datetime(Time::midnight()).to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn booking(midnight: Timestamp, number: u32) -> serde_json::Value {
    let step = number % (24 * 60 / STEP_MINUTES);
    let start = midnight + SignedDuration::from_mins(i64::from(step * STEP_MINUTES));
    let person = |role: &str| json!({"role": role, "name": format!("{role} {number}")});
    json!({
        "profile": "delega", "office": format!("Sede {}", number % 50), "counter": format!("Sportello {}", number % 700),
        "reason": "Prova di carico", "reference": format!("PRN-{number:06}"),
        "start": start.to_string(), "end": (start + SignedDuration::from_mins(i64::from(STEP_MINUTES))).to_string(),
        "participants": [person("operator"), person("delegato"), person("delegante")],
    })
}

async fn list_day(api: &Api, key: &str, midnight: Timestamp) -> Result<(Times, usize), ApiError> {
    #[derive(Deserialize)]
    struct Page {
        rooms: Vec<Summary>,
        next_cursor: Option<String>,
    }
    #[derive(Deserialize)]
    struct Summary {
        id: String,
    }
    let (from, to) = (midnight.to_string(), (midnight + SignedDuration::from_hours(24)).to_string());
    let mut times = Times::default();
    let mut ids = BTreeSet::new();
    for _ in 0..READINGS {
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("from", from.clone()), ("to", to.clone()), ("limit", PAGE.to_string())];
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let began = Instant::now();
            let page: Page = api.get("/v1/rooms", key, &query).await?;
            times.add(began.elapsed());
            ids.extend(page.rooms.into_iter().map(|room| room.id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok((times, ids.len()))
}
