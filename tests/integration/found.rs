//! Rooms, found again: filters, pages, and who may look.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::database::Database;
use crate::server::{Server, delega_from, refused, text};

const BOTH: [Database; 2] = [Database::Sqlite, Database::Postgres];

/// Books a room so many minutes after [`first`]; gives its id.
async fn books(server: &Server, minutes: i64, change: impl FnOnce(&mut Value)) -> String {
    let mut booking = delega_from(first() + SignedDuration::from_mins(minutes));
    booking.as_object_mut().unwrap().remove("reference");
    change(&mut booking);
    server.book(&booking).await.room
}

/// Start of the first appointment: far ahead.
fn first() -> Timestamp {
    "2056-01-13T08:00:00Z".parse().unwrap()
}

async fn page(server: &Server, query: &str) -> Value {
    server.get(&format!("/v1/rooms?{query}"), server.key("booking")).await
}

fn ids(page: &Value) -> Vec<String> {
    page["rooms"].as_array().unwrap().iter().map(|room| text(&room["id"])).collect()
}

#[tokio::test]
async fn each_filter_finds_its_rooms_and_together_they_find_what_fits_all() {
    for database in BOTH {
        let mut server = Server::start_on(database).await;
        // Booked in another order than they begin.
        let milano = books(&server, 60, |booking| booking["office"] = json!("Milano")).await;
        let roma = books(&server, 0, |booking| booking["reference"] = json!("PRN 1/ß&x=y")).await;
        let other_counter = books(&server, 30, |booking| booking["counter"] = json!("Altro sportello")).await;
        let video = books(&server, 90, |booking| {
            booking["profile"] = json!("videochiamata");
            booking["participants"] = json!([
                {"role": "operator", "name": "Ofelia Quarantotti"},
                {"role": "citizen", "name": "Cesira Malaspina"},
            ]);
        })
        .await;
        let cancelled = books(&server, 120, |_| ()).await;
        server.order(&format!("/v1/rooms/{cancelled}/cancel"), server.key("booking")).await;

        let everything = [&roma, &other_counter, &milano, &video, &cancelled].map(Clone::clone);
        let all = page(&server, "").await;
        assert_eq!((ids(&all), &all["next_cursor"]), (everything.to_vec(), &Value::Null), "by start");
        for (query, expected) in [
            ("from=2056-01-13T09:00:00Z", &everything[2..]),
            ("to=2056-01-13T09:00:00Z", &everything[..2]),
            ("from=2056-01-13T10:30:00%2B02:00&to=2056-01-13T09:00:00Z", &everything[1..2]),
            ("office=Milano", &everything[2..3]),
            ("counter=Altro+sportello", &everything[1..2]),
            ("profile=videochiamata", &everything[3..4]),
            ("phase=cancelled", &everything[4..]),
            ("phase=scheduled", &everything[..4]),
            ("reference=PRN%201/%C3%9F%26x%3Dy", &everything[..1]),
            ("office=Roma&counter=Deleghe&profile=delega&phase=scheduled", &everything[..1]),
            ("office=roma", &[][..]),
            ("office=Milano&phase=cancelled", &[]),
            ("reference=PRN", &[]),
            ("from=2056-01-14T00:00:00Z", &[]),
        ] {
            assert_eq!(ids(&page(&server, query).await), expected, "{database:?} {query}");
        }
        let summary = &page(&server, "office=Milano").await["rooms"][0];
        assert_eq!((&summary["phase"], &summary["outcome"]), (&json!("scheduled"), &Value::Null));
        assert_eq!(summary["start"], "2056-01-13T09:00:00Z");
        assert_eq!(summary["participants"][2]["name"], "Zenobia Tagliaferri");
        for secret in ["join_token", "\"code\"", "BVLDRA80A01H501U", "+393331234567"] {
            assert!(!all.to_string().contains(secret), "a list tells {secret}");
        }

        // A room that is moved is found where it is now, and somebody who was replaced is not named.
        let start = "2056-01-20T08:00:00Z";
        let key = server.key("booking");
        let end = "2056-01-20T08:30:00Z";
        server.post(&format!("/v1/rooms/{roma}/reschedule"), key, &json!({"start": start, "end": end})).await;
        assert_eq!(ids(&page(&server, "from=2056-01-14T00:00:00Z").await), [roma.as_str()]);
        let person = text(&page(&server, "from=2056-01-14T00:00:00Z").await["rooms"][0]["participants"][2]["id"]);
        let by = json!({"role": "delegante", "name": "Ottavia Serristori"});
        server.post(&format!("/v1/rooms/{roma}/participants/{person}/replace"), key, &by).await;
        let named = page(&server, "from=2056-01-14T00:00:00Z").await["rooms"][0]["participants"].clone();
        assert_eq!((named.as_array().unwrap().len(), &named[2]["name"]), (3, &json!("Ottavia Serristori")));
        server.is_well().await;
    }
}

#[tokio::test]
async fn pages_have_neither_gaps_nor_repetitions_while_rooms_are_added() {
    for database in BOTH {
        let mut server = Server::start_on(database).await;
        // Five of them begin at the same time: the cursor must tell them apart.
        let mut before = BTreeSet::new();
        for minutes in [0, 30, 60, 60, 60, 60, 60, 90, 120, 150, 180] {
            before.insert(books(&server, minutes, |_| ()).await);
        }
        let (mut query, mut seen, mut pages) = ("office=Roma&limit=3".to_owned(), Vec::new(), 0);
        loop {
            let page = page(&server, &query).await;
            let rooms = page["rooms"].as_array().unwrap();
            assert!(rooms.len() <= 3, "{page}");
            seen.extend(rooms.iter().map(|room| (text(&room["start"]), text(&room["id"]))));
            pages += 1;
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            assert_eq!(rooms.len(), 3, "only the last page is shorter");
            query = format!("office=Roma&limit=3&cursor={cursor}");
            // Someone books: before the page, at its end, and behind everything.
            if pages < 4 {
                for minutes in [-30, 60, 300] {
                    books(&server, minutes, |_| ()).await;
                }
            }
        }
        assert!(seen.is_sorted(), "by start and id: {seen:?}");
        let found: BTreeSet<_> = seen.iter().map(|(_, id)| id.clone()).collect();
        assert_eq!(found.len(), seen.len(), "{database:?}: a room is listed twice");
        assert!(before.is_subset(&found), "{database:?}: a room is left out");
        assert!(seen.len() > before.len(), "those that were added behind the page are found too");

        // Exactly full is the last page too.
        let whole = page(&server, "to=2056-01-13T08:30:00Z&from=2056-01-13T08:00:00Z&limit=1").await;
        assert_eq!((ids(&whole).len(), &whole["next_cursor"]), (1, &Value::Null));
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_made_is_refused_with_the_parameter() {
    let mut server = Server::start().await;
    books(&server, 0, |_| ()).await;
    let ask = |query: &str| server.request(Method::GET, &format!("/v1/rooms?{query}"), server.key("booking"));
    let outside = "MTc2ODI5NDgwMDAwMDAwMDAwMDAwMDAgMDE5OWMxYzItN2IxZS03Y2MzLTlhNWUtMGY0YjdjN2UyZDEx";
    for cursor in ["", "x", "%00", "bm90aGluZw", outside, "MTc2ODI5NDgwMDAwMCAw", "%F0%9F%90%A6"] {
        let problem = refused(ask(&format!("cursor={cursor}")), 422, "invalid-field").await;
        assert_eq!(problem["field"], "cursor", "{cursor}: {problem}");
    }
    for limit in ["0", "201", "65535"] {
        let problem = refused(ask(&format!("limit={limit}")), 422, "invalid-field").await;
        assert_eq!((&problem["field"], &problem["detail"]), (&json!("limit"), &json!("1 to 200")));
    }
    for wrong in
        ["limit=-1", "limit=65536", "limit=ten", "from=yesterday", "phase=over", "color=red", "limit=1&limit=2"]
    {
        refused(ask(wrong), 422, "invalid-field").await;
    }
    let problem = refused(ask("phase=over"), 422, "invalid-field").await;
    assert_eq!(problem["field"], "phase", "{problem}");
    server.is_well().await;
}

#[tokio::test]
async fn booking_operator_and_compliance_keys_list_rooms_and_nobody_else() {
    let mut server = Server::start().await;
    let room = books(&server, 0, |_| ()).await;
    for scope in ["booking", "operator", "compliance"] {
        let page = server.get("/v1/rooms", server.key(scope)).await;
        assert_eq!(ids(&page), [room.as_str()], "{scope}");
    }
    refused(server.request(Method::GET, "/v1/rooms", server.key("metrics")), 403, "forbidden").await;
    refused(server.anonymous(Method::GET, "/v1/rooms"), 401, "unauthenticated").await;
    let now = server.book(&delega_from(Timestamp::now())).await;
    let session = server.admit(now.invitation("operator")).await;
    refused(server.request(Method::GET, "/v1/rooms", &session), 401, "unauthenticated").await;
    server.is_well().await;
}
