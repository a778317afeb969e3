//! `Idempotency-Key`: a booking that may be asked for again, because nobody knows whether it was answered.

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::Database;
use crate::issuer::{Issuer, SigningKey};
use crate::server::{Server, Signal, accepted, delega, refused, text};

const BOTH: [Database; 2] = [Database::Sqlite, Database::Postgres];

const KEY: &str = "7f9c24e8-3b12-4fef-91e0-0f4b7c7e2d11";

fn asks(server: &Server, bearer: &str, key: &str, booking: &Value) -> RequestBuilder {
    server.request(Method::POST, "/v1/rooms", bearer).header("idempotency-key", key).json(booking)
}

async fn rooms(server: &Server) -> usize {
    server.get("/v1/rooms?limit=200", server.key("booking")).await["rooms"].as_array().unwrap().len()
}

/// A profile whose codes are long enough not to be met by chance.
fn long_codes() -> TempDir {
    let profiles = TempDir::new().unwrap();
    let delega = include_str!("../../config/profiles/delega.toml");
    let delega = delega.replace("\ncode_digits = 6\n", "\ncode_digits = 10\n");
    std::fs::write(profiles.path().join("delega.toml"), delega).unwrap();
    profiles
}

/// What nobody but the booking system may ever read.
fn secrets(booked: &Value) -> Vec<String> {
    let people = booked["participants"].as_array().unwrap();
    people.iter().flat_map(|person| [text(&person["join_token"]), text(&person["code"])]).collect()
}

#[tokio::test]
async fn the_same_request_twice_is_one_room_and_the_same_answer_codes_included() {
    for database in BOTH {
        let mut server = Server::start_on(database).await;
        let key = server.key("booking").to_owned();
        let booking = delega();
        let first = asks(&server, &key, KEY, &booking).send().await.unwrap();
        assert_eq!(first.status(), StatusCode::CREATED);
        let (location, tag) = (first.headers()["location"].clone(), first.headers()["etag"].clone());
        let first = first.text().await.unwrap();
        let again = asks(&server, &key, KEY, &booking).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::CREATED);
        assert_eq!((&again.headers()["location"], &again.headers()["etag"]), (&location, &tag));
        assert_eq!(again.text().await.unwrap(), first, "{database:?}");
        assert_eq!(rooms(&server).await, 1);

        // What was asked for counts, not how it was written down.
        let mut other_words = booking.clone();
        other_words["office"] = json!("  Roma ");
        other_words["participants"][1]["phone"] = json!("+39 333 123 4567");
        let again: Value = accepted(asks(&server, &key, KEY, &other_words)).await;
        assert_eq!(again.to_string(), serde_json::from_str::<Value>(&first).unwrap().to_string());

        // The answer's codes are good, and stay so.
        server.enter(&again["participants"][1]).await;
        let other: Value = accepted(asks(&server, &key, "another", &booking)).await;
        assert_ne!(other["room"]["id"], again["room"]["id"]);
        accepted(server.request(Method::POST, "/v1/rooms", &key).json(&booking)).await;
        accepted(server.request(Method::POST, "/v1/rooms", &key).json(&booking)).await;
        assert_eq!(rooms(&server).await, 4, "without a key each request is one of its own");
        server.is_well().await;
    }
}

#[tokio::test]
async fn ten_at_once_under_one_key_are_one_room() {
    for database in BOTH {
        let mut server = Server::start_on(database).await;
        let booking = delega();
        // Who comes first is left to chance: several times.
        for (round, key) in ["one", "two", "three", "four", "five"].into_iter().enumerate() {
            let race = (0..10).map(|_| accepted(asks(&server, server.key("booking"), key, &booking)));
            let answers = join_all(race).await;
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{database:?}: they differ");
            assert_eq!(rooms(&server).await, round + 1, "{database:?}");
            server.enter(&answers[9]["participants"][2]).await;
        }
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_key_that_is_used_for_something_else_is_refused() {
    let mut server = Server::start().await;
    let key = server.key("booking").to_owned();
    let booking = delega();
    accepted(asks(&server, &key, KEY, &booking)).await;
    for (pointer, value) in [
        ("/reason", json!("Altro")),
        ("/end", json!("2056-01-13T09:00:00Z")),
        ("/participants/0/name", json!("Un'altra")),
        ("/participants/1/language", json!("de")),
    ] {
        let mut other = booking.clone();
        match pointer.rsplit_once('/').unwrap() {
            (parent, "language") => other.pointer_mut(parent).unwrap()["language"] = value,
            _ => *other.pointer_mut(pointer).unwrap() = value,
        }
        if pointer == "/end" {
            other["start"] = json!("2056-01-13T08:30:00Z");
        }
        refused(asks(&server, &key, KEY, &other), 422, "idempotency-key-reused").await;
    }
    // What was refused is not remembered: the same key may be used when it is mended.
    let mut wrong = booking.clone();
    wrong["profile"] = json!("matrimonio");
    refused(asks(&server, &key, "mended", &wrong), 422, "invalid-field").await;
    accepted(asks(&server, &key, "mended", &booking)).await;
    assert_eq!(rooms(&server).await, 2);
    server.is_well().await;
}

#[tokio::test]
async fn a_key_is_its_callers_own() {
    for database in BOTH {
        let signing = SigningKey::p256("k");
        let issuer = Issuer::start(&[&signing]).await;
        let configuration = [
            ("OIDC__ISSUER", issuer.url.as_str()),
            ("OIDC__AUDIENCE", "sportello"),
            ("OIDC__SCOPES", r#"{"sportello-booking"="booking"}"#),
        ];
        let mut server = Server::start_with(database, &configuration).await;
        let mut claims = issuer.claims("sportello-booking");
        let token = signing.token(&claims);
        let renewed = signing.token(&{
            let mut claims = claims.clone();
            claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 60);
            claims
        });
        claims["sub"] = json!("un-altro-portale");
        let stranger = signing.token(&claims);
        let made = server.keys(&["create", "--scope", "booking", "--name", "Un altro portale"]).await;
        let other_key = String::from_utf8(made.stdout).unwrap().trim().to_owned();

        let booking = delega();
        let mut other_booking = booking.clone();
        other_booking["reason"] = json!("Tutt'altro");
        let mut rooms_of = Vec::new();
        for (caller, booking) in [
            (server.key("booking"), &booking),
            (&other_key, &other_booking),
            (&token, &booking),
            (&stranger, &other_booking),
        ] {
            let booked = accepted(asks(&server, caller, KEY, booking)).await;
            let again = accepted(asks(&server, caller, KEY, booking)).await;
            assert_eq!(booked, again, "{database:?}");
            rooms_of.push(text(&booked["room"]["id"]));
        }
        let by_renewed = accepted(asks(&server, &renewed, KEY, &booking)).await;
        assert_eq!(by_renewed["room"]["id"], rooms_of[2], "a renewed token is the same caller's");
        refused(asks(&server, &renewed, KEY, &other_booking), 422, "idempotency-key-reused").await;
        rooms_of.sort();
        rooms_of.dedup();
        assert_eq!((rooms_of.len(), rooms(&server).await), (4, 4), "{database:?}");
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let mut server = Server::start().await;
    let key = server.key("booking").to_owned();
    for wrong in ["", "two words", "tab\tin it", "è", &"x".repeat(256)] {
        let problem = refused(asks(&server, &key, wrong, &delega()), 400, "malformed-request").await;
        assert!(text(&problem["detail"]).contains("1 to 255 visible ASCII"), "{problem}");
    }
    assert_eq!(rooms(&server).await, 0);
    let (longest, odd) = ("x".repeat(255), "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
    for right in ["0", &longest, odd] {
        let (booking, mut answers) = (delega(), Vec::new());
        for _ in 0..2 {
            answers.push(accepted(asks(&server, &key, right, &booking)).await);
        }
        assert_eq!(answers[0], answers[1]);
    }
    assert_eq!(rooms(&server).await, 3);
    server.is_well().await;
}

#[tokio::test]
async fn an_answer_is_kept_over_a_crash_and_never_in_the_clear() {
    let profiles = long_codes();
    for database in BOTH {
        let configuration = [("ROOMS__PROFILES", profiles.path().to_str().unwrap()), ("LOG__FILTER", "trace")];
        let server = Server::start_with(database, &configuration).await;
        let key = server.key("booking").to_owned();
        let booking = delega();
        let booked = accepted(asks(&server, &key, KEY, &booking)).await;
        let secrets = secrets(&booked);
        assert_eq!((secrets.len(), secrets[1].len()), (6, 10));
        server.has_not_said(&secrets);
        server.does_not_keep(&secrets).await;

        let mut server = server.restart(Signal::Kill).await;
        assert_eq!(accepted(asks(&server, &key, KEY, &booking)).await, booked, "{database:?}");
        let mut other = booking.clone();
        other["reason"] = json!("Altro");
        refused(asks(&server, &key, KEY, &other), 422, "idempotency-key-reused").await;
        assert_eq!(rooms(&server).await, 1);
        server.enter(&booked["participants"][1]).await;
        server.has_not_said(&secrets);
        server.does_not_keep(&secrets).await;
        server.is_well().await;
    }
}
