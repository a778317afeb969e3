//! What booking systems ask.

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::server::{Server, delega, delega_from, refused, text};

#[tokio::test]
async fn a_booking_gives_each_person_a_link_and_a_code_of_their_own() {
    let mut server = Server::start().await;
    let response =
        server.request(Method::POST, "/v1/rooms", server.key("booking")).json(&delega()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let booked: serde_json::Value = response.json().await.unwrap();
    assert_eq!(location, format!("/v1/rooms/{}", text(&booked["room"]["id"])));

    let people = booked["participants"].as_array().unwrap();
    assert_eq!(people.len(), 3);
    let mut tokens: Vec<String> = people.iter().map(|person| text(&person["join_token"])).collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 3, "each link is of one person only");
    for person in people {
        let code = text(&person["code"]);
        assert!(code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_digit()), "six digits: {code}");
        assert_eq!(text(&person["join_url"]), server.url(&format!("/join/{}", text(&person["join_token"]))));
    }

    let room = server.get(&location, server.key("booking")).await;
    assert_eq!(room["reference"], "PRN-2026-000123");
    assert_eq!(
        (&room["phase"], &room["recording"], &room["outcome"]),
        (&json!("waiting"), &json!("off"), &json!(null))
    );
    assert!(!room.to_string().contains("code\":"), "codes and links are told once");
    server.is_well().await;
}

#[tokio::test]
async fn a_booking_that_makes_no_sense_is_refused_with_the_field_that_is_wrong() {
    let mut server = Server::start().await;
    let key = server.key("booking").to_owned();
    let ask = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut booking = delega();
        change(&mut booking);
        server.request(Method::POST, "/v1/rooms", &key).json(&booking)
    };
    let unknown = refused(ask(&|booking| booking["profile"] = json!("matrimonio")), 422, "invalid-field").await;
    assert_eq!(unknown["field"], "profile");
    let nobody = refused(ask(&|booking| booking["participants"] = json!([])), 422, "invalid-field").await;
    assert!(text(&nobody["field"]).starts_with("participants"));
    let phone =
        refused(ask(&|booking| booking["participants"][1]["phone"] = json!("call me")), 422, "invalid-field").await;
    assert_eq!(phone["field"], "participants[1].phone");
    let backwards = ask(&|booking| booking["end"] = booking["start"].clone()).send().await.unwrap();
    assert_eq!(backwards.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let misspelt = ask(&|booking| booking["ofice"] = json!("Roma")).send().await.unwrap();
    assert!([400, 422].contains(&misspelt.status().as_u16()), "an unknown field is a mistake: {}", misspelt.status());
    server.is_well().await;
}

#[tokio::test]
async fn a_key_opens_only_what_its_scope_names() {
    let mut server = Server::start().await;
    let booked = server.book(&delega()).await;
    let room = format!("/v1/rooms/{}", booked.room);
    let cancel = format!("{room}/cancel");
    let open = format!("{room}/open");

    refused(server.anonymous(Method::GET, &room), 401, "unauthenticated").await;
    refused(server.request(Method::GET, &room, "no such key"), 401, "unauthenticated").await;
    refused(server.request(Method::POST, "/v1/rooms", server.key("operator")).json(&delega()), 403, "forbidden").await;
    refused(server.request(Method::POST, &cancel, server.key("operator")), 403, "forbidden").await;
    refused(server.request(Method::POST, &open, server.key("booking")), 403, "forbidden").await;
    refused(server.request(Method::GET, &room, server.key("compliance")), 403, "forbidden").await;
    refused(server.request(Method::GET, "/metrics", server.key("booking")), 403, "forbidden").await;
    refused(server.anonymous(Method::GET, "/metrics"), 401, "unauthenticated").await;
    for scope in ["booking", "operator", "compliance"] {
        server.get(&format!("{room}/ledger"), server.key(scope)).await;
    }
    server.is_well().await;
}

#[tokio::test]
async fn a_cancelled_room_admits_nobody() {
    let mut server = Server::start().await;
    let booked = server.book(&delega_from(Timestamp::now() + SignedDuration::from_mins(5))).await;
    let session = server.admit(booked.invitation("delegato")).await;
    let mut events = server.follow(&session).await;
    server.order(&format!("/v1/rooms/{}/cancel", booked.room), server.key("booking")).await;
    assert_eq!(server.get(&format!("/v1/rooms/{}", booked.room), server.key("booking")).await["phase"], "cancelled");
    // The session stays, so that whoever waited can read why it is over.
    events.session("cancelled", |view| view["phase"] == "cancelled").await;
    let link = format!("/v1/join/{}", text(&booked.invitation("delegante")["join_token"]));
    let code = json!({"code": booked.invitation("delegante")["code"]});
    let response = server.anonymous(Method::POST, &link).json(&code).send().await.unwrap();
    assert!(response.status().is_client_error(), "{}", response.status());
    server.is_well().await;
}
