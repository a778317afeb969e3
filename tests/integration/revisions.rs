//! `ETag` and `If-Match`: a change that was meant for what the caller saw, and only for that.

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::database::Database;
use crate::server::{Booked, Server, accepted, delega, delega_from, refused};

/// A room in which every change is possible but those of a finished one, and who may make them.
struct Known {
    server: Server,
    booked: Booked,
}

impl Known {
    fn path(&self) -> String {
        format!("/v1/rooms/{}", self.booked.room)
    }

    async fn room(&self) -> (String, Value) {
        let answer = self.server.request(Method::GET, &self.path(), self.server.key("booking")).send().await.unwrap();
        let tag = tag(&answer);
        (tag, answer.json().await.unwrap())
    }

    async fn told(&self) -> usize {
        let ledger = self.server.get(&format!("{}/ledger", self.path()), self.server.key("booking")).await;
        ledger.as_array().unwrap().len()
    }

    fn ask(&self, (method, rest, scope, body): &Change) -> RequestBuilder {
        let path = format!("{}{}", self.path(), rest);
        let request = self.server.request(method.clone(), &path, self.server.key(scope));
        if body.is_null() { request } else { request.json(body) }
    }

    /// The change is refused for each tag that is not the room's, and nothing has happened. Gives the room's.
    async fn is_not_changed_unknown(&self, change: &Change) -> String {
        let (current, before) = self.room().await;
        let told = self.told().await;
        let stale = format!("\"{}\"", current.trim_matches('"').parse::<u64>().unwrap() - 1);
        let weak = format!("W/{current}");
        for other in [stale.as_str(), &weak, "\"0\"", "\"99999\"", "\"x\"", "17", "", "\"0\", \"99999\""] {
            refused(self.ask(change).header("if-match", other), 412, "precondition-failed").await;
        }
        assert_eq!(self.room().await, (current.clone(), before), "{change:?}: nothing has happened");
        assert_eq!(self.told().await, told, "{change:?}: nothing is told");
        current
    }

    /// The same, and it is made for the room's tag.
    async fn is_changed_only_as_known(&self, change: &Change) {
        let current = self.is_not_changed_unknown(change).await;
        let answer = self.ask(change).header("if-match", &current).send().await.unwrap();
        assert!(answer.status().is_success(), "{change:?}: {}", answer.status());
        let (now, _) = self.room().await;
        assert_ne!(now, current, "{change:?}: the room has changed");
        assert_eq!(tag(&answer), now, "{change:?}: the answer tells the new tag");
    }
}

/// Method, rest of the path, scope of the key, body.
type Change = (Method, String, &'static str, Value);

fn tag(answer: &Response) -> String {
    answer.headers().get("etag").map_or_else(String::new, |tag| tag.to_str().unwrap().to_owned())
}

fn times(minutes: i64) -> Value {
    let start = Timestamp::now() + SignedDuration::from_mins(minutes);
    json!({"start": start.to_string(), "end": (start + SignedDuration::from_mins(30)).to_string()})
}

#[tokio::test]
async fn a_rooms_tag_changes_with_whatever_happens_in_it() {
    let server = Server::start().await;
    let answer = server.request(Method::POST, "/v1/rooms", server.key("booking")).json(&delega()).send().await.unwrap();
    let booked_as = tag(&answer);
    let answer: Value = answer.json().await.unwrap();
    let booked = Booked { room: answer["room"]["id"].as_str().unwrap().to_owned(), answer };
    let known = Known { server, booked };
    let (first, room) = known.room().await;
    assert_eq!(first, format!("\"{}\"", room["revision"]), "a strong tag with the revision");
    assert!(!booked_as.is_empty() && booked_as.starts_with('"'), "{booked_as}");
    assert_eq!(known.room().await.0, first, "looking changes nothing");
    known.server.admit(known.booked.invitation("delegato")).await;
    let (second, room) = known.room().await;
    assert_ne!(second, first);
    assert_eq!(room["revision"], known.told().await);
    let Known { mut server, .. } = known;
    server.is_well().await;
}

#[tokio::test]
async fn every_change_of_a_room_is_made_only_if_it_still_is_as_the_caller_saw_it() {
    for database in [Database::Sqlite, Database::Postgres] {
        let server = Server::start_on(database).await;
        let booked = server.book(&delega()).await;
        let (delegato, delegante) = (booked.id("delegato"), booked.id("delegante"));
        let known = Known { server, booked };
        let person = |id: &str, rest: &str| format!("/participants/{id}/{rest}");
        let change = |method: Method, rest: String, scope, body| (method, rest, scope, body);
        let post = |rest: String, scope, body| change(Method::POST, rest, scope, body);

        known.is_changed_only_as_known(&post(person(&delegato, "code"), "booking", Value::Null)).await;
        let other = json!({"role": "delegante", "name": "Ottavia Serristori"});
        known.is_changed_only_as_known(&post(person(&delegante, "replace"), "booking", other)).await;
        known.is_changed_only_as_known(&post("/reschedule".into(), "booking", times(5))).await;

        let invitation = known.booked.invitation("operator").clone();
        known.server.enter(&invitation).await;
        let code = known
            .server
            .post(&format!("{}{}", known.path(), person(&delegato, "code")), known.server.key("booking"), &json!({}))
            .await;
        let mut delegatos = known.booked.invitation("delegato").clone();
        delegatos["code"] = code["code"].clone();
        known.server.enter(&delegatos).await;
        known.is_changed_only_as_known(&post("/open".into(), "operator", Value::Null)).await;
        known.is_changed_only_as_known(&post(person(&delegato, "admit"), "operator", Value::Null)).await;
        let on = json!({"on": true});
        known.is_changed_only_as_known(&change(Method::PUT, "/features/chat".into(), "operator", on)).await;
        let attestation = json!({"beside": delegato});
        let new_delegante = known.room().await.1["participants"][2]["id"].as_str().unwrap().to_owned();
        let attest = post(person(&new_delegante, "attest"), "operator", attestation);
        let current = known.is_not_changed_unknown(&attest).await;
        // Nobody has a camera here, so that is as far as it gets.
        refused(known.ask(&attest).header("if-match", current), 409, "cannot-attest").await;
        let withdraw = change(Method::DELETE, person(&new_delegante, "attest"), "operator", Value::Null);
        known.is_not_changed_unknown(&withdraw).await;
        known.is_changed_only_as_known(&post(person(&delegato, "send-back"), "operator", Value::Null)).await;
        known.is_changed_only_as_known(&post(person(&delegato, "remove"), "operator", Value::Null)).await;
        let refused_outcome = json!({"outcome": "refused", "extension_hours": 1});
        known.is_changed_only_as_known(&post("/conclude".into(), "operator", refused_outcome)).await;
        known.is_changed_only_as_known(&post("/extend".into(), "operator", json!({"hours": 2}))).await;

        let Known { mut server, .. } = known;
        let booked = server.book(&delega_from(Timestamp::now() + SignedDuration::from_hours(1))).await;
        server.is_well().await;
        let known = Known { server, booked };
        known.is_changed_only_as_known(&post("/cancel".into(), "booking", Value::Null)).await;
    }
}

#[tokio::test]
async fn a_change_without_a_tag_or_for_any_tag_is_made_as_the_room_stands() {
    let mut server = Server::start().await;
    let booked = server.book(&delega_from(Timestamp::now() + SignedDuration::from_hours(1))).await;
    let path = format!("/v1/rooms/{}/reschedule", booked.room);
    let moves = |minutes| server.request(Method::POST, &path, server.key("booking")).json(&times(minutes));
    accepted(moves(90).header("if-match", "*")).await;
    let moved = accepted(moves(120)).await;
    // One of several tags is enough (RFC 9110, section 13.1.1).
    let several = format!("\"1\", \"{}\"", moved["revision"]);
    let moved = accepted(moves(100).header("if-match", several)).await;
    // Two saw the same room; the second is told that the first was quicker.
    let seen = format!("\"{}\"", moved["revision"]);
    let (one, other) =
        tokio::join!(moves(150).header("if-match", &seen).send(), moves(180).header("if-match", &seen).send());
    let mut statuses = [one.unwrap().status().as_u16(), other.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    // A room that does not exist has nothing that could have changed.
    let unknown = "/v1/rooms/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11/cancel";
    let request = server.request(Method::POST, unknown, server.key("booking")).header("if-match", "\"1\"");
    refused(request, 404, "unknown-room").await;
    server.is_well().await;
}
