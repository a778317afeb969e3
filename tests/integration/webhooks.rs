//! Webhooks that were given up, and booking systems that want none.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::database::Database;
use crate::gateway::Gateway;
use crate::receiver::{self, Receiver};
use crate::server::{Server, Signal, accepted, delega_from, refused, text};

const BOTH: [Database; 2] = [Database::Sqlite, Database::Postgres];

const PATIENCE: Duration = Duration::from_secs(20);

fn tomorrow() -> Value {
    delega_from(Timestamp::now() + SignedDuration::from_hours(24))
}

async fn listed(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/webhooks?{query}"), server.key("booking")).await;
    page["webhooks"].as_array().unwrap().clone()
}

/// Waits until so many webhooks stand so; gives them.
async fn come_to_stand(server: &Server, state: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let webhooks = listed(server, &format!("state={state}")).await;
        if webhooks.len() == count {
            return webhooks;
        }
        assert!(Instant::now() < deadline, "not {count} {state}: {webhooks:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn kinds(webhooks: &[Value]) -> Vec<String> {
    webhooks.iter().map(|webhook| text(&webhook["type"])).collect()
}

#[tokio::test]
async fn what_the_receiver_wants_no_more_is_parked_listed_and_delivered_when_replayed() {
    for database in BOTH {
        // A gateway's ears are good for webhooks too: it says what it is told to say.
        let receiver = Gateway::start().await;
        receiver.answers(410);
        let url = receiver.url();
        let configuration = [("WEBHOOKS__URL", url.as_str()), ("WEBHOOKS__SECRETS", receiver::SECRET)];
        let server = Server::start_with(database, &configuration).await;
        let booked = server.book(&tomorrow()).await;
        let other = server.book(&tomorrow()).await;
        server.order(&format!("/v1/rooms/{}/cancel", booked.room), server.key("booking")).await;
        let parked = come_to_stand(&server, "parked", 3).await;
        assert_eq!(receiver.all().len(), 3, "410 is not asked again");
        for webhook in &parked {
            assert_eq!((&webhook["attempts"], &webhook["last_error"]), (&json!(1), &json!("HTTP 410")));
            assert_eq!(webhook["next_attempt"], Value::Null);
            assert_eq!(webhook["payload"]["type"], webhook["type"]);
        }
        let of_room =
            |room: &str| parked.iter().filter(|webhook| webhook["room_id"] == room).cloned().collect::<Vec<_>>();
        assert_eq!(kinds(&of_room(&booked.room)), ["room.booked", "room.cancelled"]);
        assert_eq!(kinds(&of_room(&other.room)), ["room.booked"]);
        assert_eq!(listed(&server, "state=pending").await, Vec::<Value>::new());

        // It waits over a restart, page by page.
        let mut server = server.restart(Signal::Kill).await;
        let (mut query, mut paged) = ("state=parked&limit=2".to_owned(), Vec::new());
        loop {
            let page = server.get(&format!("/v1/webhooks?{query}"), server.key("booking")).await;
            paged.extend(page["webhooks"].as_array().unwrap().clone());
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("state=parked&limit=2&cursor={cursor}");
        }
        assert_eq!(paged, parked, "{database:?}");

        receiver.answers(204);
        let first = &of_room(&booked.room)[0];
        let path = format!("/v1/webhooks/{}", text(&first["id"]));
        let replay = server.request(Method::POST, &format!("{path}/replay"), server.key("booking"));
        let replayed = replay.send().await.unwrap();
        assert_eq!(replayed.status(), 202);
        let replayed: Value = replayed.json().await.unwrap();
        assert_eq!((&replayed["state"], &replayed["attempts"]), (&json!("pending"), &json!(0)));
        let last = receiver.asked(4).await.pop().unwrap();
        assert_eq!(last.json(), first["payload"], "the same body");
        come_to_stand(&server, "delivered", 1).await;
        let shown = server.get(&path, server.key("booking")).await;
        assert_eq!((&shown["state"], &shown["attempts"]), (&json!("delivered"), &json!(1)));
        assert_eq!(shown["last_error"], Value::Null, "{database:?}");
        assert_eq!(listed(&server, "state=parked").await.len(), 2);
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_rooms_later_webhooks_wait_for_the_earlier_and_other_rooms_do_not() {
    for database in BOTH {
        let receiver = Receiver::start().await;
        receiver.goes_down();
        let url = receiver.url();
        let configuration = [("WEBHOOKS__URL", url.as_str()), ("WEBHOOKS__SECRETS", receiver::SECRET)];
        let mut server = Server::start_with(database, &configuration).await;
        let booked = server.book(&tomorrow()).await;
        let key = server.key("booking");
        let deadline = Instant::now() + PATIENCE;
        while receiver.turned_away() == 0 {
            assert!(Instant::now() < deadline, "nothing was sent");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        for hours in [48, 72] {
            let start = Timestamp::now() + SignedDuration::from_hours(hours);
            let times = json!({"start": start.to_string(), "end": (start + SignedDuration::from_mins(30)).to_string()});
            server.post(&format!("/v1/rooms/{}/reschedule", booked.room), key, &times).await;
        }
        server.order(&format!("/v1/rooms/{}/cancel", booked.room), key).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(receiver.turned_away(), 1, "the later ones are not tried before the first");
        let pending = listed(&server, "state=pending").await;
        assert_eq!(pending.len(), 4);
        assert_eq!(pending[0]["last_error"], "HTTP 503");
        assert!(pending.iter().all(|webhook| webhook["next_attempt"].is_string()), "{pending:?}");

        receiver.comes_back();
        let other = server.book(&tomorrow()).await;
        let deadline = Instant::now() + PATIENCE;
        while receiver.of_room(&other.room).is_empty() {
            assert!(Instant::now() < deadline, "another room waits too");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let delivered = come_to_stand(&server, "delivered", 5).await;
        let story: Vec<_> = receiver.of_room(&booked.room).iter().map(receiver::Webhook::kind).collect();
        assert_eq!(story, ["room.booked", "room.rescheduled", "room.rescheduled", "room.cancelled"], "{database:?}");
        let of_room: Vec<_> = delivered.into_iter().filter(|webhook| webhook["room_id"] == booked.room).collect();
        assert_eq!(kinds(&of_room), story);
        server.is_well().await;
    }
}

#[tokio::test]
async fn nothing_is_written_for_a_booking_system_that_wants_no_webhooks() {
    for database in BOTH {
        let server = Server::start_on(database).await;
        let booked = server.book(&tomorrow()).await;
        server.order(&format!("/v1/rooms/{}/cancel", booked.room), server.key("booking")).await;
        assert_eq!(listed(&server, "").await, Vec::<Value>::new());
        let mut server = server.restart(Signal::Term).await;
        assert_eq!(listed(&server, "").await, Vec::<Value>::new(), "{database:?}");
        server.is_well().await;
    }
}

#[tokio::test]
async fn webhooks_are_for_booking_keys_and_one_that_does_not_exist_is_unknown() {
    let mut server = Server::start().await;
    let unknown = "/v1/webhooks/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11";
    let replay = format!("{unknown}/replay");
    for (method, path) in [(Method::GET, "/v1/webhooks"), (Method::GET, unknown), (Method::POST, &replay)] {
        for scope in ["operator", "compliance", "metrics"] {
            refused(server.request(method.clone(), path, server.key(scope)), 403, "forbidden").await;
        }
        refused(server.anonymous(method.clone(), path), 401, "unauthenticated").await;
    }
    refused(server.request(Method::GET, unknown, server.key("booking")), 404, "unknown-webhook").await;
    refused(server.request(Method::POST, &replay, server.key("booking")), 404, "unknown-webhook").await;
    for wrong in ["state=lost", "limit=0", "limit=201", "cursor=x"] {
        let request = server.request(Method::GET, &format!("/v1/webhooks?{wrong}"), server.key("booking"));
        refused(request, 422, "invalid-field").await;
    }
    accepted(server.request(
        Method::GET,
        "/v1/webhooks?cursor=0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11",
        server.key("booking"),
    ))
    .await;
    server.is_well().await;
}
