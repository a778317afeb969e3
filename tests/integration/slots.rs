//! The calendar, over the API: what is offered, what is refused, and that a place is given once.

use std::path::Path;

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::Database;
use crate::server::{Server, accepted, problem, refused, text};

const BOTH: [Database; 2] = [Database::Sqlite, Database::Postgres];

/// Three counters of two offices, every day of the week.
const CALENDAR: &str = r#"
italian_holidays = false

[[opening]]
office = "Roma"
counter = "Deleghe"
profile = "delega"
weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
from = "09:00"
to = "11:00"
slot_minutes = 30
parallel = 2

[[opening]]
office = "Roma"
counter = "Deleghe"
profile = "videochiamata"
weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
from = "09:30"
to = "10:30"
slot_minutes = 20

[[opening]]
office = "Roma"
counter = "Altro sportello"
profile = "delega"
weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
from = "09:00"
to = "10:00"
slot_minutes = 30

[[opening]]
office = "Milano"
counter = "Deleghe"
profile = "delega"
weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
from = "09:30"
to = "10:30"
slot_minutes = 30
"#;

/// A day in winter: 9:00 in Rome is 8:00 in UTC. Far ahead, so that it never is in the past.
const DAY: &str = "from=2056-01-13T00:00:00Z&to=2056-01-14T00:00:00Z";
const NINE: &str = "2056-01-13T08:00:00Z";
const HALF_PAST_NINE: &str = "2056-01-13T08:30:00Z";
const TEN: &str = "2056-01-13T09:00:00Z";

/// A server with a calendar.
struct Office {
    server: Server,
    _folder: TempDir,
}

impl Office {
    async fn open(database: Database, calendar: &str, more: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("calendar.toml");
        std::fs::write(&file, calendar).unwrap();
        let mut configuration = vec![("ROOMS__CALENDAR", file.to_str().unwrap())];
        configuration.extend_from_slice(more);
        let server = Server::start_with(database, &configuration).await;
        Self { server, _folder: folder }
    }

    async fn slots(&self, query: &str) -> Vec<Value> {
        free_slots(&self.server, query).await
    }

    /// Start, office and counter of each slot.
    async fn listed(&self, query: &str) -> Vec<(String, String, String)> {
        let slots = self.slots(query).await;
        slots.iter().map(|slot| (text(&slot["start"]), text(&slot["office"]), text(&slot["counter"]))).collect()
    }

    fn asks(&self, office: &str, counter: &str, start: &str) -> RequestBuilder {
        asks(&self.server, &appointment("delega", office, counter, start, 30))
    }

    async fn books(&self, office: &str, counter: &str, start: &str) -> String {
        text(&accepted(self.asks(office, counter, start)).await["room"]["id"])
    }

    fn moves(&self, room: &str, start: &str, minutes: i64) -> RequestBuilder {
        let times = json!({"start": start, "end": later(start, minutes)});
        let path = format!("/v1/rooms/{room}/reschedule");
        self.server.request(Method::POST, &path, self.server.key("booking")).json(&times)
    }

    async fn cancels(&self, room: &str) {
        self.server.order(&format!("/v1/rooms/{room}/cancel"), self.server.key("booking")).await;
    }

    async fn room(&self, room: &str) -> Value {
        self.server.get(&format!("/v1/rooms/{room}"), self.server.key("booking")).await
    }
}

async fn free_slots(server: &Server, query: &str) -> Vec<Value> {
    let slots = server.get(&format!("/v1/slots?{query}"), server.key("booking")).await;
    slots.as_array().unwrap().clone()
}

fn asks(server: &Server, booking: &Value) -> RequestBuilder {
    server.request(Method::POST, "/v1/rooms", server.key("booking")).json(booking)
}

fn later(start: &str, minutes: i64) -> String {
    (start.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)).to_string()
}

fn appointment(profile: &str, office: &str, counter: &str, start: &str, minutes: i64) -> Value {
    let people = match profile {
        "delega" => json!([
            {"role": "operator", "name": "Ofelia Quarantotti"},
            {"role": "delegato", "name": "Dario Bevilacqua"},
            {"role": "delegante", "name": "Zenobia Tagliaferri"},
        ]),
        _ => json!([
            {"role": "operator", "name": "Ofelia Quarantotti"},
            {"role": "citizen", "name": "Cesira Malaspina"},
        ]),
    };
    json!({
        "profile": profile, "office": office, "counter": counter, "reason": "Una prova",
        "start": start, "end": later(start, minutes), "participants": people,
    })
}

/// A refusal names slots; each of them is booked as it is told. Gives their starts.
async fn next_slots(request: RequestBuilder) -> Vec<Value> {
    let refusal = refused(request, 409, "slot-not-available").await;
    refusal["next_slots"].as_array().unwrap_or_else(|| panic!("no next slots: {refusal}")).clone()
}

fn starts(slots: &[Value]) -> Vec<String> {
    slots.iter().map(|slot| text(&slot["start"])).collect()
}

#[tokio::test]
async fn free_slots_are_listed_by_time_office_and_counter_and_filtered() {
    let mut office = Office::open(Database::Sqlite, CALENDAR, &[]).await;
    let slot = |start: &str, office: &str, counter: &str| (start.to_owned(), office.to_owned(), counter.to_owned());
    assert_eq!(
        office.listed(&format!("profile=delega&{DAY}")).await,
        [
            slot(NINE, "Roma", "Altro sportello"),
            slot(NINE, "Roma", "Deleghe"),
            slot(HALF_PAST_NINE, "Milano", "Deleghe"),
            slot(HALF_PAST_NINE, "Roma", "Altro sportello"),
            slot(HALF_PAST_NINE, "Roma", "Deleghe"),
            slot(TEN, "Milano", "Deleghe"),
            slot(TEN, "Roma", "Deleghe"),
            slot("2056-01-13T09:30:00Z", "Roma", "Deleghe"),
        ]
    );
    let first = &office.slots(&format!("profile=delega&counter=Deleghe&limit=1&{DAY}")).await;
    assert_eq!(
        *first,
        [
            json!({"profile": "delega", "office": "Roma", "counter": "Deleghe", "start": NINE, "end": HALF_PAST_NINE, "places": 2})
        ]
    );
    assert_eq!(
        office.listed(&format!("profile=delega&office=Milano&counter=Deleghe&{DAY}")).await,
        [slot(HALF_PAST_NINE, "Milano", "Deleghe"), slot(TEN, "Milano", "Deleghe")]
    );
    let videochiamata = starts(&office.slots(&format!("profile=videochiamata&{DAY}")).await);
    assert_eq!(videochiamata, [HALF_PAST_NINE, "2056-01-13T08:50:00Z", "2056-01-13T09:10:00Z"]);
    // `from` is the first start that is wanted, `to` the first that is not.
    let between = format!("profile=delega&office=Milano&from={HALF_PAST_NINE}&to={TEN}");
    assert_eq!(starts(&office.slots(&between).await), [HALF_PAST_NINE]);
    for nothing in ["profile=delega&office=Napoli", "profile=matrimonio", "profile=delega&to=2020-01-01T00:00:00Z"] {
        assert_eq!(office.slots(nothing).await, Vec::<Value>::new(), "{nothing}");
    }

    // Without times: two weeks from now, nothing that has begun.
    let ahead = office.slots("profile=delega&office=Milano&limit=500").await;
    assert_eq!(ahead.len(), 28, "two a day");
    assert!(text(&ahead[0]["start"]).parse::<Timestamp>().unwrap() >= Timestamp::now() - SignedDuration::from_secs(5));

    let server = &office.server;
    let ask = |query: &str, key: &str| server.request(Method::GET, &format!("/v1/slots?{query}"), server.key(key));
    for wrong in ["", "profile=delega&limit=0", "profile=delega&limit=501", "profile=delega&from=soon", "profil=delega"]
    {
        refused(ask(wrong, "booking"), 422, "invalid-field").await;
    }
    refused(ask("profile=delega", "operator"), 403, "forbidden").await;
    refused(server.anonymous(Method::GET, "/v1/slots?profile=delega"), 401, "unauthenticated").await;
    office.server.is_well().await;
}

#[tokio::test]
async fn a_booked_slot_is_gone_until_its_room_is_cancelled_or_moved() {
    for database in BOTH {
        let mut office = Office::open(database, CALENDAR, &[]).await;
        let free = format!("profile=delega&counter=Altro%20sportello&{DAY}");
        assert_eq!(starts(&office.slots(&free).await), [NINE, HALF_PAST_NINE]);
        let room = office.books("Roma", "Altro sportello", NINE).await;
        assert_eq!(starts(&office.slots(&free).await), [HALF_PAST_NINE]);
        accepted(office.moves(&room, HALF_PAST_NINE, 30)).await;
        assert_eq!(starts(&office.slots(&free).await), [NINE]);
        office.cancels(&room).await;
        assert_eq!(starts(&office.slots(&free).await), [NINE, HALF_PAST_NINE]);
        office.books("Roma", "Altro sportello", HALF_PAST_NINE).await;

        // A counter for two has one place less, and those that meet the room too, whatever their profile.
        let places = async |query: &str| {
            let slots = office.slots(&format!("office=Roma&counter=Deleghe&{DAY}&{query}")).await;
            slots.iter().map(|slot| slot["places"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(places("profile=delega").await, [2, 2, 2, 2]);
        office.books("Roma", "Deleghe", HALF_PAST_NINE).await;
        assert_eq!(places("profile=delega").await, [2, 1, 2, 2]);
        assert_eq!(places("profile=videochiamata").await, [1], "its other two meet a room: {database:?}");
        office.server.is_well().await;
    }
}

#[tokio::test]
async fn a_room_outside_of_the_calendar_is_refused_with_slots_that_can_be_booked() {
    let mut office = Office::open(Database::Sqlite, CALENDAR, &[]).await;
    let server = &office.server;
    for (profile, start, minutes) in [
        ("delega", "2056-01-13T07:30:00Z", 30),
        ("delega", "2056-01-13T08:15:00Z", 30),
        ("delega", NINE, 20),
        ("delega", NINE, 60),
        ("delega", "2056-01-13T22:00:00Z", 30),
        ("videochiamata", NINE, 20),
    ] {
        let booking = appointment(profile, "Roma", "Deleghe", start, minutes);
        let next = next_slots(asks(server, &booking)).await;
        assert_eq!(next.len(), 5, "{booking}");
        assert!(next.is_sorted_by_key(|slot| text(&slot["start"])), "{next:?}");
        for slot in &next {
            let at_hand = (&slot["profile"], &slot["office"], &slot["counter"]);
            assert_eq!(at_hand, (&json!(profile), &json!("Roma"), &json!("Deleghe")));
            assert!(text(&slot["start"]).as_str() >= start, "{slot}");
        }
    }
    for (office, counter) in [("Napoli", "Deleghe"), ("Milano", "Altro sportello"), ("roma", "Deleghe")] {
        let booking = appointment("delega", office, counter, NINE, 30);
        assert_eq!(next_slots(asks(server, &booking)).await, Vec::<Value>::new(), "no such counter");
    }
    let booking = appointment("delega", "Roma", "Deleghe", "2056-01-13T08:10:00Z", 30);
    for slot in next_slots(asks(server, &booking)).await {
        let minutes = 30;
        assert_eq!(text(&slot["end"]), later(&text(&slot["start"]), minutes));
        office.books("Roma", "Deleghe", &text(&slot["start"])).await;
    }
    office.server.is_well().await;
}

#[tokio::test]
async fn a_counter_takes_no_more_rooms_at_once_than_it_is_there_for() {
    for database in BOTH {
        let mut office = Office::open(database, CALENDAR, &[]).await;
        office.books("Roma", "Deleghe", NINE).await;
        office.books("Roma", "Deleghe", NINE).await;
        let next = next_slots(office.asks("Roma", "Deleghe", NINE)).await;
        assert_eq!(starts(&next)[..2], [HALF_PAST_NINE, TEN], "{database:?}");
        office.books("Roma", "Altro sportello", NINE).await;
        assert_eq!(starts(&next_slots(office.asks("Roma", "Altro sportello", NINE)).await)[0], HALF_PAST_NINE);
        office.server.is_well().await;
    }
}

#[tokio::test]
async fn a_node_takes_no_more_rooms_at_once_than_its_capacity() {
    for database in BOTH {
        let mut office = Office::open(database, CALENDAR, &[("ROOMS__CAPACITY", "2")]).await;
        office.books("Roma", "Deleghe", HALF_PAST_NINE).await;
        office.books("Milano", "Deleghe", HALF_PAST_NINE).await;
        // That counter is free; the node is full.
        let next = next_slots(office.asks("Roma", "Altro sportello", HALF_PAST_NINE)).await;
        assert_eq!(starts(&next)[0], "2056-01-14T08:00:00Z", "its next day");
        assert_eq!(starts(&office.slots(&format!("profile=delega&counter=Altro%20sportello&{DAY}")).await), [NINE]);
        office.books("Roma", "Deleghe", NINE).await;
        office.server.is_well().await;
    }
    // Without a calendar rooms may be at any time: the next times that the node has room for are named.
    let server = Server::start_with(Database::Sqlite, &[("ROOMS__CAPACITY", "1")]).await;
    let at = |start: &str| asks(&server, &appointment("delega", "Roma", "Deleghe", start, 30));
    accepted(at("2056-01-13T08:07:00Z")).await;
    let next = next_slots(at("2056-01-13T08:36:00Z")).await;
    assert_eq!(starts(&next)[..2], ["2056-01-13T08:51:00Z", "2056-01-13T09:21:00Z"]);
    for slot in next {
        assert_eq!(text(&slot["end"]), later(&text(&slot["start"]), 30), "as long as was asked for");
        accepted(at(&text(&slot["start"]))).await;
    }
    accepted(at("2056-01-13T07:37:00Z")).await;
    assert_eq!(free_slots(&server, "profile=delega").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_room_is_moved_only_where_there_is_a_place_and_does_not_stand_in_its_own_way() {
    for database in BOTH {
        let mut office = Office::open(database, CALENDAR, &[]).await;
        let other = office.books("Roma", "Altro sportello", HALF_PAST_NINE).await;
        let room = office.books("Roma", "Altro sportello", NINE).await;
        let before = office.room(&room).await;
        for (start, minutes) in [(HALF_PAST_NINE, 30), (NINE, 60), ("2056-01-13T08:10:00Z", 30)] {
            let next = next_slots(office.moves(&room, start, minutes)).await;
            assert_eq!(starts(&next)[0], "2056-01-14T08:00:00Z", "{database:?} {start}");
        }
        assert_eq!(office.room(&room).await, before, "nothing has happened");
        let moved = accepted(office.moves(&room, "2056-01-14T08:00:00Z", 30)).await;
        assert_eq!((&moved["start"], &moved["end"]), (&json!("2056-01-14T08:00:00Z"), &json!("2056-01-14T08:30:00Z")));
        accepted(office.moves(&other, NINE, 30)).await;
        accepted(office.moves(&other, NINE, 30)).await;
        office.server.is_well().await;

        let server = Server::start_with(database, &[("ROOMS__CAPACITY", "1")]).await;
        let office = Office { server, _folder: TempDir::new().unwrap() };
        let room = office.books("Roma", "Deleghe", NINE).await;
        accepted(office.moves(&room, "2056-01-13T08:10:00Z", 45)).await;
        office.books("Roma", "Deleghe", "2056-01-13T08:55:00Z").await;
        next_slots(office.moves(&room, "2056-01-13T08:10:00Z", 50)).await;
    }
}

#[tokio::test]
async fn of_two_who_book_the_last_place_at_once_exactly_one_gets_it() {
    for database in BOTH {
        let mut office = Office::open(database, CALENDAR, &[]).await;
        for start in ["2056-01-13T08:00:00Z", "2056-01-13T08:30:00Z", "2056-01-14T08:00:00Z", "2056-01-14T08:30:00Z"] {
            let race = (0..4).map(|_| office.asks("Roma", "Altro sportello", start).send());
            let mut won = 0;
            for answer in join_all(race).await {
                let answer = answer.unwrap();
                if answer.status() == StatusCode::CREATED {
                    won += 1;
                } else {
                    problem(answer, 409, "slot-not-available").await;
                }
            }
            assert_eq!(won, 1, "{database:?}");
        }
        // One is booked, another is moved.
        let far = office.books("Roma", "Altro sportello", "2056-01-20T08:00:00Z").await;
        let (moved, booked) = tokio::join!(
            office.moves(&far, "2056-01-15T08:00:00Z", 30).send(),
            office.asks("Roma", "Altro sportello", "2056-01-15T08:00:00Z").send()
        );
        let statuses = [moved.unwrap().status(), booked.unwrap().status()];
        assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 1, "{database:?}: {statuses:?}");
        assert!(statuses.contains(&StatusCode::CONFLICT), "{database:?}: {statuses:?}");
        office.server.is_well().await;
    }
}

/// The calendar that is shipped with the program.
async fn shipped(database: Database) -> Server {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/calendar.toml");
    Server::start_with(database, &[("ROOMS__CALENDAR", file.to_str().unwrap())]).await
}

#[tokio::test]
async fn the_shipped_calendar_offers_what_its_tables_say_and_nothing_on_holidays() {
    let mut server = shipped(Database::Sqlite).await;
    let rome = TimeZone::get("Europe/Rome").unwrap();
    let days = async |office: &str, profile: &str, from: &str, to: &str| {
        let query = format!("profile={profile}&office={office}&from={from}T00:00:00Z&to={to}T00:00:00Z&limit=500");
        let slots = free_slots(&server, &query).await;
        let mut days: Vec<_> = starts(&slots)
            .iter()
            .map(|start| start.parse::<Timestamp>().unwrap().to_zoned(rome.clone()).date().to_string())
            .collect();
        days.dedup();
        days
    };
    // Tuesdays and Thursdays; 25 April 2056 is a Tuesday, the 26th of December too, 6 January a Thursday.
    assert_eq!(days("Roma", "delega", "2056-04-17", "2056-05-01").await, ["2056-04-18", "2056-04-20", "2056-04-27"]);
    assert_eq!(days("Roma", "delega", "2056-12-24", "2056-12-30").await, ["2056-12-28"]);
    assert_eq!(days("Roma", "delega", "2056-01-03", "2056-01-10").await, ["2056-01-04"]);
    // 29 June, the feast of Rome's patron saints, is a Thursday, and a working day elsewhere.
    assert_eq!(days("Roma", "delega", "2056-06-26", "2056-07-03").await, ["2056-06-27"]);
    // Easter Monday 2056 is the 3rd of April; that office is open on Mondays.
    let sestri = "Agenzia%20complessa%20di%20Sestri%20Levante";
    assert_eq!(days(sestri, "videochiamata", "2056-03-27", "2056-04-11").await, ["2056-03-27", "2056-04-10"]);
    let holiday = appointment("delega", "Roma", "Deleghe", "2056-04-25T07:00:00Z", 30);
    let next = next_slots(asks(&server, &holiday)).await;
    assert_eq!(starts(&next)[0], "2056-04-27T07:00:00Z");
    server.is_well().await;
}

#[tokio::test]
async fn nine_o_clock_stays_nine_o_clock_over_the_change_of_summer_time() {
    for database in BOTH {
        let mut server = shipped(database).await;
        let rome = TimeZone::get("Europe/Rome").unwrap();
        // The clocks are put on at 26 March 2056 and put back on 29 October.
        for (from, nine_before, nine_after) in [
            ("2056-03-23", "2056-03-23T08:00:00Z", "2056-03-28T07:00:00Z"),
            ("2056-10-26", "2056-10-26T07:00:00Z", "2056-10-31T08:00:00Z"),
        ] {
            let slots =
                free_slots(&server, &format!("profile=delega&office=Roma&limit=12&from={from}T00:00:00Z")).await;
            let starts = starts(&slots);
            assert_eq!((starts[0].as_str(), starts[6].as_str()), (nine_before, nine_after));
            let hours = starts
                .iter()
                .map(|start| start.parse::<Timestamp>().unwrap().to_zoned(rome.clone()).strftime("%H:%M").to_string());
            let day = ["09:00", "09:30", "10:00", "10:30", "11:00", "11:30"];
            assert_eq!(hours.collect::<Vec<_>>(), [day, day].concat(), "{database:?}");
            for start in [nine_before, nine_after] {
                accepted(asks(&server, &appointment("delega", "Roma", "Deleghe", start, 30))).await;
                let next = next_slots(asks(&server, &appointment("delega", "Roma", "Deleghe", start, 30))).await;
                assert_eq!(text(&next[0]["start"]), later(start, 30));
            }
        }
        server.is_well().await;
    }
}
